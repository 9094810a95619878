"""The dispatcher: order, limits, digests, retries, crashes, several at once; receivers are real."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.adapters.notifications.egress import Egress
from app.adapters.notifications.senders import PeopleNotifier, WebhookNotifier
from app.alerts.domain.events import AlertRaised
from app.alerts.domain.models import AlertRule
from app.alerts.domain.notifications import (
    MAX_ATTEMPTS,
    MAX_HELD,
    ChannelKind,
    DeliveryState,
    NotificationKind,
)
from app.alerts.services.delivery import NotificationDispatcher
from app.alerts.services.notifications import (
    ChannelDraft,
    ChannelSecrets,
    DecryptingNotifier,
    NotificationService,
    by_kind,
)
from app.alerts.storage.notifications import NotificationRepository
from app.alerts.storage.tables import notifications
from app.configuration.domain.document import validate
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import NotificationPriority, Severity
from app.configuration.services.current import CurrentSettings
from app.foundation.errors import Code, ConflictError, NotFoundError, RefusedError
from app.foundation.idempotency import IdempotentExecutor, StoredResponse
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.events import EventRepository
from app.operations.services.event_messages import event_frame
from app.portfolio.domain.events import PlanCreated, PortfolioChanged
from app.security.services.sealing import SecretSealer
from tests.support.event_contract import check_message
from tests.support.trading_desk import NOW, WHO

SECRET = "a secret of the receiver"
KEEP = timedelta(days=30)
# Where the database is no matter.
SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KEY = "a" * 43 + "="


@dataclass
class Receiver:
    """A program that is told, and can be away."""

    status: int = 200
    silent: bool = False
    dies_after: int | None = None
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/hook", self.take)
        async with TestServer(app) as server:
            yield f"http://127.0.0.1:{server.port}/hook"
            self.release.set()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.silent:
            await self.release.wait()
        dead = self.dies_after is not None and len(self.got) >= self.dies_after
        status = 503 if dead else self.status
        if status == 200:
            self.got.append((dict(request.headers), body))
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"})

    @property
    def ids(self) -> list[str]:
        return [headers["X-Event-Id"] for headers, _ in self.got]


@dataclass
class Counting:
    """A database that is only written to, and counts how often."""

    database: Database
    write: Any


class Office:
    """Notifications and dispatchers over one database, with a clock to turn."""

    def __init__(self, database: Database) -> None:
        self.database, self.now, self.numbers = database, NOW, iter(range(1, 10_000))
        self.metrics, self.in_force = Metrics(), CurrentSettings()
        self.vault = ChannelSecrets(SecretSealer((KEY,)))
        ways = (
            WebhookNotifier(
                lambda: int(self.now.timestamp()), Egress(allow_private=True, timeout_s=3.0)
            ),
            PeopleNotifier(Egress(allow_private=True)),
        )
        self.notifiers = by_kind(DecryptingNotifier(way, self.vault) for way in ways)
        self.notifications = NotificationService(
            database,
            lambda: self.now,
            lambda: f"00000000-0000-4000-8000-{next(self.numbers):012}",
            IdempotentExecutor(database, lambda: self.now),
            self.notifiers,
            self.vault,
        )
        self.dispatcher = self.another()

    def another(self) -> NotificationDispatcher:
        return NotificationDispatcher(
            self.database,
            lambda: self.now,
            lambda: 0.5,
            self.notifiers,
            self.metrics,
            self.in_force,
        )

    async def channel(self, name: str, url: str, kind: ChannelKind = ChannelKind.WEBHOOK) -> str:
        secret = SECRET if kind is ChannelKind.WEBHOOK else None
        draft = ChannelDraft(name, kind, url, secret, tuple(NotificationKind), enabled=True)
        outcome = await self.notifications.create(
            draft, WHO, lambda _: StoredResponse(201, {}, b"")
        )
        assert outcome.result is not None
        return outcome.result.id

    async def publish(self, *events: object) -> None:
        async with self.database.write() as unit:
            for event in events:
                unit.publish_after_commit(event)

    async def work(self, *dispatchers: NotificationDispatcher) -> None:
        """One round: notices of what happened, and a try over each channel."""
        for dispatcher in dispatchers or (self.dispatcher,):
            for channel in await dispatcher.collect():
                await dispatcher.drain(channel)

    async def states(self) -> list[DeliveryState]:
        return [one.state for one in reversed(await self.notifications.log(None, 500))]


def change(number: int) -> PortfolioChanged:
    return PortfolioChanged(number, number, "ADD", f"S{number}USDT", NOW, reason="because")


def alert(number: int, severity: Severity = Severity.WARNING) -> AlertRaised:
    return AlertRaised(
        f"alert-{number}", AlertRule.LOW_SCORE, f"S{number}USDT", (), severity, 0.1, 0.2, "low", NOW
    )


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


async def test_S12_each_event_arrives_once_in_order_and_signed(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.publish(change(0))  # before there was a channel: no news for it
        await office.dispatcher.collect()
        await office.channel("desk", url)
        await office.publish(
            *(change(number) for number in range(1, 6)), PlanCreated("r", 1, 0, NOW)
        )
        await office.work()
        await office.work()
    assert receiver.ids == [f"event-{number}" for number in range(2, 7)]
    for headers, body in receiver.got:
        stamp, _, mac = headers["X-Signature"].partition(",v1=")
        signed = f"{stamp.removeprefix('t=')}.".encode() + body
        assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert stamp == f"t={int(NOW.timestamp())}"
        check_message(json.loads(body), "webhook", "portfolio_changed_delivery")
    told = json.loads(receiver.got[0][1])
    notification = told.pop("notification")
    assert (notification["id"], notification["kind"]) == ("event-2", "trade")
    assert (notification["priority"], notification["critical"]) == ("normal", False)
    async with office.database.read() as unit:
        (stored,) = await unit.get(EventRepository).after(1, 1)
    assert told == json.loads(event_frame(stored).text)  # the same envelope as the stream's
    assert told["data"]["symbol"] == "S1USDT"
    assert await office.states() == [DeliveryState.DELIVERED] * 5


@SQLITE
async def test_S11_a_failure_is_recorded_and_the_answer_is_not(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer that refuses, and a name that leads inside since the channel was created."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=418, text="canary-answer", headers={"X-Answer": "canary-answer"})

    async def lead_inside(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    app = web.Application()
    app.router.add_post("/hook", refuse)
    async with TestServer(app) as server:
        channel_id = await office.channel("desk", f"http://127.0.0.1:{server.port}/hook")
        await office.publish(change(1))
        await office.work()
        (failed,) = await office.notifications.log(None, 9)
        assert (failed.state, failed.attempts) == (DeliveryState.PENDING, 1)
        assert failed.error == "receiver_unavailable: answered 418"
        assert "canary-answer" not in repr(failed) + capsys.readouterr().out
        way = WebhookNotifier(lambda: 0, Egress(resolve=lead_inside))
        office.notifiers = by_kind([DecryptingNotifier(way, office.vault)])
        draft = ChannelDraft(
            "desk", ChannelKind.WEBHOOK, "https://hooks.example.com/", None,
            tuple(NotificationKind), enabled=True,
        )  # fmt: skip
        await office.notifications.update_channel(
            channel_id, draft, WHO, lambda _: StoredResponse(200, {}, b"")
        )
        office.now = failed.next_attempt_at or office.now
        await office.work(office.another())
    (refused,) = await office.notifications.log(None, 9)
    assert refused.attempts == 2
    assert str(refused.error).startswith("webhook_url_forbidden: ")
    assert "10.0.0.1" not in str(refused.error)


async def test_U08_a_receiver_that_was_away_for_an_hour_gets_everything_in_order(
    office: Office,
) -> None:
    away, fine = Receiver(status=500), Receiver()
    async with away.listening() as url, fine.listening() as other:
        await office.channel("away", url)
        await office.channel("fine", other)
        for minute in range(60):
            await office.publish(change(minute))
            await office.work()
            office.now += timedelta(minutes=1)
        assert away.got == []
        assert fine.ids == [f"event-{number}" for number in range(1, 61)]
        tried = (await office.notifications.log(None, 1, state=DeliveryState.PENDING))[0]
        assert tried.attempts == 0  # only the oldest is tried: the others wait behind it
        away.status = 200
        for _ in range(60):
            office.now += timedelta(minutes=1)
            await office.work()
    assert away.ids == [f"event-{number}" for number in range(1, 61)]
    assert fine.ids == away.ids


@pytest.mark.parametrize("fault", ["status", "redirect", "silence", "closed"])
async def test_U08_whatever_a_receiver_does_is_a_failure_with_a_next_try(
    office: Office, fault: str
) -> None:
    receiver = Receiver(status=302 if fault == "redirect" else 503, silent=fault == "silence")
    async with receiver.listening() as url:
        address = "http://127.0.0.1:1/hook" if fault == "closed" else url
        await office.channel("desk", address)
        await office.publish(change(1))
        await office.work()
        (failed,) = await office.notifications.log(None, 10)
        assert (failed.state, failed.attempts) == (DeliveryState.PENDING, 1)
        assert failed.next_attempt_at == NOW + timedelta(seconds=66)  # a minute and half its jitter
        assert failed.error is not None
        assert failed.error.startswith("receiver_unavailable")
        assert "127.0.0.1" not in failed.error
        await office.work()  # not yet
        assert (await office.notifications.log(None, 10))[0].attempts == 1
    assert WebhookNotifier(lambda: 0).egress.timeout_s == 10.0, "so long a silent one is waited for"


async def test_U08_what_is_given_up_is_seen_and_told_again_by_hand(office: Office) -> None:
    receiver = Receiver(status=500)
    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.publish(change(1))
        for _ in range(MAX_ATTEMPTS):
            assert await office.states() in ([], [DeliveryState.PENDING])
            await office.work()
            office.now += timedelta(hours=8)
        (dead,) = await office.notifications.log(None, 10, state=DeliveryState.DEAD)
        assert dead.attempts == MAX_ATTEMPTS
        await office.publish(change(2))
        receiver.status = 200
        await office.work()  # a dead one holds up nobody
        assert receiver.ids == ["event-2"]
        await office.notifications.redrive(dead.id, WHO, lambda _: StoredResponse(200, {}, b""))
        await office.work()
        with pytest.raises(ConflictError) as caught:
            await office.notifications.redrive(dead.id, WHO, lambda _: StoredResponse(200, {}, b""))
        assert caught.value.code is Code.INVALID_STATE_TRANSITION
    assert receiver.ids == ["event-2", "event-1"]


async def test_K11_a_crash_between_the_telling_and_its_record_repeats_the_same_id(
    office: Office,
) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.publish(change(1), change(2))
        (channel,) = await office.dispatcher.collect()
        async with office.database.write() as unit:
            claimed = await unit.get(NotificationRepository).claim(channel.id, office.now, 2)
        async with office.notifiers[channel.kind].line(channel) as tell:
            await tell(claimed[0])  # and then it dies
        await office.work()
        assert receiver.ids == ["event-1"]  # claimed: nobody else is at it
        office.now += timedelta(minutes=2)
        await office.work()
    assert receiver.ids == ["event-1", "event-1", "event-2"]
    assert receiver.got[0][1] == receiver.got[1][1]


async def test_C10_three_dispatchers_tell_everything_once_and_in_order(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("desk", url)
        dispatchers = [office.another() for _ in range(3)]
        for start in range(0, 30, 10):
            await office.publish(*(change(number) for number in range(start, start + 10)))
            await asyncio.gather(*(office.work(one) for one in dispatchers))
        await office.work()
    assert receiver.ids == [f"event-{number}" for number in range(1, 31)]


async def test_people_get_so_many_of_a_kind_and_the_rest_in_one_piece(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        await office.publish(*(alert(number) for number in range(14)))
        await office.publish(alert(3), alert(99, Severity.CRITICAL))
        await office.work()
        titles = [json.loads(body)["title"] for _, body in receiver.got]
        assert len(titles) == 11  # ten an hour, and what is critical at once
        assert titles[0] == "CRITICAL: low_score (S99USDT): 0.1, limit 0.2"  # and first
        held = await office.notifications.log(None, 50, state=DeliveryState.HELD)
        assert len(held) == 5
        office.now += timedelta(seconds=299)
        await office.work()
        assert len(receiver.got) == 11
        office.now += timedelta(seconds=1)
        await office.work()
        assert len(receiver.got) == 12
        last = json.loads(receiver.got[-1][1])
        assert last["title"] == "5 more of kind error"
        assert last["message"].count("low_score") == 5
    assert DeliveryState.HELD not in await office.states()


async def test_people_get_what_is_urgent_first(office: Office) -> None:
    receiver = Receiver()
    loss = replace(alert(2), rule=AlertRule.LARGE_LOSS)
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        changed = {"notification_priorities": {"large_loss": "low", "status_update": "high"}}
        await office.publish(
            ConfigurationChanged(Configuration(), NOW),
            change(1),
            loss,
            alert(3),
            alert(4, Severity.CRITICAL),
        )
        await office.work()
        office.in_force.on_event(ConfigurationChanged(validate(changed, Configuration()), NOW))
        office.now += timedelta(hours=1)
        await office.publish(loss, change(2), ConfigurationChanged(Configuration(), NOW))
        await office.work()
    assert [json.loads(body)["title"].split(":")[0] for _, body in receiver.got] == [
        "CRITICAL",  # immediate
        "WARNING",  # high: the loss, then the error
        "WARNING",
        "Portfolio",  # normal
        "Settings",  # low
        "Settings",  # high by now
        "Portfolio",
        "WARNING",  # the loss, low by now
    ]
    stored = await office.notifications.log(None, 3)
    assert sorted(one.notification.priority.value for one in stored) == ["high", "low", "normal"]


@SQLITE
async def test_a_delivery_from_before_priorities_is_immediate_if_it_was_critical(
    office: Office,
) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        await office.publish(alert(1), alert(2, Severity.CRITICAL))
        await office.dispatcher.collect()
        async with office.database.write() as unit:
            await unit.get(NotificationRepository).connection.execute(
                notifications.update().values(priority=None)
            )
        stored = reversed(await office.notifications.log(None, 2))
        assert [one.notification.priority for one in stored] == [
            NotificationPriority.NORMAL,
            NotificationPriority.IMMEDIATE,
        ]
        await office.work()
    titles = [json.loads(body)["title"].split(":")[0] for _, body in receiver.got]
    assert titles == ["CRITICAL", "WARNING"]


@SQLITE
async def test_new_limits_hold_from_the_next_notice_on(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        changed = {"notifications": {"error": {"per_hour": 2, "cooldown_s": 30}}}
        office.in_force.on_event(ConfigurationChanged(validate(changed, Configuration()), NOW))
        await office.publish(*(alert(number) for number in range(5)))
        await office.work()
        assert len(receiver.got) == 2
        office.now += timedelta(seconds=30)
        await office.work()
    assert json.loads(receiver.got[-1][1])["title"] == "3 more of kind error"


@SQLITE
async def test_E06_a_storm_of_alerts_is_thirty_messages_a_minute_and_the_rest_is_counted(
    office: Office,
) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        storm = [alert(number, Severity.CRITICAL) for number in range(MAX_HELD + 90)]
        await office.publish(*storm, *(change(number) for number in range(40)))
        minutes: list[int] = []
        for _ in range(3):
            for second in range(0, 60, 10):
                office.now += timedelta(seconds=10)
                if second < 20:  # the same storm again, in the same minute
                    await office.publish(*storm[:3])
                before = len(receiver.got)
                await office.work()
                minutes.append(len(receiver.got) - before)
    for start in range(len(minutes) - 5):
        assert sum(minutes[start : start + 6]) <= 30
    titles = [json.loads(body)["title"] for _, body in receiver.got]
    assert titles[:30] == [
        f"CRITICAL: low_score (S{number}USDT): 0.1, limit 0.2" for number in range(30)
    ]
    # Nothing of the storm is lost from sight: it is told by itself or counted in a digest.
    told = sum(title.startswith("CRITICAL") for title in titles)
    counted = sum(int(title.split()[0]) for title in titles if title.endswith("kind error"))
    assert told + counted == len(storm) + 3 * 2 * 3
    kept = await office.notifications.log(None, 5_000)
    assert len(kept) < MAX_HELD + 60
    dropped = office.metrics.notifications.labels("apprise", "dropped")
    assert dropped._value.get() >= 60


async def test_E11_a_backlog_drains_in_order_in_few_transactions(office: Office) -> None:
    receiver = Receiver(status=500)
    writes = 0

    @asynccontextmanager
    async def counted() -> AsyncIterator[UnitOfWork]:
        nonlocal writes
        writes += 1
        async with office.database.write() as unit:
            yield unit

    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.publish(*(change(number) for number in range(600)))
        await office.work()
        office.now += timedelta(hours=24)
        receiver.status = 200
        dispatcher = office.another()
        (channel,) = await dispatcher.collect()
        dispatcher.database = Counting(office.database, counted)  # type: ignore[assignment]  # one method
        await dispatcher.drain(channel)
    assert receiver.ids == [f"event-{number}" for number in range(1, 601)]
    assert writes <= 8  # two for two hundred, and a last look
    assert set(await office.states()) == {DeliveryState.DELIVERED}


async def test_what_arrived_before_a_failure_is_not_told_again(office: Office) -> None:
    receiver = Receiver(dies_after=3)
    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.publish(*(change(number) for number in range(6)))
        await office.work()
        states = await office.states()
        assert states == [DeliveryState.DELIVERED] * 3 + [DeliveryState.PENDING] * 3
        receiver.dies_after = None
        await office.work()
        assert len(receiver.got) == 3  # the rest waits behind the one that failed
        office.now += timedelta(minutes=2)
        await office.work()
    assert receiver.ids == [f"event-{number}" for number in range(1, 7)]


async def test_the_same_thing_again_waits_for_its_cooldown(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        for seconds in (0, 299, 301):
            office.now = NOW + timedelta(seconds=seconds)
            await office.publish(alert(1))
            await office.work()
    states = await office.states()
    assert states[:3] == [
        DeliveryState.DELIVERED,
        DeliveryState.HELD,
        DeliveryState.DELIVERED,
    ]


async def test_U08_a_slow_receiver_holds_up_nobody_else(office: Office) -> None:
    slow, fine = Receiver(silent=True), Receiver()
    way = WebhookNotifier(lambda: 0, Egress(allow_private=True, timeout_s=3_600.0))
    office.notifiers = by_kind([DecryptingNotifier(way, office.vault)])
    async with slow.listening() as url, fine.listening() as other:
        await office.channel("a-slow", url)
        await office.channel("fine", other)
        dispatcher = replace(office.another(), sleep=lambda _: asyncio.sleep(0.01))
        running = asyncio.ensure_future(dispatcher.run(lambda: None))
        try:
            async with asyncio.timeout(60):
                for number in range(1, 6):
                    await office.publish(change(number))
                    while len(fine.got) < number:
                        await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert fine.ids == [f"event-{number}" for number in range(1, 6)]


async def test_channels_can_be_changed_and_removed(office: Office) -> None:
    receiver = Receiver()

    def no_answer(_: Any) -> StoredResponse:
        return StoredResponse(200, {}, b"")

    async with receiver.listening() as url:
        channel_id = await office.channel("desk", "http://127.0.0.1:1/hook")
        draft = ChannelDraft(
            "desk", ChannelKind.WEBHOOK, url, None, (NotificationKind.ERROR,), True
        )
        await office.notifications.update_channel(channel_id, draft, WHO, no_answer)
        (kept,) = await office.notifications.channels()
        assert (kept.url, kept.secret, kept.kinds) == (url, SECRET, (NotificationKind.ERROR,))
        assert url not in repr(kept)
        assert SECRET not in repr(kept)
        await office.publish(change(1), alert(1))
        await office.notifications.test(channel_id, WHO, no_answer)
        await office.work()
        assert receiver.ids == ["notice-1", "event-2"]
        off = replace(draft, enabled=False, url=None)
        await office.notifications.update_channel(channel_id, off, WHO, no_answer)
        await office.publish(alert(2))
        await office.work()
        assert len(receiver.got) == 2
        people = replace(draft, kind=ChannelKind.APPRISE, url=None)
        with pytest.raises(RefusedError):  # another kind needs an address of its own
            await office.notifications.update_channel(channel_id, people, WHO, no_answer)
        await office.notifications.remove(channel_id, WHO, no_answer)
        assert await office.notifications.channels() == ()
        assert await office.notifications.log(None, 10) == ()
        with pytest.raises(NotFoundError):
            await office.notifications.remove(channel_id, WHO, no_answer)


async def test_what_nobody_was_to_be_told_is_not_told_to_who_comes_later(office: Office) -> None:
    receiver = Receiver()
    async with office.database.read() as unit:
        assert await unit.get(NotificationRepository).backlog() == 0
    await office.publish(change(1), change(2))
    async with office.database.read() as unit:
        assert await unit.get(NotificationRepository).backlog() == 2
    await office.work()
    async with office.database.read() as unit:
        assert await unit.get(NotificationRepository).backlog() == 0
    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.work()
        assert receiver.ids == []
        await office.publish(change(3))
        await office.work()
    assert receiver.ids == ["event-3"]


@SQLITE
async def test_a_round_without_news_writes_nothing(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.publish(change(1))
        before = office.database.commits
        await office.work()
        assert receiver.ids == ["event-1"]
        assert office.database.commits != before
        before = office.database.commits
        await office.dispatcher.collect()
        assert office.database.commits == before
        await office.publish(change(2))
        await office.work()
        assert receiver.ids == ["event-1", "event-2"]


async def test_what_was_settled_long_ago_is_dropped(office: Office) -> None:
    receiver = Receiver()
    async with receiver.listening() as url:
        await office.channel("desk", url)
        await office.publish(change(1))
        await office.work()
        assert await office.notifications.delete_old(KEEP) == 0
        office.now += timedelta(days=31)
        assert await office.notifications.delete_old(KEEP) == 1
