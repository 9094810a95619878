"""Counts of rate limits that processes announce to each other, beside the requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from app.container.startup import open_service
from app.foundation.errors import UnavailableError
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.security.api.rate_limiting import COUNT_EXCHANGE
from app.security.domain.rate_limits import LimitName, RateLimits
from app.security.services.count_exchange import (
    CHANNEL,
    MAX_MESSAGES,
    CountExchange,
    pack_counts,
    unpack_counts,
)
from app.security.services.rate_limiter import (
    ANNOUNCED,
    MAX_ANNOUNCED,
    MAX_COUNTERS,
    SHARED,
    RateLimiter,
    WindowStorage,
)
from tests.support.service_in_process import settings_for

ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
NOBODY = "http://127.0.0.1:9"
PATIENCE_S = 60.0
QUOTA = 50
BOTH = [(LimitName.REQUESTS, "key:engine"), (LimitName.ADDRESS, "192.0.2.1")]
MakeDatabase = Callable[..., Database]


@dataclass
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Process:
    """Limits and exchange of one process, and the messages that its connection has received."""

    database: Database
    name: str
    clock: Clock
    quotas: RateLimits
    admitted: list[float] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = RateLimiter(self.quotas, self.clock)
        self.exchange = CountExchange(self.database, self.name)
        self.exchange.attach(self.limiter)
        self.exchange.open()
        self.database.subscribe("marks", self.marks.append)

    async def ask(self, *limits: tuple[LimitName, str]) -> bool:
        admission = await self.limiter.admit(limits or BOTH[:1])
        if admission.retry_after_s is None:
            self.admitted.append(self.clock.now_s)
        return admission.retry_after_s is None

    async def ask_often(self, number: int, *limits: tuple[LimitName, str]) -> int:
        return sum([await self.ask(*limits) for _ in range(number)])


@asynccontextmanager
async def processes(
    url: str, make: MakeDatabase, number: int, quotas: RateLimits, clock: Clock
) -> AsyncIterator[list[Process]]:
    """Processes with databases of their own, whose connections listen."""
    async with AsyncExitStack() as stack:
        found = []
        for at in range(number):
            database = make(url)
            await database.open()
            stack.push_async_callback(database.close)
            found.append(Process(database, f"process-{at}", clock, quotas))
        async with asyncio.TaskGroup() as group:
            connected = [asyncio.Event() for _ in found]
            tasks = [
                group.create_task(one.database.listen(event.set, lambda: None))
                for one, event in zip(found, connected, strict=True)
            ]
            async with asyncio.timeout(PATIENCE_S):
                for event in connected:
                    await event.wait()
            # The first hint comes before the other subscriptions.
            await delivered(found, until_subscribed=True)
            yield found
            for task in tasks:
                task.cancel()


async def delivered(found: list[Process], *, until_subscribed: bool = False) -> None:
    """Returns after every process has received what was sent before."""
    mark = str(max(len(one.marks) for one in found))
    async with asyncio.timeout(PATIENCE_S):
        await found[0].database.notify("marks", [mark])
        while not all(mark in one.marks for one in found):
            await asyncio.sleep(0.005)
            if until_subscribed:
                await found[0].database.notify("marks", [mark])


async def exchange(found: list[Process]) -> None:
    for one in found:
        await one.exchange.announce()
    await delivered(found)


@ON_POSTGRES
@pytest.mark.parametrize("number", [2, 4])
async def test_the_total_of_processes_is_the_quota_plus_a_bounded_overshoot(
    database_url: str, make_database: MakeDatabase, number: int
) -> None:
    clock, seconds, step_s = Clock(), 8, 0.01
    quotas = RateLimits(requests_per_s=QUOTA)
    began = clock.now_s
    async with processes(database_url, make_database, number, quotas, clock) as found:
        for step in range(int(seconds / step_s)):
            clock.now_s = began + step * step_s
            for at, one in enumerate(found):
                await one.ask_often(4)  # eight times the quota in each process
                if step % 25 == at * 25 // number:
                    await one.exchange.announce()
                    await delivered(found)
    admitted = sorted(at for one in found for at in one.admitted)

    def within(start: float, span_s: float) -> int:
        return sum(start <= at < start + span_s for at in admitted)

    # A burst from rest: each process admits at most its own quota until it hears of the others.
    assert within(began, 1.0) <= number * QUOTA
    windows = [within(began + 2 + tenth / 10, 1.0) for tenth in range(10 * (seconds - 3))]
    assert max(windows) <= 1.3 * QUOTA
    sustained = within(began + 2, seconds - 2) / (seconds - 2)
    assert 0.9 * QUOTA <= sustained <= 1.1 * QUOTA


@ON_POSTGRES
async def test_a_process_counts_the_requests_of_the_others_and_their_windows_expire(
    database_url: str, make_database: MakeDatabase
) -> None:
    quotas = RateLimits(requests_per_s=QUOTA, address_per_s=60, open_mode_per_s=30)
    clock = Clock()
    async with processes(database_url, make_database, 2, quotas, clock) as (first, second):
        assert await first.ask_often(30, *BOTH) == 30
        assert await first.ask_often(20, (LimitName.OPEN_MODE, "")) == 20
        await exchange([first, second])
        assert await second.ask_often(40, (LimitName.OPEN_MODE, "")) == 10
        assert await second.ask_often(40, *BOTH) == 20, "50 requests a second of one principal"
        assert await second.ask_often(40, BOTH[1]) == 10, "60 of one address"
        assert await second.ask_often(60, (LimitName.REQUESTS, "key:other")) == QUOTA
        await exchange([first, second])
        assert await first.ask_often(60, *BOTH) == 0
        await exchange([first, second])
        await exchange([first, second])  # nothing is announced twice
        clock.now_s += 1.5
        assert await first.ask_often(60, *BOTH) == QUOTA - 25, "half of the window before counts"
        clock.now_s += 2
        assert await second.ask_often(60, *BOTH) == QUOTA


@ON_POSTGRES
async def test_counts_of_an_outage_are_not_announced_after_it(
    database_url: str, make_database: MakeDatabase
) -> None:
    quotas, clock = RateLimits(requests_per_s=QUOTA), Clock(1_000.75)
    async with processes(database_url, make_database, 2, quotas, clock) as (first, second):
        await first.database.close()
        for _ in range(60):
            assert QUOTA // 2 < await first.ask_often(QUOTA + 5) <= QUOTA, "its own limit holds"
            with pytest.raises(UnavailableError):
                await first.exchange.announce()
            clock.now_s += 1
        for _ in range(60):  # without an attempt, as between two restarts of the task
            assert QUOTA // 2 < await first.ask_often(QUOTA + 5) <= QUOTA
            clock.now_s += 1
        await first.database.open()
        clock.now_s += 2
        await first.exchange.announce()
        await delivered([first, second])
        assert await second.ask_often(60) == QUOTA, "old requests count nowhere"
        for _ in range(60):
            await first.ask_often(QUOTA)
            clock.now_s += 1
        ((_, amount),) = first.limiter.take_announcements()
        assert amount <= 2 * QUOTA


@ON_POSTGRES
async def test_idle_counters_and_those_of_the_database_are_not_announced(
    database_url: str, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas, clock = RateLimits(requests_per_s=60, address_per_s=100), Clock()
    sent: list[list[str]] = []
    notify = Database.notify

    async def counted(self: Database, channel: str, messages: list[str]) -> None:
        if channel == CHANNEL:
            sent.append(messages)
        await notify(self, channel, messages)

    monkeypatch.setattr(Database, "notify", counted)
    async with processes(database_url, make_database, 1, quotas, clock) as (one,):
        await one.ask_often(2, *BOTH)
        for limit in SHARED:
            await one.ask_often(100, (limit, "key:engine"))
        assert sent == []
        await one.exchange.announce()
        assert sent == [], "less than a 20th of each quota"
        await one.ask_often(1, *BOTH)
        assert sent == [], "no request waits for the database"
        await one.exchange.announce()
        (messages,) = sent
        assert [json.loads(message) for message in messages] == [
            ["process-0", [["requests/key:engine/60/1/second", 3]]]
        ]
        await one.exchange.announce()
        assert len(sent) == 1
    own = {LimitName.REQUESTS, LimitName.ADDRESS, LimitName.OPEN_MODE, LimitName.PREVIEWS}
    assert own == ANNOUNCED


async def test_memory_and_messages_are_bounded_whatever_is_counted() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimits(requests_per_s=2, address_per_s=2), clock)
    limiter.announce()
    for number in range(3 * MAX_ANNOUNCED):
        site = f"2001:db8:{number:x}::/64"
        await limiter.admit([(LimitName.ADDRESS, site)])
    await limiter.admit([(LimitName.REQUESTS, "key:engine")])
    await limiter.admit([(LimitName.REQUESTS, "key:engine")])
    counts = limiter.take_announcements()
    assert len(counts) == MAX_ANNOUNCED + 1
    assert limiter.take_announcements() == []
    assert ("requests/key:engine/2/1/second", 2) in counts
    messages = pack_counts("p" * 36, counts * 3)
    assert len(messages) == MAX_MESSAGES
    assert max(map(len, messages)) <= 8_000
    assert min(map(len, messages)) > 7_000
    packed = [one for message in messages for one in unpack_counts("other", message)]
    assert packed == (counts * 3)[: len(packed)]
    assert pack_counts("p", []) == []
    for number in range(2 * MAX_COUNTERS):
        limiter.count_elsewhere(f"address/{number}/2/1/second", 1)
    storages = {
        id(counter.storage): counter.storage for counter in limiter._counters.values()
    }.values()
    assert sorted(len(one) for one in storages if isinstance(one, WindowStorage)) == [
        0, 1, MAX_COUNTERS,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        "", "{", "[]", "7", '["other"]', '["other", 7]', '["other", [["a"]]]',
        '["other", [["requests/key:engine/50/1/second", null]]]',
        '["other", [["requests/key:engine/50/1/second", -50]]]',
        '["other", [["heavy/key:engine/6/1/minute", 50], ["rubbish", 50]]]',
        '["own", [["requests/key:engine/50/1/second", 50]]]',
    ],
)  # fmt: skip
async def test_a_message_that_is_no_count_of_another_process_counts_nothing(message: str) -> None:
    limiter = RateLimiter(RateLimits(requests_per_s=QUOTA, heavy_per_min=6), Clock())
    for key, amount in unpack_counts("own", message):
        limiter.count_elsewhere(key, amount)
    for limit, quota in ((LimitName.REQUESTS, QUOTA), (LimitName.HEAVY, 6)):
        results = [
            (await limiter.admit([(limit, "key:engine")])).retry_after_s for _ in range(quota + 1)
        ]
        assert [one is None for one in results] == [True] * quota + [False]


async def test_a_service_exchanges_counts_on_postgresql_only(
    database_url: str, backend: str, make_database: MakeDatabase
) -> None:
    quotas, clock = RateLimits(requests_per_s=QUOTA), Clock()
    failures: list[Exception] = []
    settings = settings_for(NOBODY, database_url)
    async with open_service(settings, Metrics(), failures.append) as state:
        own = state[COUNT_EXCHANGE]
        assert (own is not None) == (backend == "postgres")
        if own is None:
            return
        limiter = RateLimiter(quotas, clock)
        own.attach(limiter)
        async with processes(database_url, make_database, 1, quotas, clock) as (other,):
            assert await other.ask_often(30) == 30
            await other.exchange.announce()

            async def used(counted: RateLimiter, least: int) -> None:
                storage = counted._counters[LimitName.REQUESTS].storage
                async with asyncio.timeout(PATIENCE_S):
                    while await storage.get("requests/key:engine/50/1/second") < least:
                        await asyncio.sleep(0.02)

            await used(limiter, 30)
            for _ in range(20):
                assert (await limiter.admit(BOTH[:1])).retry_after_s is None
            assert (await limiter.admit(BOTH[:1])).retry_after_s is not None
            await used(other.limiter, 50)
            assert not await other.ask()
        async with own.database.read() as unit:
            statement = "SELECT count(*) FROM rate_limit_windows"
            assert (await unit.connection.execute(text(statement))).scalar() == 0
    assert failures == []
