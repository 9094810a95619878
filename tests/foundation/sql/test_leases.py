"""Leases by the database's clock: one holder at a time, rising epochs, zombies write nothing."""

import asyncio

import pytest
from sqlalchemy import text

from app.foundation.errors import UnavailableError
from app.foundation.sql.database import Database
from app.foundation.sql.leases import LeaseRepository
from app.market.services.feed_leader import LeaderLease, require_epoch
from app.market.storage.shared_market import FEED, SharedMarketRepository
from tests.conftest import MakeDatabase

TTL_MS = 15_000


async def acquired(database: Database, holder: str) -> int | None:
    async with database.write() as unit:
        return await unit.get(LeaseRepository).acquire(FEED, holder, TTL_MS)


async def run_out(database: Database) -> None:
    async with database.write() as unit:
        await unit.connection.execute(text("UPDATE leases SET expires_ms = 1"))


async def published(database: Database, epoch: int, payload: bytes) -> int:
    async with database.write() as unit:
        return await unit.get(SharedMarketRepository).publish(
            epoch, await unit.get(SharedMarketRepository).clock_ms(), payload
        )


async def test_one_holds_it_and_the_others_get_it_when_it_has_run_out(database: Database) -> None:
    assert await acquired(database, "one") == 1
    assert await acquired(database, "two") is None
    await run_out(database)
    assert await acquired(database, "two") == 2
    async with database.write() as unit:
        assert not await unit.get(LeaseRepository).renew(FEED, 1, TTL_MS)
        assert await unit.get(LeaseRepository).renew(FEED, 2, TTL_MS)
        lease = await unit.get(LeaseRepository).current(FEED)
    assert lease is not None
    assert (lease.holder, lease.epoch) == ("two", 2)
    assert 0 < lease.left_ms <= TTL_MS


async def test_C09_each_acquisition_raises_the_epoch(
    database: Database,
) -> None:
    epochs = [await acquired(database, "one")]
    epochs.append(await acquired(database, "one"))  # the same one in another life need not wait
    async with database.write() as unit:
        await unit.get(LeaseRepository).release(FEED, 2)
    epochs.append(await acquired(database, "two"))
    async with database.write() as unit:
        await unit.get(LeaseRepository).release(
            FEED, 2
        )  # of an earlier epoch: it is not theirs to give
    assert await acquired(database, "one") is None
    await run_out(database)
    epochs.append(await acquired(database, "one"))
    assert epochs == [1, 2, 3, 4]


async def test_B12_a_database_that_lost_its_last_commits_gives_no_epoch_away_again(
    database: Database,
) -> None:
    one, two = (LeaderLease(database, name, lambda: 0.0) for name in ("one", "two"))
    assert await one.acquire() == 1
    await run_out(database)
    assert await two.acquire() == 2
    assert await one.acquire() is None  # it has seen that there is another
    async with database.write() as unit:
        lost = "UPDATE leases SET holder = 'one', epoch = 1, expires_ms = 1"
        await unit.connection.execute(text(lost))
    assert await one.acquire() == 3, "number two was somebody else's"
    async with database.write() as unit:
        with pytest.raises(UnavailableError):
            await require_epoch(unit, 2)
    assert await two.acquire() is None


async def test_an_expired_lease_is_not_renewed_even_without_a_new_holder(
    database: Database,
) -> None:
    assert await acquired(database, "one") == 1
    await run_out(database)
    async with database.write() as unit:
        assert not await unit.get(LeaseRepository).renew(FEED, 1, TTL_MS)


async def test_K16_a_zombie_writes_no_row_and_changes_nothing(database: Database) -> None:
    assert await acquired(database, "one") == 1
    assert await published(database, 1, b"of one") == 1
    await run_out(database)
    assert await acquired(database, "two") == 2
    assert await published(database, 1, b"of a zombie") == 0
    assert await published(database, 2, b"of two") == 1
    assert await published(database, 1, b"of a zombie") == 0
    async with database.write() as unit:
        assert not await unit.get(LeaseRepository).renew(FEED, 1, TTL_MS), (
            "nor does it get its lease back"
        )
    async with database.read() as unit:
        found = await unit.get(SharedMarketRepository).newest()
    assert found is not None
    assert (found[0].epoch, found[0].version, found[1]) == (2, 2, b"of two")


async def test_C09_twenty_at_once_have_one_winner(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url, pool_size=20, pool_wait_s=60.0, lock_timeout_s=60.0)
    await database.open()
    try:
        assert await acquired(database, "dead") == 1
        await run_out(database)
        found = await asyncio.gather(*(acquired(database, f"one-{n}") for n in range(20)))
        assert sorted(epoch for epoch in found if epoch is not None) == [2]
    finally:
        await database.close()


async def test_T04_ages_of_rows_follow_the_database_clock(database: Database) -> None:
    assert await acquired(database, "one") == 1
    async with database.write() as unit:
        stamped = await unit.get(SharedMarketRepository).clock_ms() - 7_000
        await unit.get(SharedMarketRepository).publish(1, stamped, b"old")
        found = await unit.get(SharedMarketRepository).stamp()
    assert found is not None
    assert 7.0 <= found.elapsed_s < 60.0


async def test_a_sync_request_is_open_until_it_is_answered(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(SharedMarketRepository).request_sync("a")
        await unit.get(SharedMarketRepository).request_sync("b")
        assert sorted(await unit.get(SharedMarketRepository).open_sync_requests()) == ["a", "b"]
        await unit.get(SharedMarketRepository).answer_sync_requests(
            ("a",), "exchange_unavailable", "x" * 600
        )
        assert await unit.get(SharedMarketRepository).open_sync_requests() == ("b",)
        done, waiting = (
            await unit.get(SharedMarketRepository).sync_request("a"),
            await unit.get(SharedMarketRepository).sync_request("b"),
        )
        assert await unit.get(SharedMarketRepository).sync_request("c") is None
    assert done is not None
    assert (done.is_done, done.error, len(done.detail or "")) == (True, "exchange_unavailable", 500)
    assert waiting is not None
    assert not waiting.is_done
