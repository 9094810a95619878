"""Rate limits that several processes share through the database."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from app.container.startup import open_service
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.security.api.rate_limiting import SHARED_WINDOWS
from app.security.domain.rate_limits import LimitName, RateLimits
from app.security.services.rate_limiter import SHARED, RateLimiter, SharedWindowStorage
from app.security.storage.rate_limits import RateLimitRepository
from tests.support.service_in_process import settings_for

NOBODY = "http://127.0.0.1:9"
DAY_S = 86_400
KEY = "changes/key:engine"


@pytest.fixture
def shared(database: Database) -> SharedWindowStorage:
    return SharedWindowStorage(database, lambda: datetime.now(UTC))


async def move(database: Database, windows: int) -> None:
    """Moves the stored windows in time; a negative number makes them older."""
    async with database.write() as unit:
        statement = "UPDATE rate_limit_windows SET window_number = window_number + :windows"
        await unit.connection.execute(text(statement), {"windows": windows})


async def refused(limiter: RateLimiter, limit: LimitName, shared: Any) -> bool:
    return (await limiter.admit([(limit, "key:engine")], shared)).retry_after_s is not None


async def test_processes_share_one_quota(shared: SharedWindowStorage) -> None:
    quotas, limit = RateLimits(heavy_per_min=6), LimitName.HEAVY
    first, second = (RateLimiter(quotas, time.monotonic) for _ in range(2))
    admitted = [
        not await refused(limiter, limit, shared) for _ in range(6) for limiter in (first, second)
    ]
    assert 6 <= sum(admitted) <= 7, "a minute that ends meanwhile adds one"
    admission = await second.admit([(limit, "key:engine")], shared)
    assert admission.remaining == 0
    assert 0 < (admission.retry_after_s or 0) <= 120
    assert (await first.admit([(limit, "key:other")], shared)).retry_after_s is None


@pytest.mark.parametrize("limit", list(LimitName))
async def test_changes_signals_and_heavy_requests_are_shared(
    database: Database, shared: SharedWindowStorage, limit: LimitName
) -> None:
    await RateLimiter(RateLimits(), time.monotonic).admit([(limit, "key:engine")], shared)
    async with database.read() as unit:
        keys = "SELECT key FROM rate_limit_windows"
        stored = list((await unit.connection.execute(text(keys))).scalars())
    is_shared = limit in {LimitName.CHANGES, LimitName.SIGNALS, LimitName.HEAVY}
    assert len(stored) == is_shared
    assert all(key.startswith(f"{limit.value}/key:engine/") for key in stored)


async def test_other_limits_and_refusals_of_this_process_ask_no_database(
    shared: SharedWindowStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions: list[str] = []
    write = Database.write

    def counted(self: Database, *given: Any) -> Any:
        transactions.append("write")
        return write(self, *given)

    monkeypatch.setattr(Database, "write", counted)
    limiter = RateLimiter(RateLimits(heavy_per_min=2), lambda: 1_000.0)
    for limit in set(LimitName) - SHARED:
        assert not await refused(limiter, limit, shared)
    assert transactions == []
    results = [await refused(limiter, LimitName.HEAVY, shared) for _ in range(50)]
    assert results == [False, False] + [True] * 48
    assert transactions == ["write"] * 2


async def test_without_the_database_the_limits_hold_for_each_process(
    database_url: str, make_database: Any
) -> None:
    closed = make_database(database_url)
    shared = SharedWindowStorage(closed, lambda: datetime.now(UTC))
    limiter = RateLimiter(RateLimits(heavy_per_min=3), lambda: 1_000.0)
    results = [await refused(limiter, LimitName.HEAVY, shared) for _ in range(4)]
    assert results == [False, False, False, True]
    assert not await shared.check()


async def test_requests_at_once_get_exactly_the_quota(shared: SharedWindowStorage) -> None:
    results = await asyncio.gather(
        *(shared.acquire_sliding_window_entry(KEY, 7, DAY_S) for _ in range(20))
    )
    assert sum(results) == 7
    assert not await shared.acquire_sliding_window_entry("new", 7, DAY_S, 8)
    assert await shared.get("new") == 0


async def test_windows_slide_and_a_clock_that_was_set_gives_a_new_one(
    database: Database, shared: SharedWindowStorage
) -> None:
    for _ in range(4):
        assert await shared.acquire_sliding_window_entry(KEY, 4, DAY_S)
    assert not await shared.acquire_sliding_window_entry(KEY, 4, DAY_S)
    await move(database, -1)
    previous, left_s, current, after_s = await shared.get_sliding_window(KEY, DAY_S)
    assert (previous, current) == (4, 0)
    assert 0 < left_s <= DAY_S
    assert after_s == left_s + DAY_S
    used = int(4 * left_s / DAY_S)
    results = [await shared.acquire_sliding_window_entry(KEY, 4, DAY_S) for _ in range(5)]
    assert sum(results) == 4 - used, "the former window counts by the share that is left of it"
    await move(database, -2)
    assert (await shared.get_sliding_window(KEY, DAY_S))[:3:2] == (0, 0)
    for moved, admitted in ((1, False), (100, True)):
        await shared.reset()
        for _ in range(4):
            await shared.acquire_sliding_window_entry(KEY, 4, DAY_S)
        await move(database, moved)
        assert await shared.acquire_sliding_window_entry(KEY, 4, DAY_S) is admitted, moved


async def test_the_shared_storage_counts_like_those_of_the_library(
    database: Database, shared: SharedWindowStorage
) -> None:
    assert await shared.check()
    assert await shared.get(KEY) == 0
    assert await shared.get_expiry(KEY) == pytest.approx(time.time(), abs=60)
    assert (await shared.get_sliding_window(KEY, 60))[:3] == (0, 60.0, 0)
    assert [await shared.incr(KEY, DAY_S), await shared.incr(KEY, DAY_S, 2)] == [1, 3]
    assert await shared.get(KEY) == 3
    assert time.time() - 60 < await shared.get_expiry(KEY) <= time.time() + DAY_S + 60
    await shared.clear_sliding_window(KEY, DAY_S)
    assert await shared.get(KEY) == 0
    await shared.incr(KEY, DAY_S)
    await shared.incr("other", DAY_S)
    await shared.clear("other")
    assert await shared.reset() == 1
    async with database.read() as unit:
        assert await unit.get(RateLimitRepository).read(KEY) is None


async def test_several_processes_share_limits_on_postgresql_only(
    database_url: str, backend: str
) -> None:
    settings = settings_for(NOBODY, database_url, background=False)
    failures: list[Exception] = []
    async with open_service(settings, Metrics(), failures.append) as state:
        assert (state[SHARED_WINDOWS] is not None) == (backend == "postgres")
    assert failures == []


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_the_table_writes_no_log_of_the_database(database: Database) -> None:
    async with database.read() as unit:
        kind = "SELECT relpersistence FROM pg_class WHERE relname = 'rate_limit_windows'"
        assert (await unit.connection.execute(text(kind))).scalar() in {"u", b"u"}
