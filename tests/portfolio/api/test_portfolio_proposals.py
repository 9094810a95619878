"""Proposals over HTTP: listed, approved and declined, once."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.operations.api import configuration_routes as configuration
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import proposal_routes as portfolio_proposals
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, WHO, Desk

MODULES = (
    configuration,
    portfolio,
    portfolio_proposals,
    portfolio_rebalance,
)


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await Desk(database).filled(10)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as opened:
        yield opened


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(PREFIX + path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(
    client: httpx2.AsyncClient, path: str, key: str | None = None, **body: Any
) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(f"{PREFIX}/portfolio/proposals{path}", json=body, headers=headers)


async def post_to(client: httpx2.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(PREFIX + path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def careful(client: httpx2.AsyncClient, **policy: Any) -> None:
    changed = await client.patch(f"{PREFIX}/configuration", json={"automation": policy})
    assert changed.status_code == 200, changed.text
    assert changed.json()["configuration"]["automation"].items() >= policy.items()


async def test_a_rebalance_is_proposed_listed_and_approved(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await careful(client, rebalance="propose", proposal_ttl_s=3600)
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    (run,) = (await get(client, "/portfolio/rebalances"))["items"]
    (one,) = (await get(client, "/portfolio/proposals"))["items"]
    assert run["state"] == "proposed"
    assert (one["kind"], one["state"], one["is_outdated"]) == ("rebalance", "open", False)
    assert (one["run_id"], one["decision"], one["replacement"]) == (run["run_id"], None, None)
    assert one["proposed_by"] is None, "the service: anyone may approve, also with four eyes"
    assert one["rebalance"]["turnover"] == run["turnover"] > 0
    assert one["rebalance"]["triggers"] == ["drift"]
    kept = await get(client, f"/portfolio/rebalances/{run['run_id']}")
    assert one["rebalance"]["changes"] == kept["changes"]
    assert one["expires_at"] > one["opened_at"]
    path = f"/{one['proposal_id']}/approve"
    done = await post(client, path, "k", reason="looks right", user="kim")
    assert done.status_code == 200, done.text
    body = done.json()
    assert body["state"] == "approved"
    assert (body["decision"]["by"], body["decision"]["reason"]) == ("local", "looks right")
    carried_out = await get(client, f"/portfolio/rebalances/{body['decision']['run_id']}")
    assert carried_out["state"] == "done"
    assert carried_out["version_after"] == body["decision"]["version"] == one["version"] + 1
    again = await post(client, path, "k", reason="looks right", user="kim")
    assert (again.content, again.headers["idempotency-replayed"]) == (done.content, "true")
    for decision in ("approve", "decline"):
        refused = await post(client, f"/{one['proposal_id']}/{decision}")
        body = problem(refused, 409, "invalid_state_transition", extra=frozenset({"state"}))
        assert body["state"] == "approved"


async def test_what_is_approved_is_what_is_carried_out(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await careful(client, rebalance="propose")
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    (one,) = (await get(client, "/portfolio/proposals"))["items"]
    desk.later(minutes=10)
    desk.score({SYMBOLS[0]: 0.63, SYMBOLS[4]: 0.91})  # the plan of the moment is another one
    moment = await post_to(client, "/portfolio/rebalance", dry_run=True)
    done = await post(client, f"/{one['proposal_id']}/approve")
    assert done.status_code == 200, done.text
    run = await get(client, f"/portfolio/rebalances/{done.json()['decision']['run_id']}")
    assert run["changes"] == one["rebalance"]["changes"] != moment["changes"]
    weights = (await get(client, "/portfolio/weights"))["weights"]
    by_name = {line["symbol"]: line["weight_percentage"] for line in weights}
    assert {line["symbol"]: line["new"] for line in run["changes"]}.items() <= by_name.items()


async def test_a_plan_that_does_not_hold_is_refused_and_the_present_one_proposed(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await careful(client, rebalance="propose")
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    (old,) = (await get(client, "/portfolio/proposals"))["items"]
    desk.later(minutes=10)
    desk.quote(SYMBOLS[3], mark=Decimal(13))
    version = (await desk.portfolio.view()).portfolio.version
    refused = await post(client, f"/{old['proposal_id']}/approve", "k")
    said = problem(refused, 409, "plan_changed", extra=frozenset({"proposal_id"}))
    assert f"prices have moved {SYMBOLS[3]} by +" in said["detail"]
    assert (await desk.portfolio.view()).portfolio.version == version
    new, before = (await get(client, "/portfolio/proposals"))["items"]
    assert (before["state"], new["state"]) == ("superseded", "open")
    assert said["proposal_id"] == new["proposal_id"] != old["proposal_id"]
    assert new["rebalance"]["changes"] != old["rebalance"]["changes"]
    (run,) = (await get(client, "/portfolio/rebalances", state="failed"))["items"]
    assert run["error"]["code"] == "plan_changed"
    done = await post(client, f"/{new['proposal_id']}/approve")
    assert done.status_code == 200, done.text
    assert done.json()["decision"]["version"] == version + 1


async def test_a_replacement_is_proposed_and_declined(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.configuration.put({"replacement": {"auto_execute_forced": False}}, "ask", WHO)
    desk.status(SYMBOLS[9], ContractStatus.BEING_SETTLED)
    await desk.replacement.execute(WHO, unattended=True)
    (one,) = (await get(client, "/portfolio/proposals", kind="replacement"))["items"]
    assert (await get(client, "/portfolio/proposals", kind="rebalance"))["items"] == []
    swap = one["replacement"]
    assert (swap["replace_symbol"], swap["forced_reason"]) == (
        SYMBOLS[9],
        "the contract is BeingSettled",
    )
    assert swap["candidate_symbol"] not in await desk.members()
    assert one["rebalance"] is None
    declined = await post(client, f"/{one['proposal_id']}/decline")
    assert (declined.status_code, declined.json()["state"]) == (200, "declined")
    assert SYMBOLS[9] in await desk.members()


async def test_an_outdated_proposal_is_shown_as_such_and_superseded(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await careful(client, rebalance="propose")
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    await desk.portfolio.remove(SYMBOLS[5], "x", WHO)
    (one,) = (await get(client, "/portfolio/proposals"))["items"]
    assert (one["state"], one["is_outdated"]) == ("open", True)
    problem(await post(client, f"/{one['proposal_id']}/approve"), 409, "version_conflict")
    (one,) = (await get(client, "/portfolio/proposals"))["items"]
    assert (one["state"], one["is_outdated"]) == ("superseded", False)


async def test_proposals_are_paged_newest_first(desk: Desk, client: httpx2.AsyncClient) -> None:
    await careful(client, rebalance="propose")
    for turn in range(5):
        desk.later(hours=1)
        desk.score({SYMBOLS[0]: 0.61})
        await desk.rebalancing.check(WHO)
        await desk.configuration.put({"liquidity_share": 0.02 + turn / 100}, "a version", WHO)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await get(client, "/portfolio/proposals", limit=2, **cursor)
        seen += [one["opened_at"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == 5
    assert seen == sorted(seen, reverse=True)


async def test_there_is_no_such_proposal(client: httpx2.AsyncClient) -> None:
    for decision in ("approve", "decline"):
        problem(await post(client, f"/none/{decision}"), 404, "not_found")
