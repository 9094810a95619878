"""Heartbeats by the database's clock; nobody is called dead by one who has slept himself."""

import asyncio
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from app.container.feed import FeedTasks
from app.foundation.errors import UnavailableError
from app.foundation.replicas import Replicas
from app.foundation.sql.database import Database
from app.foundation.sql.replicas import Makeup, ReplicaRepository
from app.market.domain.models import ExchangeLink
from app.market.services.shared_market import FeedView
from app.settings import Role
from tests.conftest import MakeDatabase

DEAD_S = 15.0


@dataclass
class Runs:
    """What each executor has left, and what was taken over."""

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
class Peers:
    """Several replicas on one database, whose own clocks the test moves."""

    database: Database
    runs: Runs = field(default_factory=Runs)
    now: float = 1000.0

    def replica(self, name: str) -> Replicas:
        return Replicas(self.database, self.runs, name, lambda: self.now)

    async def awake(self, replica: Replicas) -> None:
        """It has beaten long enough to judge others."""
        for _ in range(6):
            await replica.round()
            self.now += 3.0
        self.runs.taken.clear()

    async def silent_for(self, name: str, seconds: float) -> None:
        """The database has not heard of it for so long."""
        async with self.database.write() as unit:
            await unit.connection.execute(
                text("UPDATE job_executors SET seen_ms = seen_ms - :ms WHERE executor_id = :name"),
                {"ms": int(seconds * 1000), "name": name},
            )

    async def known(self) -> frozenset[str]:
        async with self.database.read() as unit:
            return await unit.get(ReplicaRepository).known()


@pytest.fixture
def peers(database: Database) -> Peers:
    return Peers(database)


async def test_the_runs_of_a_silent_one_are_taken_over_and_it_is_forgotten(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    peers.runs.left = {"one": 1, "two": 3}
    assert await one.round() == ()
    await peers.silent_for("two", DEAD_S + 1)
    assert await one.round() == ("two",)
    assert peers.runs.taken == ["two"]
    assert await peers.known() == {"one"}
    assert await one.round() == (), "once"


async def test_one_that_left_nothing_is_only_forgotten(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    await peers.silent_for("two", DEAD_S + 1)
    assert await one.round() == ()
    assert await peers.known() == {"one"}


async def test_silence_shorter_than_the_limit_is_no_death(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    peers.runs.left = {"two": 1}
    await peers.silent_for("two", DEAD_S / 2)
    assert await one.round() == ()
    assert peers.runs.taken == []
    assert await peers.known() == {"one", "two"}


async def test_runs_of_an_executor_nobody_has_heard_of_are_taken_over(peers: Peers) -> None:
    one = peers.replica("one")
    await peers.awake(one)
    peers.runs.left = {"stranger": 2}
    assert await one.round() == ("stranger",)
    assert peers.runs.left == {}


async def test_who_cannot_be_cleared_up_is_kept_until_it_is(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    peers.runs.left, peers.runs.stubborn = {"two": 1}, {"two"}
    await peers.silent_for("two", DEAD_S + 1)
    assert await one.round() == ("two",)
    assert "two" in await peers.known()
    peers.runs.stubborn = set()
    assert await one.round() == ("two",)
    assert await peers.known() == {"one"}


async def test_a_newcomer_judges_nobody_before_it_has_beaten_for_long_enough(
    peers: Peers,
) -> None:
    two = peers.replica("two")
    await two.round()
    await peers.silent_for("two", DEAD_S + 1)
    peers.runs.left = {"two": 1}
    one, found = peers.replica("one"), []
    for _ in range(6):
        found.append(await one.round())
        peers.now += 3.0
    assert found == [(), (), (), (), (), ("two",)]


async def test_K16_who_was_stopped_judges_nobody_when_it_goes_on(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    peers.runs.left = {"two": 1}
    await peers.silent_for("two", DEAD_S + 1)
    peers.now += 60.0  # SIGSTOP, then SIGCONT
    assert await one.round() == ()
    assert peers.runs.taken == []


async def test_B01_who_lost_its_database_judges_nobody_when_that_is_back(
    peers: Peers, make_database: MakeDatabase
) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    peers.runs.left = {"two": 1}
    await peers.database.close()
    with pytest.raises(UnavailableError):
        await one.round()
    await peers.database.open()
    await peers.silent_for("two", DEAD_S + 1)
    peers.now += 3.0
    assert await one.round() == ()
    assert peers.runs.taken == []


async def test_somebody_heard_of_meanwhile_is_not_forgotten(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(ReplicaRepository).beat("two")
        await unit.get(ReplicaRepository).bury("two", 15_000)
        assert await unit.get(ReplicaRepository).known() == {"two"}


async def test_T04_the_clock_is_the_one_of_the_database(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(ReplicaRepository).beat("one")
    await asyncio.sleep(0.05)
    async with database.read() as unit:
        assert await unit.get(ReplicaRepository).silent(10) == ("one",)
        assert await unit.get(ReplicaRepository).silent(600_000) == ()


def _link() -> ExchangeLink:
    raise AssertionError("nobody asks for it")


def test_where_nobody_shares_the_database_nobody_can_differ() -> None:
    view = FeedView(_link)
    assert (view.drifted(), view.processes(), view.epoch()) == (None, (), None)
    assert view.is_owner()


def made(role: str = "all", version: str = "1.2.0+aaaa", settings: str = "same") -> Makeup:
    return Makeup(role, version, settings)


def may_lead(replica: Replicas, role: Role = Role.ALL) -> bool:
    """As the process asks before it takes the lease of the feed."""
    tasks = object.__new__(FeedTasks)
    tasks.role, tasks.view = role, FeedView(_link, replicas=replica)
    return tasks._may_own()


async def test_G09_who_runs_with_other_code_or_settings_is_named_and_the_older_does_not_lead(
    peers: Peers,
) -> None:
    one, two, three = (peers.replica(name) for name in ("one", "two", "three"))
    for replica in (one, two, three):
        replica.makeup = made()
        await replica.round()
    await one.round()
    assert one.drifted() == ()
    assert not one.is_outdated()
    assert may_lead(one)
    assert not may_lead(one, Role.API)
    two.makeup, three.makeup = made(version="1.10.0+bbbb"), made(settings="other")
    await two.round()
    await three.round()
    await one.round()
    assert [peer.executor_id for peer in one.drifted()] == ["three", "two"]
    assert one.is_outdated(), "1.10 is newer than 1.2"
    assert not may_lead(one)
    assert may_lead(two)
    view = FeedView(_link, replicas=one)
    assert view.drifted() == ("three (other settings)", "two (code 1.10.0+bbbb)")
    assert [(seen.name, seen.is_self, seen.configuration_matches) for seen in view.processes()] == [
        ("one", True, True),
        ("three", False, False),
        ("two", False, False),
    ]
    await two.round()
    assert not two.is_outdated()
    two.makeup = made(role="api", version="1.10.0+bbbb")
    await two.round()
    await one.round()
    assert not one.is_outdated(), "an api process could not lead instead"
    assert may_lead(one)
    two.makeup = made(version="1.10.0+bbbb")
    await two.round()
    await peers.silent_for("two", DEAD_S + 1)
    await one.round()
    assert [peer.executor_id for peer in one.drifted()] == ["three"], "the dead do not count"
    assert not one.is_outdated()


async def test_who_does_not_carry_out_runs_buries_nobody(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    one.judges = False
    await two.round()
    await peers.awake(one)
    peers.runs.left = {"two": 1}
    await peers.silent_for("two", DEAD_S + 1)
    assert await one.round() == ()
    assert "two" in await peers.known()


async def test_what_one_that_leaves_has_not_finished_is_taken_over_at_once(peers: Peers) -> None:
    one, two = peers.replica("one"), peers.replica("two")
    await two.round()
    await peers.awake(one)
    peers.runs.left = {"two": 1}
    assert await one.round() == ()
    await two.leave()
    assert await one.round() == ("two",)
    assert await peers.known() == {"one"}
