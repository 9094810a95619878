"""The daily digest reaches each channel once a day: several processes, restarts, missing data."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.alerts.domain.notifications import Channel, ChannelKind, NotificationKind
from app.alerts.services.daily_digest import DailyDigest
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.document import validate
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataStatus
from app.foundation.sql.database import Database
from app.market.services.health_facts import MarketFacts
from tests.alerts.services.test_notifications import Office, Receiver
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk


class Digests:
    """Digests of several processes over the portfolio of one desk; each has its own object."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.settings = desk, Configuration()

    def process(self) -> DailyDigest:
        desk = self.desk
        return DailyDigest(
            desk.database, lambda: desk.now, lambda: self.settings, desk.performance, desk.alerts,
            self.market,
        )  # fmt: skip

    def market(self) -> MarketFacts:
        bench = self.desk.market
        return MarketFacts(
            bench.source, bench.state, bench.as_of(), 60, 60, 0, "complete", 1, 1, {}
        )

    def put(self, **changes: Any) -> None:
        self.settings = validate({"notifications": {"daily_digest": changes}}, self.settings)

    async def stored(self) -> list[tuple[str, str]]:
        async with self.desk.database.read() as unit:
            log = await unit.get(NotificationRepository).page(None, 100)
        return [(one.channel_id, one.notification.title) for one in reversed(log)]


async def add_channel(database: Database, name: str, **changes: Any) -> None:
    channel = Channel(
        name, name, ChannelKind.WEBHOOK, "x", None, tuple(NotificationKind), True, NOW
    )
    async with database.write() as unit:
        await unit.get(NotificationRepository).save_channel(replace(channel, **changes))


@pytest.fixture
async def digests(desk: Desk) -> Digests:
    await desk.filled(5)
    await add_channel(desk.database, "one")
    await add_channel(desk.database, "two")
    await add_channel(desk.database, "off", enabled=False)
    await add_channel(desk.database, "errors", kinds=(NotificationKind.ERROR,))
    return Digests(desk)


async def test_each_channel_of_the_kind_gets_one_digest_a_day(digests: Digests) -> None:
    desk, process = digests.desk, digests.process()
    assert await process.send() is None, "at noon the first one waits for tomorrow"
    days = []
    for _ in range(60):  # an hour each
        desk.later(hours=1)
        if await process.send() is not None:
            days.append(desk.now)
        process = digests.process()  # a restart forgets nothing
    assert days == [NOW + timedelta(hours=19), NOW + timedelta(hours=43)]
    stored = await digests.stored()
    assert [channel for channel, _ in stored] == ["one", "two", "one", "two"]
    assert [title.split(",")[0] for _, title in stored[::2]] == [
        "My Symbols: 2026-03-02",
        "My Symbols: 2026-03-03",
    ]


async def test_of_many_processes_one_sends_it(digests: Digests) -> None:
    await digests.process().send()
    digests.desk.later(hours=19)
    sent = await asyncio.gather(*(digests.process().send() for _ in range(5)))
    assert sorted(sent, key=str) == [2, None, None, None, None]
    assert [channel for channel, _ in await digests.stored()] == ["one", "two"]


async def test_hour_and_switch_are_settings(digests: Digests) -> None:
    desk = digests.desk
    digests.put(hour=13)
    assert await digests.process().send() is None
    desk.later(hours=1)
    assert await digests.process().send() == 2, "the first one comes at the next hour"
    digests.put(enabled=False)
    desk.later(days=1)
    assert await digests.process().send() is None
    digests.put(enabled=True)
    assert await digests.process().send() == 2


async def test_what_it_says_is_what_the_service_knows(digests: Digests) -> None:
    desk = digests.desk
    await digests.process().send()
    desk.later(hours=18)
    desk.quote(SYMBOLS[1], mark=Decimal(11))
    desk.quote(SYMBOLS[2], mark=Decimal(9))
    desk.score({SYMBOLS[3]: 0.3})
    await desk.portfolio.remove(SYMBOLS[4], "weak", WHO)
    desk.later(hours=1)
    desk.market.state = DataStatus.STALE
    await digests.process().send()
    async with desk.database.read() as unit:
        (first, _) = await unit.get(NotificationRepository).page(None, 2)
    text = first.notification.body
    weights = [one for one in text.splitlines() if one.split()[0] in SYMBOLS]
    assert [one.split()[0] for one in weights] == list(SYMBOLS[:4])
    assert f"best {SYMBOLS[1]} +" in text
    assert f"worst {SYMBOLS[2]} -" in text
    assert f"06:00 removed {SYMBOLS[4]}: weak" in text
    assert f"warning: low_score ({SYMBOLS[3]})" in text
    assert "market data of sandbox stale" in text
    assert "60 contracts, 60 eligible, 0 stale" in text
    assert "board 3600 s old, 60 scored, 0 unavailable" in text


async def test_a_part_that_is_unknown_says_why(digests: Digests) -> None:
    desk = digests.desk
    await digests.process().send()
    desk.later(hours=19)
    for symbol in SYMBOLS[:5]:
        desk.quote(symbol, mark=None)
    desk.boards.board = None
    await digests.process().send()
    async with desk.database.read() as unit:
        (first, _) = await unit.get(NotificationRepository).page(None, 2)
    lines = first.notification.body.splitlines()
    assert "change unknown" in first.notification.title
    assert lines[lines.index("Equity:") + 1].startswith("unknown: ")
    assert lines[lines.index("Best and worst:") + 1].startswith("unknown: ")
    assert "no complete board yet" in lines


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_people_get_it_beside_the_limit_of_its_kind(desk: Desk) -> None:
    await desk.filled(5)
    office, receiver, digests = Office(desk.database), Receiver(), Digests(desk)
    strict = validate({"notifications": {"status": {"per_hour": 0}}}, Configuration())
    office.in_force.on_event(ConfigurationChanged(strict, NOW))
    async with receiver.listening() as url:
        await office.channel("people", url.replace("http", "json", 1), ChannelKind.APPRISE)
        await digests.process().send()
        desk.later(hours=19)
        office.now = desk.now
        assert await digests.process().send() == 1
        await office.work()
        messages = [json.loads(body) for _, body in receiver.got]
    (message,) = [one for one in messages if one["title"].startswith("My Symbols:")]
    assert message["title"].startswith("My Symbols: 2026-03-02, 5 members")
    assert "Data quality:" in message["message"]
