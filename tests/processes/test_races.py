"""Several processes on one PostgreSQL: races have one winner, and nothing is ever torn."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text

from app.foundation.errors import Code
from app.foundation.sql.database import Database
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.rebalance_run import RunState
from tests.processes.worker_processes import crew, proven, runs_of, together, worker
from tests.support.trading_desk import SYMBOLS, Desk

pytestmark = [
    pytest.mark.parametrize("backend", ["postgres"], indirect=True),
    pytest.mark.xdist_group("processes"),
]


DAY = 25 * 60  # minutes: a rebalance is due by time


async def test_C01_two_replicas_start_a_rebalance_one_runs_and_the_other_hears_which(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(10)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.61}}
    async with (
        worker(database_url, minutes=DAY, failpoint="pause:2") as one,
        worker(database_url, minutes=DAY) as other,
    ):
        await asyncio.gather(one.do(moved), other.do(moved))
        one.tell({"do": "rebalance"})
        await one.paused()
        (run,) = await runs_of(database)
        assert run.state is RunState.PLANNED
        refused = {"code": Code.REBALANCE_IN_PROGRESS, "run_id": run.run_id}
        assert await other.do({"do": "rebalance"}, {"do": "rebalance", "key": "k"}) == [refused] * 2
        assert await runs_of(database) == (run,)
        one.go_on()
        (done,) = await one.heard()
        assert run.run_id in done["body"]
        assert (await proven(database))[0].version == 2
        await other.do({"do": "rebalance", "key": "k"})
    states = [one.state for one in await runs_of(database)]
    assert states == [RunState.DONE, RunState.UNCHANGED]
    assert (await proven(database))[0].version == 2


async def test_C01_a_tick_in_three_processes_is_one_run(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(10)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.61}}
    act = {"do": "rebalance", "tick": "2026-03-02T13:00:00+00:00"}
    async with crew(database_url, 3, minutes=DAY) as workers:
        await together(workers, [[moved]] * 3)
        endings = await together(workers, [[act] * 5] * 3)
        told = await together(workers, [[act]] * 3)
    (run,) = await runs_of(database)
    assert run.state is RunState.DONE
    for ending in endings:
        assert ending == {"code": Code.REBALANCE_IN_PROGRESS, "run_id": run.run_id} or (
            run.run_id in ending["body"]
        )
    assert sum(not one.get("is_replay", True) for one in endings) == 1
    assert all(one["is_replay"] for one in told)
    assert (await proven(database))[0].version == 2


async def test_C01_an_executor_that_slept_hears_what_another_made_of_its_tick(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(10)
    moved = {"do": "score", "changed": {SYMBOLS[0]: 0.61}}
    tick = {"do": "check", "tick": "2026-03-02T13:00:00+00:00"}
    async with (
        worker(database_url, minutes=DAY, failpoint="pause:2") as sleeper,
        worker(database_url, minutes=DAY) as other,
    ):
        await asyncio.gather(sleeper.do(moved), other.do(moved))
        sleeper.tell(tick)
        await sleeper.paused()
        assert await other.do(tick) == [None]
        sleeper.go_on()
        assert await sleeper.heard() == [None]
    (run,) = await runs_of(database)
    assert run.state is RunState.DONE
    assert (await proven(database))[0].version == 2


async def test_C02_one_key_in_three_processes_has_one_effect(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(3)
    act = {"do": "add", "symbol": SYMBOLS[9], "key": "k"}
    async with crew(database_url, 3) as workers:
        endings = await together(workers, [[act] * 20] * 3)
        replays = await together(workers, [[act]] * 3)
    answers = [one for one in endings if "body" in one]
    assert sum(not one["is_replay"] for one in answers) == 1
    assert {one["code"] for one in endings if "code" in one} <= {Code.IDEMPOTENCY_IN_PROGRESS}
    assert len({one["body"] for one in answers + replays}) == 1
    assert all(one["is_replay"] for one in replays)
    state, _ = await proven(database)
    assert (state.version, len(state.members)) == (2, 4)


async def test_C03_a_key_of_another_process_belongs_to_its_request(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(3)
    async with crew(database_url, 2) as (one, other):
        await one.do({"do": "add", "symbol": SYMBOLS[9], "key": "k", "print": "a"})
        before, _ = await proven(database)
        said = await other.do({"do": "remove", "symbol": SYMBOLS[9], "key": "k", "print": "b"})
    assert said == [{"code": Code.IDEMPOTENCY_KEY_REUSED}]
    assert (await proven(database))[0] == before


async def test_C05_fifty_adds_at_nine_members_from_three_processes(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(9)
    adds = [{"do": "add", "symbol": name} for name in SYMBOLS[9:26]]
    async with crew(database_url, 3) as workers:
        endings = await together(workers, [adds, adds, adds[:16]])
    codes = Counter(one.get("code", "added") for one in endings)
    assert codes["added"] == 1
    assert set(codes) <= {
        "added",
        Code.PORTFOLIO_FULL.value,
        Code.SYMBOL_ALREADY_IN_PORTFOLIO.value,
        Code.OVERLOADED.value,
        Code.DATABASE_CONTENTION.value,
    }
    assert codes[Code.PORTFOLIO_FULL.value] > 0
    state, _ = await proven(database)
    assert len(state.members) == 10


async def test_C06_two_replace_and_one_removes_the_same_member(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(5)
    async with crew(database_url, 3) as workers:
        for turn in range(4):
            state, _ = await proven(database)
            target, size = state.members[0].symbol, len(state.members)
            endings = await together(
                workers,
                [
                    [{"do": "replace", "symbol": target, "by": SYMBOLS[10 + 2 * turn]}],
                    [{"do": "remove", "symbol": target}],
                    [{"do": "replace", "symbol": target, "by": SYMBOLS[11 + 2 * turn]}],
                ],
            )
            lost = [one["code"] for one in endings if "code" in one]
            assert len(lost) == 2
            assert set(lost) <= {Code.SYMBOL_NOT_IN_PORTFOLIO, Code.VERSION_CONFLICT}
            state, events = await proven(database)
            assert len(state.members) in {size, size - 1}
            assert target not in {member.symbol for member in state.members}
            assert events[-1].payload["version"] == state.version == turn + 2


async def test_C07_a_decision_carries_the_settings_that_were_in_force(
    database: Database, database_url: str
) -> None:
    """Whoever comes first: no weights are set with settings of another moment."""
    await Desk(database).filled(8)
    async with crew(database_url, 2) as (one, other):
        for turn in range(8):
            changes = {"max_weight_percentage": 13 + turn}
            await together(
                (one, other),
                [
                    [{"do": "configure", "changes": changes}],
                    [{"do": "rebalance"}, {"do": "remove", "symbol": SYMBOLS[turn]}],
                ],
            )
    _, events = await proven(database)
    in_force = 1
    for event in events:
        if event.type is EventType.CONFIG:
            in_force = event.payload["configuration_version"]
        assert event.configuration_version == in_force
    assert in_force == 9


async def test_C14_of_two_that_decided_on_one_version_one_wins(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(3)
    async with crew(database_url, 3) as workers:
        for version in range(1, 6):
            acts = [
                [
                    {
                        "do": "configure",
                        "if_match": version,
                        "changes": {"max_weight_percentage": 20 + 3 * version + place},
                    }
                ]
                for place in range(3)
            ]
            endings = await together(workers, acts)
            lost = [one["code"] for one in endings if "code" in one]
            assert lost == [Code.PRECONDITION_FAILED] * 2
    state, events = await proven(database)
    assert state.configuration_version == 6
    assert sum(event.type is EventType.CONFIG for event in events) == 5


async def test_C16_readers_in_other_processes_see_whole_versions(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(6)
    swaps = [
        [{"do": "replace", "symbol": SYMBOLS[0], "by": SYMBOLS[12]}],
        [{"do": "replace", "symbol": SYMBOLS[12], "by": SYMBOLS[0]}],
    ]
    async with crew(database_url, 3) as (writer, *readers):
        reading = asyncio.gather(
            *(reader.do({"do": "read", "reads": 21, "versions": 4}) for reader in readers)
        )
        turn = 0
        while not reading.done():
            (ending,) = await writer.do(*swaps[turn % 2])
            assert "body" in ending, ending
            turn += 1
        seen = [endings[0] for endings in await reading]
    assert [one["wrong"] for one in seen] == [[], []]
    assert all(one["reads"] > 20 and one["versions"] > 3 for one in seen)
    held = seen[1]["held"] | seen[0]["held"]
    assert held == seen[0]["held"] | seen[1]["held"], "a version is the same to everybody"
    for version, members in held.items():  # the first has the one, the second the other
        names = {one.partition(" ")[0] for one in members}
        assert names & {SYMBOLS[0], SYMBOLS[12]} == {SYMBOLS[0 if int(version) % 2 else 12]}
    await proven(database)


async def test_C17_everything_at_once_never_deadlocks(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(6)
    acts: list[list[dict[str, Any]]] = [
        [
            {"do": "add", "symbol": SYMBOLS[6 + place], "key": f"a{place}{turn}"},
            {"do": "remove", "symbol": SYMBOLS[place], "key": f"b{turn}"},
            {"do": "replace", "symbol": SYMBOLS[5], "by": SYMBOLS[14 + turn], "key": f"c{place}"},
            {"do": "rebalance", "key": f"d{turn}"},
            {"do": "configure", "changes": {"max_weight_percentage": 20 + turn}, "key": f"e{turn}"},
        ]
        for turn in range(3)
        for place in range(3)
    ]
    async with crew(database_url, 3) as workers:
        for turn in range(0, 9, 3):
            endings = await together(workers, acts[turn : turn + 3])
            assert Code.INTERNAL_ERROR not in {one.get("code") for one in endings}
    await proven(database)
    await database.close()
    await database.open()
    others = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(120):  # what a server process has counted is told when it ends
        while await asked(database, others):
            await asyncio.sleep(0.05)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await asked(database, deadlocks) == 0


async def asked(database: Database, query: str) -> Any:
    async with database.read() as unit:
        return (await unit.connection.execute(text(query))).scalar_one()
