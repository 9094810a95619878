"""Leader election of the feed: one leader, takeover after its death, no work after its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.foundation.sql.leases import LeaseRepository
from app.market.services.feed_leader import LeaderLease, LeaseTimes
from app.market.storage.shared_market import FEED, SharedMarketRepository
from app.workers.feed import FeedLeaderTask, Sharing

QUICK = LeaseTimes(ttl_s=1.0, renew_s=0.1, demote_s=0.6)


@dataclass
class Process:
    """One of several: notes what it begins and ends, and its clock can stand still."""

    database: Database
    name: str
    noted: list[str]
    fails: bool = False
    stopped: float | None = None
    times: LeaseTimes = QUICK
    lease: LeaderLease = field(init=False)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.lease = LeaderLease(self.database, self.name, loop.time, self.times)
        self.duty = FeedLeaderTask(
            self.lease,
            loop.time,
            lambda: self.noted.append(f"{self.name} begins"),
            self.end,
            Sharing(self, self, self),
            check_interval_s=0.05,
            publish_s=0.05,
        )

    async def end(self) -> None:
        self.noted.append(f"{self.name} ends")

    async def publish(self) -> bool:
        epoch = self.lease.epoch
        if epoch is None:  # lost by being slow, on a machine with other work
            return False
        async with self.database.write() as unit:
            stamped_ms = await unit.get(SharedMarketRepository).clock_ms()
            written = await unit.get(SharedMarketRepository).publish(
                epoch, stamped_ms, self.name.encode()
            )
        if not written:
            self.lease.give_up()
        return bool(written)

    async def refresh(self) -> bool:
        return False

    async def answer(self) -> None:
        if self.fails:
            self.noted.append("failed")
            raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.ensure_future(self.duty.run(lambda: None))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(noted: list[str], line: str, times: int = 1) -> None:
    async with asyncio.timeout(60.0):
        while noted.count(line) < times:
            await asyncio.sleep(0.02)


async def epoch_of(database: Database) -> int:
    async with database.read() as unit:
        present = await unit.get(LeaseRepository).current(FEED)
    assert present is not None
    return present.epoch


async def test_a_graceful_stop_hands_the_feed_over_at_once(database: Database) -> None:
    noted: list[str] = []
    slow = LeaseTimes(ttl_s=3600.0)  # nobody could wait for this one to run out
    one, two = (Process(database, name, noted, times=slow) for name in ("one", "two"))
    async with one.running() as first:
        await until(noted, "one begins")
        async with two.running():
            await asyncio.sleep(0.3)
            assert noted == ["one begins"]
            first.cancel()
            await until(noted, "two begins")
    assert noted == ["one begins", "one ends", "two begins", "two ends"]
    assert await epoch_of(database) == 2


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_K17_when_the_owner_dies_another_owns_it_with_a_higher_epoch(
    database: Database,
) -> None:
    noted: list[str] = []
    dead, heir = (Process(database, name, noted) for name in ("dead", "heir"))
    assert await dead.lease.acquire() == 1  # and never a word again
    assert await zombie(dead), "nobody else has it yet"
    async with heir.running():
        await until(noted, "heir begins")
        assert await epoch_of(database) >= 2
        assert not await zombie(dead)
        async with asyncio.timeout(60.0):
            while not await written_by(database, b"heir"):
                await asyncio.sleep(0.02)


async def written_by(database: Database, name: bytes) -> bool:
    async with database.read() as unit:
        found = await unit.get(SharedMarketRepository).newest()
    return found is not None and found[1] == name


async def zombie(dead: Process) -> bool:
    """It writes as if no time had passed."""
    async with dead.database.write() as unit:
        stamped_ms = await unit.get(SharedMarketRepository).clock_ms()
        return bool(await unit.get(SharedMarketRepository).publish(1, stamped_ms, b"zombie"))


async def test_an_owner_that_cannot_renew_ends_its_tasks_and_begins_anew(
    database: Database,
) -> None:
    noted: list[str] = []
    one = Process(database, "one", noted)
    async with one.running():
        await until(noted, "one begins")
        one.lease.times = LeaseTimes(ttl_s=1.0, renew_s=60.0, demote_s=0.2)
        await until(noted, "one ends")
        one.lease.times = QUICK
        async with asyncio.timeout(60.0):
            while noted.count("one begins") < 2:
                await asyncio.sleep(0.02)
    assert await epoch_of(database) >= 2


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_owner_that_is_cut_off_while_it_ends_its_tasks_ends_them_all_the_same(
    database: Database,
) -> None:
    noted: list[str] = []
    one = Process(database, "one", noted)
    ended = 0

    async def end() -> None:
        nonlocal ended
        ended += 1
        noted.append(f"end {ended}")
        if ended == 1:
            await asyncio.Event().wait()  # one of its tasks does not let go

    one.duty.end = end
    async with one.running() as running:
        await until(noted, "one begins")
        one.lease.give_up()
        await until(noted, "end 1")
        running.cancel()
    assert noted[-1] == "end 2"


async def test_B12_without_its_database_the_owner_stops_and_begins_anew_when_that_is_back(
    database: Database,
) -> None:
    noted: list[str] = []
    one = Process(database, "one", noted)
    async with one.running():
        await until(noted, "one begins")
        await database.close()
        await until(noted, "one ends")
        await database.open()
        async with asyncio.timeout(60.0):
            while noted.count("one begins") < 2:
                await asyncio.sleep(0.02)
        assert await epoch_of(database) >= 2


async def test_a_leader_that_fails_at_a_request_stays_leader(database: Database) -> None:
    noted: list[str] = []
    # It must not lose it by being slow, on a machine with other work.
    patient = LeaseTimes(ttl_s=3600.0, renew_s=0.1, demote_s=1800.0)
    one = Process(database, "one", noted, times=patient, fails=True)
    async with one.running():
        await until(noted, "failed", times=2)
        assert [line for line in noted if line != "failed"] == ["one begins"]
        assert one.lease.epoch == 1


async def test_a_process_that_may_not_lead_never_acquires(database: Database) -> None:
    noted: list[str] = []
    api, worker = Process(database, "api", noted), Process(database, "worker", noted)
    api.duty.may_own = lambda: False
    async with api.running():
        await asyncio.sleep(0.2)
        assert noted == []
        async with worker.running():
            await until(noted, "worker begins")
            async with asyncio.timeout(60.0):  # but it knows whose it is, for whoever asks it
                while (seen := api.lease.seen) is None or seen.holder != "worker":
                    await asyncio.sleep(0.02)
    assert noted == ["worker begins", "worker ends"]
