"""B02, B03: the connection to PostgreSQL is cut before or after COMMIT was carried out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlalchemy import make_url

from app.foundation.sql.database import Database
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.portfolio.domain.rebalance_run import RunState
from tests.conftest import MakeDatabase
from tests.processes.worker_processes import proven, runs_of
from tests.support import postgres
from tests.support.harness import PREFIX, serve
from tests.support.network_cut import Cut, Way, cutting
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, Desk

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
MODULES = (portfolio_changes, portfolio_rebalance)
ADD = ("/portfolio/add-symbol", {"symbol": SYMBOLS[9]})
REBALANCE = ("/portfolio/rebalance", {"reason": "by hand"})
# Number of the commit that carries the effect: a key is claimed in the transaction of its change,
# a rebalance run in transactions of its own before.
CHANGES = {"add": (ADD, 1), "rebalance": (REBALANCE, 3)}


@dataclass
class Far:
    """A service whose database is at the end of a way that can be cut."""

    way: Way
    client: httpx2.AsyncClient
    near: Database  # the same database, reached directly

    async def ask(self, request: tuple[str, dict[str, Any]], key: str | None) -> httpx2.Response:
        path, body = request
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.client.post(PREFIX + path, json=body, headers=headers)


@pytest.fixture
async def far(
    database: Database,
    database_url: str,
    postgres_server: postgres.Server,
    make_database: MakeDatabase,
) -> AsyncIterator[Far]:
    await Desk(database).filled(9)
    async with cutting(postgres_server.room) as way:
        reached = make_database(way.url(str(make_url(database_url).database)))
        await reached.open()
        desk = Desk(reached, process="far")
        await desk.open()
        desk.later(days=2)
        desk.score({SYMBOLS[0]: 0.61})
        async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:
            yield Far(way, client, database)
        assert reached.checked_out == 0
        await reached.close()


@pytest.fixture(params=list(CHANGES))
def change(request: pytest.FixtureRequest) -> tuple[tuple[str, dict[str, Any]], int]:
    return CHANGES[request.param]


async def effects(far: Far) -> int:
    """How often the portfolio was changed since the beginning; all is proven sound."""
    state, _ = await proven(far.near)
    return state.version - 1


async def test_B02_lost_before_commit_nothing_happened_and_the_key_may_be_used_again(
    far: Far, change: tuple[tuple[str, dict[str, Any]], int]
) -> None:
    request, commits = change
    far.way.arm(Cut.BEFORE_COMMIT, commits)
    problem(await far.ask(request, "k"), 503, "database_unavailable")
    assert (far.way.cuts, await effects(far)) == (1, 0)
    again = await far.ask(request, "k")
    assert again.status_code in {200, 201}, again.text
    assert "idempotency-replayed" not in again.headers
    assert await effects(far) == 1
    states = [run.state for run in await runs_of(far.near)]
    assert states == ([] if request is ADD else [RunState.FAILED, RunState.DONE])


async def test_B03_lost_during_commit_the_answer_is_looked_up(
    far: Far, change: tuple[tuple[str, dict[str, Any]], int]
) -> None:
    request, commits = change
    far.way.arm(Cut.AFTER_COMMIT, commits)
    first = await far.ask(request, "k")
    assert first.status_code in {200, 201}, first.text
    assert (far.way.cuts, await effects(far)) == (1, 1)
    again = await far.ask(request, "k")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert await effects(far) == 1


async def test_B03_while_nothing_can_be_looked_up_the_client_repeats_and_hears_the_stored_answer(
    far: Far, change: tuple[tuple[str, dict[str, Any]], int]
) -> None:
    request, commits = change
    far.way.arm(Cut.AFTER_COMMIT, commits, stays_down=True)
    problem(await far.ask(request, "k"), 503, "database_unavailable")
    problem(await far.ask(request, "k"), 503, "database_unavailable")
    assert (far.way.cuts, await effects(far)) == (1, 1)
    far.way.refuses = False
    again = await far.ask(request, "k")
    assert again.status_code in {200, 201}, again.text
    assert again.headers["idempotency-replayed"] == "true"
    assert await effects(far) == 1


async def test_B03_a_run_without_a_key_is_looked_up_by_its_id(far: Far) -> None:
    far.way.arm(Cut.AFTER_COMMIT, 2)
    done = await far.ask(REBALANCE, None)
    assert done.status_code == 200, done.text
    assert done.json()["total_changes"] > 0
    (run,) = await runs_of(far.near)
    assert (run.run_id, run.state) == (done.json()["run_id"], RunState.DONE)
    assert (far.way.cuts, await effects(far)) == (1, 1)
    second = await far.ask(REBALANCE, None)
    assert second.json()["total_changes"] == 0


async def test_B03_a_claim_whose_commit_was_not_heard_of_stands_in_nobodys_way(far: Far) -> None:
    far.way.arm(Cut.AFTER_COMMIT, 1)
    problem(await far.ask(REBALANCE, None), 503, "database_unavailable")
    (claimed,) = await runs_of(far.near)
    assert claimed.state is RunState.FAILED
    assert await effects(far) == 0
    assert (await far.ask(REBALANCE, None)).json()["total_changes"] > 0
    assert await effects(far) == 1
