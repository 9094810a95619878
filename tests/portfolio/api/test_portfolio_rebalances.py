"""Rebalance runs over HTTP: listed, read step by step, and named to whoever comes second."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.foundation.sql.database import Database
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.portfolio.services.rebalance_runs import RebalanceRequest
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

MODULES = (portfolio_changes, portfolio_rebalance)
TICK = "2026-03-01T12:00:00Z"


@pytest.fixture
async def desk(database: Database) -> Desk:
    """A desk on which a rebalance does something."""
    made = await Desk(database).filled(10)
    made.score({SYMBOLS[0]: 0.61})
    return made


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as opened:
        yield opened


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(f"{PREFIX}/portfolio{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def rebalance(
    client: httpx2.AsyncClient, key: str | None = None, **body: Any
) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(f"{PREFIX}/portfolio/rebalance", json=body, headers=headers)


async def test_a_run_can_be_read_with_its_changes_and_steps(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    del desk
    plan = (await rebalance(client, reason="tuned", user="kim")).json()
    assert plan["state"] == "done"
    run = await get(client, f"/rebalances/{plan['run_id']}")
    assert (run["state"], run["reason"], run["actor"]) == ("done", "tuned", "local")
    assert (run["version_before"], run["version_after"]) == (1, 2)
    for name in ("triggers", "total_changes", "turnover", "estimated_cost"):
        assert run[name] == plan[name]
    assert run["changes"] == [
        {name: value for name, value in change.items() if name != "lots"}
        for change in plan["changes"]
    ]
    assert [step["name"] for step in run["steps"]] == ["load", "plan", "commit", "announce"]
    assert {step["state"] for step in run["steps"]} == {"done"}
    assert run["error"] is None
    listed = (await get(client, "/rebalances"))["items"]
    only_in_detail = {"changes", "steps"}
    assert listed == [{name: run[name] for name in run.keys() - only_in_detail}]
    problem(await client.get(f"{PREFIX}/portfolio/rebalances/none"), 404, "not_found")


async def test_the_lot_rule_and_the_spacing_are_told_over_http(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    dry = (await rebalance(client, dry_run=True)).json()
    assert dry["total_changes"] > 0
    assert dry["lot_rule"] == {
        "status": "not_applicable",
        "balance": None,
        "source": None,
        "reason": "neither account_balance nor the setting sizing.reference_balance is given",
        "held_back": [],
    }
    small = (await rebalance(client, dry_run=True, account_balance="20")).json()
    assert (small["total_changes"], small["triggers"]) == (0, ["drift"])
    rule = small["lot_rule"]
    assert (rule["status"], rule["source"]) == ("applied", "account_balance")
    assert (rule["balance"], rule["held_back"]) == ("20", [SYMBOLS[0]])
    done = await rebalance(client, "one", scheduled_at=TICK)
    assert done.json()["lot_rule"] == dry["lot_rule"]
    assert (await rebalance(client, "two", scheduled_at=TICK)).json() == done.json()
    desk.score({SYMBOLS[0]: 0.95})
    waiting = (await rebalance(client)).json()
    assert (waiting["state"], waiting["total_changes"]) == ("unchanged", 0)
    assert waiting["waits_until"] == "2026-03-01T13:00:00Z"
    stale = {"If-Match": '"99"'}
    listed = (await get(client, "/rebalances"))["items"]
    refused = await client.post(f"{PREFIX}/portfolio/rebalance", json={}, headers=stale)
    problem(refused, 412, "precondition_failed")
    assert (await get(client, "/rebalances"))["items"] == listed


async def test_runs_are_paged_newest_first(desk: Desk, client: httpx2.AsyncClient) -> None:
    made = []
    for _ in range(5):
        desk.later(seconds=1)
        made.append((await rebalance(client)).json()["run_id"])
    seen, cursor = [], None
    while True:
        page = await get(client, "/rebalances", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [run["run_id"] for run in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == made[::-1]
    unchanged = (await get(client, "/rebalances", state="unchanged"))["items"]
    assert [run["run_id"] for run in unchanged] == made[:0:-1]
    first = await get(client, "/rebalances", limit=2)
    forged = await client.get(
        f"{PREFIX}/portfolio/rebalances",
        params={"cursor": first["next_cursor"], "state": "done"},
    )
    problem(forged, 422, "validation_failed")


async def test_whoever_comes_second_hears_which_run_is_active_and_where_it_is(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    active = await desk.rebalancing.runs.claim(RebalanceRequest(), WHO)
    for key in (None, "k", "k"):
        refused = await rebalance(client, key=key)
        body = problem(refused, 409, "rebalance_in_progress", extra=frozenset({"run_id"}))
        assert body["run_id"] == active.run_id
        assert refused.headers["location"] == f"{PREFIX}/portfolio/rebalances/{active.run_id}"
    shown = await client.get(refused.headers["location"])
    assert (shown.json()["state"], shown.json()["steps"]) == ("planned", [])
    desk.later(seconds=31)
    done = await rebalance(client, key="k")
    assert done.json()["total_changes"] > 0, "the key is free: the refusal had no effect"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/add-symbol", {"symbol": SYMBOLS[20]}),
        ("/remove-symbol", {"symbol": SYMBOLS[0]}),
        ("/replace-symbol", {"old_symbol": SYMBOLS[0], "new_symbol": SYMBOLS[20]}),
    ],
)
async def test_C08_members_wait_while_a_run_is_active(
    desk: Desk, client: httpx2.AsyncClient, path: str, body: dict[str, str]
) -> None:
    await desk.portfolio.remove(SYMBOLS[9], "room for one", WHO)
    active = await desk.rebalancing.runs.claim(RebalanceRequest(), WHO)
    before = (await desk.portfolio.view()).portfolio
    refused = await client.post(f"{PREFIX}/portfolio{path}", json=body)
    told = problem(refused, 409, "rebalance_in_progress", extra=frozenset({"run_id"}))
    assert told["run_id"] == active.run_id
    assert refused.headers["location"] == f"{PREFIX}/portfolio/rebalances/{active.run_id}"
    assert (await desk.portfolio.view()).portfolio == before
    desk.later(seconds=30)
    done = await client.post(f"{PREFIX}/portfolio{path}", json=body)
    assert done.status_code in {200, 201}, done.text


async def test_the_same_tick_twice_is_the_same_run(desk: Desk, client: httpx2.AsyncClient) -> None:
    first = await rebalance(client, scheduled_at=TICK)
    desk.later(minutes=1)
    desk.score({SYMBOLS[0]: 0.3})
    again = await rebalance(client, scheduled_at="2026-03-01T13:00:00+01:00", reason="hello?")
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    (run,) = (await get(client, "/rebalances"))["items"]
    assert run["scheduled_at"] == TICK
    naive = await rebalance(client, scheduled_at="2026-03-01T12:00:00")
    problem(naive, 422, "timezone_required")
    next_tick = (NOW + timedelta(hours=1)).isoformat()
    assert (await rebalance(client, scheduled_at=next_tick)).json()["state"] == "done"


async def test_D21_a_run_on_old_data_is_aborted_and_says_why(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    desk.stale(*SYMBOLS[:3])
    refused = problem(await rebalance(client), 503, "market_data_stale")
    (run,) = (await get(client, "/rebalances"))["items"]
    assert run["state"] == "aborted_stale"
    assert run["error"] == {"code": "market_data_stale", "detail": refused["detail"]}
    unknown = ("version_before", "version_after", "triggers", "total_changes", "turnover")
    assert {run[name] for name in unknown} == {None}
    dry = (await rebalance(client, dry_run=True)).json()
    assert dry["would_be_refused"] == run["error"]
    assert len((await get(client, "/rebalances"))["items"]) == 1
