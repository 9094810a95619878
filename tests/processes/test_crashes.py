"""kill -9 in the middle of a change, on both databases: all of it or nothing, and once."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.alerts.domain.models import AlertRule
from app.alerts.storage.alerts import AlertRepository
from app.foundation.errors import Code
from app.foundation.idempotency import Command, CommandResult
from app.foundation.sql.database import Database
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.models import FULL
from app.portfolio.domain.rebalance_run import RebalanceRun, RunState
from tests.alerts.services.test_notifications import Office, Receiver
from tests.conftest import MakeDatabase
from tests.processes.worker_processes import proven, runs_of, worker
from tests.stateful.differential import Key, rendered
from tests.support.trading_desk import SYMBOLS, Desk

pytestmark = pytest.mark.xdist_group("processes")
REBALANCE = {"do": "rebalance", "key": "k", "request": "the-run"}
SWAP = {"do": "replace", "symbol": SYMBOLS[1], "by": SYMBOLS[9], "key": "k", "request": "swap"}
DAY = 60 * 25  # minutes: a rebalance is due by time, and claims have run out


@pytest.fixture
async def url(database_url: str, make_database: MakeDatabase) -> str:
    """A database with a portfolio of four that nobody has open."""
    database = make_database(database_url)
    await database.open()
    desk = await Desk(database).filled(4)
    desk.score({SYMBOLS[0]: 0.3})
    await database.close()
    return database_url


async def committed(url: str, make_database: MakeDatabase) -> tuple[int, int, bool]:
    """Version, number of events, and whether the swap is there; everything proven."""
    database = make_database(url)
    await database.open()
    try:
        state, events = await proven(database)
    finally:
        await database.close()
    assert sum(member.weight_u for member in state.members) + state.cash_u == FULL
    return state.version, len(events), state.member(SYMBOLS[9]) is not None


async def stored_runs(url: str, make_database: MakeDatabase) -> tuple[RebalanceRun, ...]:
    database = make_database(url)
    await database.open()
    try:
        return await runs_of(database)
    finally:
        await database.close()


@pytest.mark.parametrize("failpoint", ["before:FROM portfolio ", "commit:2", "commit:3"])
async def test_K01_killed_before_the_commit_nothing_happened_and_the_retry_runs_once(
    url: str, make_database: MakeDatabase, failpoint: str
) -> None:
    before = await committed(url, make_database)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.3, SYMBOLS[2]: 0.99}}
    async with worker(url, minutes=DAY, failpoint=failpoint) as one:
        await one.do(moved)
        await one.died(REBALANCE)
    assert await committed(url, make_database) == before
    async with worker(url, minutes=DAY + 1) as other:
        await other.do(moved)
        (done,) = await other.do(REBALANCE)
        (again,) = await other.do(REBALANCE)
    assert (done["is_replay"], again["is_replay"]) == (False, True)
    assert done["body"] == again["body"]
    assert (await committed(url, make_database))[0] == before[0] + 1


async def test_K02_killed_after_the_commit_the_run_is_there_and_the_retry_hears_of_it(
    url: str, make_database: MakeDatabase
) -> None:
    before = await committed(url, make_database)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.3, SYMBOLS[2]: 0.99}}
    async with worker(url, minutes=DAY, failpoint="published") as one:
        await one.do(moved)
        await one.died(REBALANCE)
    after = await committed(url, make_database)
    assert after[0] == before[0] + 1
    async with worker(url, minutes=DAY) as other:
        await other.do(moved)
        (replayed,) = await other.do(REBALANCE)
        (fresh,) = await other.do({"do": "rebalance", "key": "another"})
    assert replayed["is_replay"]
    assert not fresh["is_replay"]
    assert await committed(url, make_database) == after


async def test_K02_killed_after_the_run_was_planned_it_gives_way_after_its_lease(
    url: str, make_database: MakeDatabase
) -> None:
    before = await committed(url, make_database)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.3, SYMBOLS[2]: 0.99}}
    async with worker(url, minutes=DAY, failpoint="before:FROM portfolio ") as one:
        await one.do(moved)
        await one.died(REBALANCE)
    (dead,) = await stored_runs(url, make_database)
    assert dead.state is RunState.PLANNED
    async with worker(url, minutes=DAY) as soon:
        await soon.do(moved)
        said = await soon.do({"do": "rebalance", "key": "another"})
    assert said == [{"code": Code.REBALANCE_IN_PROGRESS, "run_id": dead.run_id}]
    assert await committed(url, make_database) == before
    async with worker(url, minutes=DAY + 1) as later:
        await later.do(moved)
        (done,) = await later.do({"do": "rebalance", "key": "another"})
    assert not done["is_replay"]
    gone, run = await stored_runs(url, make_database)
    assert (gone.run_id, gone.state) == (dead.run_id, RunState.ABORTED_EXPIRED)
    assert run.state is RunState.DONE
    assert (await committed(url, make_database))[0] == before[0] + 1


@pytest.mark.parametrize(
    "failpoint", ["before:FROM portfolio ", "after:INSERT INTO portfolio_history", "published"]
)
async def test_K02_a_tick_whose_process_was_killed_is_gone_on_with_at_once(
    url: str, make_database: MakeDatabase, failpoint: str
) -> None:
    before = await committed(url, make_database)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.3, SYMBOLS[2]: 0.99}}
    tick = {"do": "check", "tick": "2026-03-02T13:00:00+00:00"}
    async with worker(url, minutes=DAY, failpoint=failpoint) as one:
        await one.do(moved)
        await one.died(tick)
    (begun,) = await stored_runs(url, make_database)
    async with worker(url, minutes=DAY) as other:
        await other.do(moved)
        assert await other.do(tick) == [None]
        assert await other.do(tick) == [None]
    (run,) = await stored_runs(url, make_database)
    assert (run.run_id, run.state) == (begun.run_id, RunState.DONE)
    assert (await committed(url, make_database))[0] == before[0] + 1


@pytest.mark.parametrize(
    "failpoint",
    [
        "after:INSERT INTO portfolio_history",
        "after:UPDATE portfolio SET",
        "after:UPDATE portfolio_members SET status",
        "after:INSERT INTO portfolio_members",
        "published",
    ],
)
async def test_K09_killed_inside_the_swap_the_old_version_or_the_new_one(
    url: str, make_database: MakeDatabase, failpoint: str
) -> None:
    version, events, _ = await committed(url, make_database)
    async with worker(url, failpoint=failpoint) as one:
        await one.died(SWAP)
    state = await committed(url, make_database)
    if failpoint == "published":
        assert state == (version + 1, events + 2, True)
    else:
        assert state == (version, events, False)


@pytest.mark.parametrize("act", [REBALANCE, SWAP], ids=["rebalance", "replace"])
async def test_K08_killed_before_the_swap_of_the_portfolio_it_is_swapped_once(
    url: str, make_database: MakeDatabase, act: dict[str, Any]
) -> None:
    before = await committed(url, make_database)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.3, SYMBOLS[2]: 0.99}}
    asked = {**act, "if_match": before[0]}
    async with worker(url, minutes=DAY, failpoint="before:UPDATE portfolio SET") as one:
        await one.do(moved)
        await one.died(asked)
    assert await committed(url, make_database) == before, "the old version, whole"
    async with worker(url, minutes=DAY + 1) as other:
        await other.do(moved)
        (done,) = await other.do(asked)
        (again,) = await other.do(asked)
        late = [(await other.do({**asked, "key": name}))[0] for name in ("another", "a third")]
    assert (done["is_replay"], again["is_replay"]) == (False, True)
    assert done["body"] == again["body"]
    # Others that had decided on the same version: it is not theirs to swap any more.
    assert [one["code"] for one in late] == [Code.PRECONDITION_FAILED] * 2
    assert (await committed(url, make_database))[0] == before[0] + 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_K18_what_was_answered_is_on_the_disk_when_the_power_is_cut(
    url: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    """Each commit is synchronised; of its files only the database and its log outlive the cut."""
    before = await committed(url, make_database)
    file = Path(url.partition(":///")[2])
    async with worker(url) as one:
        assert await one.do({"do": "durability"}) == [["wal", 2]], "FULL"
        (done,) = await one.do(SWAP)
        assert not done["is_replay"]
        one.process.kill()  # nothing is flushed or closed after the answer
        await asyncio.to_thread(one.process.join)
        left = tmp_path / "left" / file.name
        left.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{file}{suffix}", f"{left}{suffix}")
    there = f"sqlite+aiosqlite:///{left}"
    assert await committed(there, make_database) == (before[0] + 1, before[1] + 2, True)
    async with worker(there) as other:
        (again,) = await other.do(SWAP)
    assert again == {"body": done["body"], "is_replay": True}


@pytest.mark.parametrize("failpoint", ["before:INSERT INTO alerts", "commit:1", "published"])
async def test_U10_an_alert_of_a_process_that_died_is_neither_lost_nor_doubled(
    url: str, make_database: MakeDatabase, failpoint: str
) -> None:
    receiver = Receiver()
    low = [AlertRule.LOW_SCORE.value, SYMBOLS[1]]
    fallen = {"do": "score", "changed": {SYMBOLS[1]: 0.3}}
    async with receiver.listening() as place:
        async with office_at(url, make_database) as office:
            await office.channel("desk", place)
            await office.work()
        begun = len(receiver.got)  # from now on everything is told
        async with worker(url, failpoint=failpoint) as one:
            await one.do(fallen)
            await one.died({"do": "look"})
        found: list[str] = []
        for _ in range(2):  # the process after it, and one more
            async with worker(url, minutes=1) as other:
                await other.do(fallen)
                for _ in range(2):
                    (active,) = await other.do({"do": "look"})
                    found += [name for *what, name in active if what == low]
        assert len(receiver.got) == begun, "nobody has told of it"
        async with office_at(url, make_database) as office:
            for _ in range(2):
                await office.work(office.another(), office.another())
            async with office.database.read() as unit:
                stored = [
                    one
                    for one in await unit.get(AlertRepository).active()
                    if one.rule is AlertRule.LOW_SCORE
                ]
    assert len(found) == 4
    assert len(set(found)) == 1, "one alert, seen by every look"
    told = [json.loads(body)["data"] for _, body in receiver.got[begun:]]
    raised = [one for one in told if one["type"] == "alert_raised"]
    assert [one["alert_id"] for one in raised if [one["rule"], one["subject"]] == low] == found[:1]
    assert [one.id for one in stored] == found[:1]


@asynccontextmanager
async def office_at(url: str, make_database: MakeDatabase) -> AsyncIterator[Office]:
    """Notifications over a database that nobody else has open."""
    database = make_database(url)
    await database.open()
    try:
        yield Office(database)
    finally:
        await database.close()


@pytest.mark.parametrize("failpoint", ["before:UPDATE idempotency_keys", "published"])
async def test_K12_effect_and_answer_are_kept_together_or_not_at_all(
    url: str, make_database: MakeDatabase, failpoint: str
) -> None:
    async with worker(url, failpoint=failpoint) as one:
        await one.died(SWAP)
    version, _, is_swapped = await committed(url, make_database)
    assert is_swapped == (failpoint == "published")
    async with worker(url, minutes=1) as other:
        (done,) = await other.do(SWAP)
        (again,) = await other.do(SWAP)
    assert done["is_replay"] == is_swapped
    assert again == {"body": done["body"], "is_replay": True}
    assert (await committed(url, make_database))[0] == version + (not is_swapped)


async def test_C04_a_key_whose_holder_was_killed_is_carried_on_after_its_lock(url: str) -> None:
    """A rebalance commits the claim of its key first, then that of its run."""
    async with worker(url, failpoint="commit:2") as one:
        await one.died(REBALANCE)
    async with worker(url) as soon:
        assert await soon.do(REBALANCE) == [{"code": Code.IDEMPOTENCY_IN_PROGRESS}]
    async with worker(url, minutes=1) as later:
        (done,) = await later.do(REBALANCE)
    assert not done["is_replay"]


async def test_C04_where_claim_and_change_are_one_a_killed_holder_leaves_the_key_free(
    url: str, make_database: MakeDatabase
) -> None:
    async with worker(url, failpoint="commit:1") as one:
        await one.died(SWAP)
    assert not (await committed(url, make_database))[2]
    async with worker(url) as soon:
        (done,) = await soon.do(SWAP)
    assert not done["is_replay"]
    assert (await committed(url, make_database))[2]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_C04_others_go_on_while_one_is_killed_again_and_again(
    url: str, make_database: MakeDatabase
) -> None:
    """Its locks die with it: nobody waits for a dead process."""
    async with worker(url) as other:
        for turn in range(2):
            async with worker(url, failpoint="after:UPDATE portfolio SET") as one:
                act = {**SWAP, "key": f"k{turn}"}
                _, (said,) = await asyncio.gather(
                    one.died(act),
                    other.do({"do": "add", "symbol": SYMBOLS[20 + turn], "request": "add"}),
                )
            assert "body" in said, said
    assert (await committed(url, make_database))[0] == 3


async def test_B16_cancelled_at_any_moment_a_change_is_whole_or_not_there(
    database: Database,
) -> None:
    """As when a client goes away; the connection comes back in any case."""
    desk = await Desk(database).filled(4)
    dice, done = Random(3), 0
    for turn in range(25):
        command = Command("tester", f"request-{turn}", idempotency_key=Key(f"k{turn}", "p"))
        name, members = SYMBOLS[9], await desk.members()
        change = desk.portfolio.remove if name in members else desk.portfolio.add
        task = asyncio.ensure_future(change(name, "x", command, rendered))
        await asyncio.sleep(dice.random() * 0.03)
        task.cancel()
        (ending,) = await asyncio.gather(task, return_exceptions=True)
        done += (name in members) != (name in await desk.members())
        assert isinstance(ending, asyncio.CancelledError | CommandResult), ending
        async with asyncio.timeout(60):
            while database.checked_out:
                await asyncio.sleep(0.01)
    state, events = await proven(database)
    assert state.version == 1 + done
    changes = [event for event in events if event.type in {EventType.ADD, EventType.REMOVE}]
    assert len(changes) == 4 + done
