"""Heartbeats by the clock of the database, and takeover of the runs of dead processes."""

import asyncio
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from app.container.feed import FeedTasks
from app.foundation.errors import UnavailableError
from app.foundation.processes import ProcessRegistry
from app.foundation.sql.database import Database
from app.foundation.sql.processes import ProcessProfile, ProcessRepository
from app.market.domain.models import ExchangeLink
from app.market.services.shared_market import FeedOwnership
from app.settings import ProcessRole
from tests.conftest import MakeDatabase

DEAD_AFTER_S = 15.0


@dataclass
class Runs:
    """Unfinished runs by executor, and the executors taken over."""

    left: dict[str, int] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    stubborn: set[str] = field(default_factory=set)

    async def take_over(self, executor_id: str) -> bool:
        self.taken.append(executor_id)
        if executor_id in self.stubborn:
            return False
        self.left.pop(executor_id, None)
        return True

    async def executors(self) -> frozenset[str]:
        return frozenset(self.left)


@dataclass
class Processes:
    """Several processes on one database, with clocks that the test moves."""

    database: Database
    runs: Runs = field(default_factory=Runs)
    now: float = 1000.0

    def process(self, name: str) -> ProcessRegistry:
        return ProcessRegistry(self.database, self.runs, name, lambda: self.now)

    async def awake(self, process: ProcessRegistry) -> None:
        """Sends heartbeats for long enough to take over from others."""
        for _ in range(6):
            await process.send_heartbeat()
            self.now += 3.0
        self.runs.taken.clear()

    async def silent_for(self, name: str, seconds: float) -> None:
        """Ages the heartbeat of the process in the database."""
        async with self.database.write() as unit:
            await unit.connection.execute(
                text("UPDATE job_executors SET seen_ms = seen_ms - :ms WHERE executor_id = :name"),
                {"ms": int(seconds * 1000), "name": name},
            )

    async def known(self) -> frozenset[str]:
        async with self.database.read() as unit:
            return await unit.get(ProcessRepository).executor_ids()


@pytest.fixture
def processes(database: Database) -> Processes:
    return Processes(database)


async def test_runs_of_a_silent_process_are_taken_over_and_its_row_is_deleted(
    processes: Processes,
) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left = {"one": 1, "two": 3}
    assert await one.send_heartbeat() == ()
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    assert await one.send_heartbeat() == ("two",)
    assert processes.runs.taken == ["two"]
    assert await processes.known() == {"one"}
    assert await one.send_heartbeat() == (), "once"


async def test_a_silent_process_without_runs_is_only_deleted(processes: Processes) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    assert await one.send_heartbeat() == ()
    assert await processes.known() == {"one"}


async def test_silence_below_the_limit_takes_nothing_over(processes: Processes) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left = {"two": 1}
    await processes.silent_for("two", DEAD_AFTER_S / 2)
    assert await one.send_heartbeat() == ()
    assert processes.runs.taken == []
    assert await processes.known() == {"one", "two"}


async def test_runs_of_an_unknown_executor_are_taken_over(processes: Processes) -> None:
    one = processes.process("one")
    await processes.awake(one)
    processes.runs.left = {"stranger": 2}
    assert await one.send_heartbeat() == ("stranger",)
    assert processes.runs.left == {}


async def test_a_process_is_known_until_its_takeover_succeeds(processes: Processes) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left, processes.runs.stubborn = {"two": 1}, {"two"}
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    assert await one.send_heartbeat() == ("two",)
    assert "two" in await processes.known()
    processes.runs.stubborn = set()
    assert await one.send_heartbeat() == ("two",)
    assert await processes.known() == {"one"}


async def test_a_new_process_takes_nothing_over_before_regular_heartbeats(
    processes: Processes,
) -> None:
    two = processes.process("two")
    await two.send_heartbeat()
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    processes.runs.left = {"two": 1}
    one, found = processes.process("one"), []
    for _ in range(6):
        found.append(await one.send_heartbeat())
        processes.now += 3.0
    assert found == [(), (), (), (), (), ("two",)]


async def test_K16_a_resumed_process_takes_nothing_over_at_once(processes: Processes) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left = {"two": 1}
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    processes.now += 60.0  # SIGSTOP, then SIGCONT
    assert await one.send_heartbeat() == ()
    assert processes.runs.taken == []


async def test_B01_a_process_takes_nothing_over_right_after_an_outage(
    processes: Processes, make_database: MakeDatabase
) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left = {"two": 1}
    await processes.database.close()
    with pytest.raises(UnavailableError):
        await one.send_heartbeat()
    await processes.database.open()
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    processes.now += 3.0
    assert await one.send_heartbeat() == ()
    assert processes.runs.taken == []


async def test_a_process_with_a_new_heartbeat_is_not_deleted(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(ProcessRepository).record_heartbeat("two")
        await unit.get(ProcessRepository).delete_silent("two", 15_000)
        assert await unit.get(ProcessRepository).executor_ids() == {"two"}


async def test_T04_the_clock_is_the_one_of_the_database(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(ProcessRepository).record_heartbeat("one")
    await asyncio.sleep(0.05)
    async with database.read() as unit:
        assert await unit.get(ProcessRepository).silent_executors(10) == ("one",)
        assert await unit.get(ProcessRepository).silent_executors(600_000) == ()


def _link() -> ExchangeLink:
    raise AssertionError("nobody asks for it")


def test_an_unshared_database_has_no_mismatched_processes() -> None:
    view = FeedOwnership(_link)
    assert (view.drifted(), view.processes(), view.epoch()) == (None, (), None)
    assert view.is_owner()


def made(role: str = "all", version: str = "1.2.0+aaaa", settings: str = "same") -> ProcessProfile:
    return ProcessProfile(role, version, settings)


def may_lead(process: ProcessRegistry, role: ProcessRole = ProcessRole.ALL) -> bool:
    """As the process asks before it takes the lease of the feed."""
    tasks = object.__new__(FeedTasks)
    tasks.role, tasks.view = role, FeedOwnership(_link, registry=process)
    return tasks._may_own()


async def test_G09_other_code_or_settings_are_reported_and_the_older_version_does_not_lead(
    processes: Processes,
) -> None:
    one, two, three = (processes.process(name) for name in ("one", "two", "three"))
    for process in (one, two, three):
        process.profile = made()
        await process.send_heartbeat()
    await one.send_heartbeat()
    assert one.mismatched_processes() == ()
    assert not one.is_outdated()
    assert may_lead(one)
    assert not may_lead(one, ProcessRole.API)
    two.profile, three.profile = made(version="1.10.0+bbbb"), made(settings="other")
    await two.send_heartbeat()
    await three.send_heartbeat()
    await one.send_heartbeat()
    assert [process.executor_id for process in one.mismatched_processes()] == ["three", "two"]
    assert one.is_outdated(), "1.10 is newer than 1.2"
    assert not may_lead(one)
    assert may_lead(two)
    view = FeedOwnership(_link, registry=one)
    assert view.drifted() == ("three (other settings)", "two (code 1.10.0+bbbb)")
    assert [(seen.name, seen.is_self, seen.configuration_matches) for seen in view.processes()] == [
        ("one", True, True),
        ("three", False, False),
        ("two", False, False),
    ]
    await two.send_heartbeat()
    assert not two.is_outdated()
    two.profile = made(role="api", version="1.10.0+bbbb")
    await two.send_heartbeat()
    await one.send_heartbeat()
    assert not one.is_outdated(), "an api process could not lead instead"
    assert may_lead(one)
    two.profile = made(version="1.10.0+bbbb")
    await two.send_heartbeat()
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    await one.send_heartbeat()
    assert [process.executor_id for process in one.mismatched_processes()] == ["three"], (
        "the dead do not count"
    )
    assert not one.is_outdated()


async def test_a_process_without_jobs_takes_nothing_over(processes: Processes) -> None:
    one, two = processes.process("one"), processes.process("two")
    one.takes_over = False
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left = {"two": 1}
    await processes.silent_for("two", DEAD_AFTER_S + 1)
    assert await one.send_heartbeat() == ()
    assert "two" in await processes.known()


async def test_unfinished_runs_of_a_process_that_leaves_are_taken_over_at_once(
    processes: Processes,
) -> None:
    one, two = processes.process("one"), processes.process("two")
    await two.send_heartbeat()
    await processes.awake(one)
    processes.runs.left = {"two": 1}
    assert await one.send_heartbeat() == ()
    await two.leave()
    assert await one.send_heartbeat() == ("two",)
    assert await processes.known() == {"one"}
