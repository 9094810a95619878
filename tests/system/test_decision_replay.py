"""Stored decisions are replayed from their inputs over HTTP and give the same bytes again."""

import json
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import select, update

from app.alerts.api import alert_routes
from app.cli.exit_codes import ExitCode
from app.foundation.decision_log import DecisionKind
from app.foundation.sql.tables import decision_inputs
from app.portfolio.api import proposal_routes, rebalance_routes
from app.portfolio.domain.event_log import EventType
from app.signals.api import routes as signal_routes
from tests.cli.command import here
from tests.cli.test_client import answering
from tests.portfolio.services.test_replacement import BETTER, WEAKEST, Cycles
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk

ROUTERS = [
    rebalance_routes.router,
    proposal_routes.router,
    signal_routes.router,
    alert_routes.router,
]
UNKNOWN = "00000000-0000-4000-8000-999999999999"


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve(ROUTERS, {"my_symbols": desk}) as opened:
        yield opened


async def replayed(client: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    response = await client.post(f"{PREFIX}{path}/replay")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def stored(desk: Desk, kind: DecisionKind) -> dict[str, bytes]:
    """Packed documents of a kind by id."""
    table = decision_inputs
    wanted = select(table.c.decision_id, table.c.document).where(table.c.kind == kind.value)
    async with desk.database.read() as unit:
        return {row.decision_id: row.document for row in await unit.connection.execute(wanted)}


async def overwrite(desk: Desk, decision_id: str, **values: Any) -> None:
    changed = update(decision_inputs).where(decision_inputs.c.decision_id == decision_id)
    async with desk.database.write() as unit:
        await unit.connection.execute(changed.values(**values))


def changed_inputs(document: bytes, **values: Any) -> bytes:
    """The document with other inputs, and the output as it was."""
    given, output = msgspec.msgpack.decode(zlib.decompress(document))
    inputs = msgspec.msgpack.encode({**msgspec.msgpack.decode(given), **values})
    return zlib.compress(msgspec.msgpack.encode((inputs, output)))


async def test_a_rebalance_gives_the_same_plan_and_lots(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled()
    desk.later(minutes=5)
    desk.score({SYMBOLS[0]: 0.61, SYMBOLS[1]: 0.40})
    balance = Decimal(100_000)
    done = (await desk.rebalancing.rebalance(WHO, account_balance=balance)).result
    assert done is not None
    assert done.plan.changes
    assert done.lots is not None
    desk.later(hours=2)
    desk.score({SYMBOLS[0]: 0.61, SYMBOLS[1]: 0.40})
    idle = (await desk.rebalancing.rebalance(WHO)).result
    assert idle is not None
    assert idle.plan.changes == ()
    # Later settings, scores and prices change nothing: each run has its own inputs.
    await desk.configuration.put({"max_weight_percentage": 12}, "less", WHO)
    desk.score({SYMBOLS[4]: 0.1})
    desk.quote(SYMBOLS[2], mark=Decimal(77))
    for run in (done, idle):
        body = await replayed(client, f"/portfolio/rebalances/{run.run_id}")
        assert (body["kind"], body["id"]) == ("rebalance", run.run_id)
        assert (body["is_identical"], body["differing"]) == (True, [])
        assert body["output_hash"] == body["replayed_output_hash"]
    documents = await stored(desk, DecisionKind.REBALANCE)
    assert documents.keys() == {done.run_id, idle.run_id}
    assert max(map(len, documents.values())) < 6_000

    document = changed_inputs(documents[done.run_id], recorded_u={}, least_u={SYMBOLS[0]: 10**8})
    await overwrite(desk, done.run_id, document=document)
    body = await replayed(client, f"/portfolio/rebalances/{done.run_id}")
    assert (body["is_identical"], "plan" in body["differing"]) == (False, True)
    assert body["output_hash"] != body["replayed_output_hash"]


async def test_another_version_of_the_algorithm_names_the_service_that_can(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled()
    done = (await desk.rebalancing.rebalance(WHO)).result
    assert done is not None
    path = f"{PREFIX}/portfolio/rebalances/{done.run_id}/replay"
    await overwrite(desk, done.run_id, algorithm=0, code_version="0.1.9+abc")
    extra = frozenset({"algorithm", "code_version"})
    refused = problem(await client.post(path), 409, "algorithm_version", extra=extra)
    assert (refused["algorithm"], refused["code_version"]) == ("0", "0.1.9+abc")
    assert "version 0" in refused["detail"]
    assert "0.1.9+abc" in refused["detail"]
    for unknown in (
        f"portfolio/rebalances/{UNKNOWN}",
        "portfolio/replacements/99",
        f"signals/{UNKNOWN}",
        f"alerts/{UNKNOWN}",
    ):
        problem(await client.post(f"{PREFIX}/{unknown}/replay"), 404, "not_found")


@pytest.mark.parametrize("mode", ["auto", "propose"])
async def test_a_replacement_gives_the_same_proposals(
    desk: Desk, client: httpx2.AsyncClient, mode: str
) -> None:
    cycles = await Cycles(desk).begin(auto_execute_confirmed=mode == "auto")
    await desk.configuration.put({"automation": {"replacement": mode}}, "mode", WHO)
    for _ in range(3):
        done = await cycles.cycle(BETTER)
    (decision_id,) = documents = await stored(desk, DecisionKind.REPLACEMENT)
    if mode == "auto":
        assert [swap.old.symbol for swap in done.swaps] == [WEAKEST]
        history = await desk.queries.history(None, 10)
        event = next(one for one in history if one.type is EventType.REPLACE)
        assert decision_id == str(event.seq)
    else:
        shown = (await client.get(f"{PREFIX}/portfolio/proposals")).json()["items"]
        assert decision_id in {one["proposal_id"] for one in shown}
    desk.later(days=2)
    await desk.configuration.put({"replacement": {"noise_multiple": 9}}, "strict", WHO)
    path = f"/portfolio/replacements/{decision_id}"
    assert (await replayed(client, path))["is_identical"]
    document = changed_inputs(documents[decision_id], noise={})
    await overwrite(desk, decision_id, document=document)
    assert (await replayed(client, path))["differing"] == ["output"]


async def test_a_replacement_that_an_operator_asked_for_has_no_inputs(desk: Desk) -> None:
    await desk.filled(4)
    await desk.portfolio.replace(SYMBOLS[3], SYMBOLS[9], "wanted", WHO)
    assert await stored(desk, DecisionKind.REPLACEMENT) == {}


async def test_a_verdict_gives_the_same_votes(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    informed(desk)
    first = (await desk.signals.submit(claim(), WHO)).result
    second = (await desk.signals.submit(claim(SYMBOLS[5]), WHO)).result
    weak = (await desk.signals.submit(claim(strength=0.01), WHO)).result
    assert first is not None
    assert second is not None
    assert weak is not None
    assert first.evaluated.verdict is not None
    ids = [one.evaluated.signal.signal_id for one in (first, second)]
    documents = await stored(desk, DecisionKind.SIGNAL)
    assert sorted(documents) == sorted(ids), "a rejected signal has no verdict"
    assert len(await stored(desk, DecisionKind.UNIVERSE)) == 1, "once for the board"
    desk.score(dict.fromkeys(SYMBOLS, 0.1))
    await desk.configuration.put({"signals": {"min_consensus": 0.9}}, "strict", WHO)
    for signal_id in ids:
        assert (await replayed(client, f"/signals/{signal_id}"))["is_identical"]
    document = changed_inputs(documents[ids[0]], blocking_reason="it is not open")
    await overwrite(desk, ids[0], document=document)
    body = await replayed(client, f"/signals/{ids[0]}")
    assert {"evaluation", "votes"} <= set(body["differing"])


async def test_an_alert_opens_again_on_the_same_facts(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled()
    rules = {"low_score": {"duration_s": 600}}
    await desk.configuration.put({"alerts": {"rules": rules}}, "wait", WHO)
    desk.score({SYMBOLS[0]: 0.1})
    await desk.alerts.evaluate()
    desk.later(minutes=10)
    desk.score({SYMBOLS[0]: 0.1})
    active, _ = await desk.alerts.evaluate()
    (low,) = (one for one in active if one.rule.value == "low_score")
    assert low.opened_at == desk.now
    await desk.configuration.put({"alerts": {"low_score": 0.01}}, "less", WHO)
    desk.later(hours=1)
    documents = await stored(desk, DecisionKind.ALERT)
    assert low.id in documents
    for alert_id in documents:
        assert (await replayed(client, f"/alerts/{alert_id}"))["is_identical"]
    # Without its pending time, or within the cooldown, the same facts open nothing yet.
    ended = {"at": low.opened_at, "resolution": "operator"}
    for change in ({"former": None}, {"ended": ended}):
        document = changed_inputs(documents[low.id], **change)
        await overwrite(desk, low.id, document=document)
        assert not (await replayed(client, f"/alerts/{low.id}"))["is_identical"]


async def test_inputs_have_a_size_per_day_and_a_retention(desk: Desk) -> None:
    await desk.filled()
    await desk.rebalancing.rebalance(WHO)
    (document,) = (await stored(desk, DecisionKind.REBALANCE)).values()
    sizes = await desk.decision_inputs.bytes_per_day()
    assert sizes == dict.fromkeys(DecisionKind, 0) | {"rebalance": len(document)}
    assert await desk.decision_inputs.delete_old(timedelta(days=1)) == 0
    desk.later(hours=25)
    assert (await desk.decision_inputs.bytes_per_day())["rebalance"] == 0
    assert await desk.decision_inputs.delete_old(timedelta(days=1)) == 1
    assert await stored(desk, DecisionKind.REBALANCE) == {}


REPLAY = {"is_identical": True, "differing": [], "kind": "rebalance", "id": UNKNOWN}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("scoring", "/scoring/runs"),
        ("rebalance", "/portfolio/rebalances"),
        ("replacement", "/portfolio/replacements"),
        ("signal", "/signals"),
        ("alert", "/alerts"),
    ],
)
def test_the_command_replays_each_kind(kind: str, path: str) -> None:
    with answering(200, json.dumps(REPLAY).encode()) as (url, asked):
        said = here("replay", kind, UNKNOWN, "--url", url)
    assert (said.code, said.out) == (ExitCode.OK, f"{kind} {UNKNOWN}: identical\n")
    assert asked[0][:2] == ("POST", f"{PREFIX}{path}/{UNKNOWN}/replay")


def test_the_command_fails_where_a_replay_differs() -> None:
    body = json.dumps({**REPLAY, "is_identical": False, "differing": ["plan"]}).encode()
    with answering(200, body) as (url, _):
        said = here("replay", "rebalance", UNKNOWN, "--url", url)
    assert said.code == ExitCode.REFUSED
    assert "plan" in said.err
