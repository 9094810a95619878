"""Signals over HTTP: sent, judged, looked up, listed, counted, tried again, cleared away."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.foundation.http.permissions import AUTHENTICATOR
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database
from app.operations.api import configuration_routes as configuration
from app.signals.api import routes as signals
from tests.support.action_fixtures import by_skill, eight_members, put, version
from tests.support.api_keys import KeyDesk, bearer
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import located, problem
from tests.support.signal_fixtures import BEST, informed
from tests.support.trading_desk import SYMBOLS, Desk, symbol_id

SIGNAL = {
    "source_name": "desk",
    "signal_type": "momentum",
    "signal_strength": 0.8,
    "confidence_level": 0.9,
    "symbol": BEST,
    "signal_direction": "BUY",
}


@pytest.fixture
async def desk(database: Database) -> Desk:
    opened = await Desk(database).open()
    informed(opened)
    return opened


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    routers = [configuration.router, signals.router]
    async with serve(routers, {"my_symbols": desk}) as opened:
        yield opened


async def send(
    client: httpx2.AsyncClient, key: str | None = None, **changed: Any
) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {**SIGNAL, **changed}
    given = {name: value for name, value in body.items() if value is not None}
    return await client.post(f"{PREFIX}/signals", json=given, headers=headers)


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(f"{PREFIX}/signals{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(client: httpx2.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(f"{PREFIX}/signals{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_signal_is_judged_with_every_vote_kept(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    sent = await send(client, signal_data={"why": ["trend", 3]}, source_signal_id="one")
    assert sent.status_code == 201, sent.text
    body = sent.json()
    verdict = body["verdict"]
    assert (body["state"], verdict["evaluation"]) == ("approved", "APPROVE")
    assert verdict["board_id"] == "board-1"
    assert 0.6 <= verdict["consensus_score"] < 0.75
    agents = {vote["agent"]: vote for vote in verdict["votes"]}
    assert agents.keys() == {"technical", "fundamental", "market_structure", "risk", "source"}
    assert all(0.02 <= vote["probability"] <= 0.98 for vote in agents.values())
    assert agents["fundamental"]["figures"]["funding_rate"] == -0.6
    assert await get(client, f"/{body['signal_id']}") == body
    assert sent.headers["location"] == f"{PREFIX}/signals/{body['signal_id']}"
    (listed,) = (await get(client, "/processed"))["items"]
    assert listed == body
    assert (await get(client, "/pending"))["items"] == []
    problem(await client.get(f"{PREFIX}/signals/none"), 404, "not_found")


async def test_one_market_input_turns_the_verdict_over(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    informed(desk, drawdown=-0.9)
    forbidden = (await send(client)).json()
    assert (forbidden["state"], forbidden["verdict"]["evaluation"]) == ("rejected", "REJECT")
    assert "vetoed by risk" in forbidden["reason"]
    informed(desk, nearness_to_high=-1.5, funding_rate=3.0)
    assert (await send(client)).json()["verdict"]["evaluation"] == "REJECT"
    informed(desk, nearness_to_high=-1.5, funding_rate=3.0, volatility=2.0, impact=99.0)
    assert (await send(client, signal_direction="SELL")).json()["state"] == "approved"


async def test_strength_and_confidence_have_a_say_in_the_verdict(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    informed(desk, funding_rate=0.5, volume_growth=0.1)
    told = []
    for part in (0.51, 0.75, 0.99):
        body = (await send(client, signal_strength=part, confidence_level=part)).json()
        verdict = body["verdict"]
        (own,) = (vote for vote in verdict["votes"] if vote["is_source"])
        assert own["probability"] == pytest.approx(0.5 + 0.1 * part**2, abs=1e-6)
        assert own["figures"]["trust"] == 0.2
        told.append((verdict["consensus_score"], verdict["evaluation"], body["state"]))
    scores, evaluations, states = zip(*told, strict=True)
    assert scores[0] < scores[1] < scores[2]
    assert evaluations == ("REJECT", "REJECT", "APPROVE")
    assert states == ("rejected", "rejected", "approved")


async def test_the_horizon_is_the_timeframe_and_what_nothing_uses_is_named(
    client: httpx2.AsyncClient,
) -> None:
    cases: tuple[tuple[dict[str, Any] | None, float, list[str]], ...] = (
        (None, 24, []),
        ({"timeframe": "4h", "why": "trend", "rsi": 71}, 4, ["rsi", "why"]),
        ({"timeframe": "15m"}, 1, []),
        ({"timeframe": "2w"}, 14 * 24, []),
        ({"timeframe": "daily"}, 24, ["timeframe"]),
        ({"timeframe": "91d"}, 24, ["timeframe"]),
        ({"timeframe": 4}, 24, ["timeframe"]),
    )
    for data, hours, unused in cases:
        body = (await send(client, signal_data=data)).json()
        window = body["outcome"]
        begins, ends = (datetime.fromisoformat(window[name]) for name in ("starts_at", "ends_at"))
        assert (ends - begins) == timedelta(hours=hours), data
        assert body["unused_fields"] == [f"signal_data.{name}" for name in unused]
        assert (await get(client, f"/{body['signal_id']}"))["unused_fields"] == (
            body["unused_fields"]
        )


async def test_the_data_of_a_signal_is_bounded(client: httpx2.AsyncClient) -> None:
    empty = len('{"note":""}')
    weak: dict[str, Any] = {"signal_strength": 0.0, "confidence_level": 0.0}
    fits = {"note": "x" * (8_192 - empty)}
    assert (await send(client, signal_data=fits, **weak)).json()["signal_data"] == fits
    for note in ("x" * (8_193 - empty), "é" * 1_400):  # a letter beyond ASCII is stored in six
        refused = await send(client, signal_data={"note": note}, **weak)
        found = problem(refused, 422, "validation_failed", extra=frozenset({"errors"}))
        assert located(found) == [{"loc": ["body", "signal_data"], "type": "too_long"}]
    assert len((await get(client, "/processed"))["items"]) == 1


async def test_C12_the_same_signal_twice_is_one(desk: Desk, client: httpx2.AsyncClient) -> None:
    first = await send(client, source_signal_id="one")
    desk.later(days=2)  # it would be expired by now, were it new
    again = await send(client, source_signal_id="one", symbol=None, symbol_id=symbol_id(0))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other = await send(client, source_signal_id="one", signal_strength=0.81)
    said = problem(other, 409, "signal_conflict", extra=frozenset({"signal_id"}))
    assert said["signal_id"] == first.json()["signal_id"]
    informed(desk)
    elsewhere = await send(client, source_signal_id="one", source_name="another desk")
    assert elsewhere.status_code == 201
    assert (await get(client, "/statistics"))["total"] == 2


IMPOSSIBLE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"signal_strength": 1.0001}, "validation_failed"),
    ({"confidence_level": -0.1}, "validation_failed"),
    ({"signal_direction": "UP"}, "validation_failed"),
    ({"symbol_id": "BTCUSDT"}, "validation_failed"),
    ({"signal_timestamp": "2026-03-01T12:00:06Z"}, "validation_failed"),
    ({"signal_timestamp": "2026-03-01T12:00:00"}, "timezone_required"),
    ({"expiry_timestamp": "2026-03-01T12:00:00Z"}, "signal_expired"),
    ({"symbol": "NOPEUSDT"}, "symbol_unknown"),
)


async def test_I23_a_signal_that_cannot_be_is_refused(client: httpx2.AsyncClient) -> None:
    for changed, code in IMPOSSIBLE:
        problem(await send(client, **changed), 422, code, extra=frozenset({"near_matches"}))
    assert (await get(client, "/statistics"))["total"] == 0


async def test_I23_minus_zero_is_zero_and_below_the_threshold(client: httpx2.AsyncClient) -> None:
    content = b'{"source_name":"d","signal_type":"t","signal_strength":1,"confidence_level":-0.0}'
    headers = {"Content-Type": "application/json"}
    sent = await client.post(f"{PREFIX}/signals", content=content, headers=headers)
    assert sent.status_code == 201, sent.text
    assert b'"confidence_level":0.0' in sent.content
    body = sent.json()
    assert (body["state"], body["verdict"]) == ("rejected", None)
    assert "its confidence 0 is below 0.5" in body["reason"]


async def test_without_a_board_a_signal_waits_and_is_judged_later(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    board, desk.boards.board = desk.boards.board, None
    sent = await send(client, "k")
    assert (sent.status_code, sent.json()["state"]) == (202, "validated")
    second = await send(client)
    (one, other) = (await get(client, "/pending"))["items"]
    assert (one["signal_id"], other["signal_id"]) == (
        sent.json()["signal_id"],
        second.json()["signal_id"],
    )
    assert await desk.signals.evaluate_pending() == 0
    desk.boards.board = board
    third = await send(client)
    assert third.status_code == 202, "nobody is judged before those who came first"
    assert await desk.signals.evaluate_pending() == 3
    assert (await get(client, f"/{one['signal_id']}"))["state"] == "approved"
    again = await send(client, "k")
    assert (again.content, again.headers["idempotency-replayed"]) == (sent.content, "true")


async def test_a_full_queue_answers_429_and_says_when_to_come_back(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    changed = await client.patch(f"{PREFIX}/configuration", json={"signals": {"max_pending": 2}})
    assert changed.json()["configuration"]["signals"]["max_pending"] == 2
    board, desk.boards.board = desk.boards.board, None
    for name in ("one", "two"):
        assert (await send(client, source_signal_id=name)).status_code == 202
    full = await send(client, source_signal_id="three")
    problem(full, 429, "rate_limited", extra=frozenset({"retry_after_s"}))
    assert int(full.headers["retry-after"]) > 0
    assert (await send(client, source_signal_id="one")).status_code == 200, "it has been taken"
    desk.boards.board = board
    await desk.signals.evaluate_pending()
    assert (await send(client, source_signal_id="three")).status_code == 201


async def test_what_nobody_can_judge_fails_and_can_be_tried_again(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    informed(desk, volatility=None, impact=None)
    failed = (await send(client)).json()
    assert (failed["state"], failed["attempts"]) == ("failed", 1)
    assert "only 0% of the weight has voted" in failed["reason"]
    agents = [vote for vote in failed["verdict"]["votes"] if not vote["is_source"]]
    assert {vote["probability"] for vote in agents} == {None}
    informed(desk)
    assert await post(client, "/reprocess-failed", max_retries=3) == {"queued": 1, "expired": 0}
    assert (await get(client, "/pending"))["items"][0]["signal_id"] == failed["signal_id"]
    await desk.signals.evaluate_pending()
    after = await get(client, f"/{failed['signal_id']}")
    assert (after["state"], after["attempts"]) == ("approved", 2)
    assert all(vote["probability"] for vote in after["verdict"]["votes"])


async def test_retries_end_and_so_does_time(desk: Desk, client: httpx2.AsyncClient) -> None:
    desk.stale(BEST)
    one = (await send(client)).json()
    assert (one["state"], one["verdict"]) == ("failed", None)
    assert f"the market data of {BEST} is too old" in one["reason"]
    for left in (1, 0):
        assert (await post(client, "/reprocess-failed", max_retries=1))["queued"] == left
        await desk.signals.evaluate_pending()
    desk.later(days=2)
    assert await post(client, "/reprocess-failed", max_retries=9) == {"queued": 0, "expired": 1}
    assert (await get(client, f"/{one['signal_id']}"))["state"] == "expired"


async def test_what_waits_too_long_expires(desk: Desk, client: httpx2.AsyncClient) -> None:
    desk.boards.board = None
    ends = (desk.now + timedelta(minutes=1)).isoformat()
    one = (await send(client, expiry_timestamp=ends)).json()
    other = (await send(client)).json()
    desk.later(minutes=2)
    assert await desk.signals.evaluate_pending() == 1
    assert (await get(client, f"/{one['signal_id']}"))["state"] == "expired"
    assert (await get(client, f"/{other['signal_id']}"))["state"] == "validated"


async def test_cleaning_up_ends_what_is_over_and_keeps_what_was_approved(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    kept = (await send(client)).json()
    gone = (await send(client, signal_strength=0.1)).json()
    desk.boards.board = None
    late = (await send(client)).json()
    desk.later(days=3)
    assert await post(client, "/cleanup") == {"expired": 1, "removed": 0}
    assert (await get(client, f"/{late['signal_id']}"))["state"] == "expired"
    assert await post(client, "/cleanup", older_than_days=1) == {"expired": 0, "removed": 2}
    problem(await client.get(f"{PREFIX}/signals/{gone['signal_id']}"), 404, "not_found")
    assert (await get(client, f"/{kept['signal_id']}"))["state"] == "approved"


async def test_statistics_count_states_sources_and_votes(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await send(client)
    await send(client, source_name="other", signal_strength=0.1)
    informed(desk, drawdown=-0.9)
    await send(client)
    found = await get(client, "/statistics", days=7)
    assert (found["total"], found["states"]) == (3, {"approved": 1, "rejected": 2})
    assert found["evaluations"] == {"APPROVE": 1, "REJECT": 1}
    sources = [{name: one[name] for name in ("source", "states")} for one in found["sources"]]
    assert sources == [
        {"source": "desk", "states": {"approved": 1, "rejected": 1}},
        {"source": "other", "states": {"rejected": 1}},
    ]
    agents = {one["agent"]: one for one in found["agents"]}
    assert (agents["risk"]["votes"], agents["risk"]["vetoes"]) == (2, 1)
    assert agents["fundamental"]["dissents"] == 1, "it approved what risk forbade"
    assert agents["fundamental"]["abstentions"] == 0
    nothing = {"outcomes": 0, "brier_score": None, "skill": None, "calibration_error": None}
    assert [one["records"] for one in found["sources"]] == [[], []]
    assert "source" not in agents
    assert agents["risk"]["record"] == {**nothing, "calibration": []}
    assert (found["is_skill_weighted"], agents["risk"]["weight"]) == (False, None)
    assert found["outcomes"] == {"open": 2, "decided": 0, "unknown": 0}
    desk.later(days=8)
    assert (await get(client, "/statistics", days=7))["total"] == 0


async def test_lists_are_paged(desk: Desk, client: httpx2.AsyncClient) -> None:
    for number in range(5):
        await send(client, symbol=SYMBOLS[number])
        desk.later(seconds=1)
    for number in range(5):
        desk.boards.board = None
        await send(client, symbol=SYMBOLS[number])
    for path in ("/pending", "/processed"):
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await get(client, path, limit=2, **cursor)
            seen += [one["symbol"] for one in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert sorted(seen) == sorted(SYMBOLS[:5])
    assert seen == [*reversed(SYMBOLS[:5])], "processed: the last first"


@pytest.mark.parametrize("waits", [False, True])
async def test_the_scope_signals_alone_proposes_whatever_the_settings_automate(
    database: Database, waits: bool
) -> None:
    """A trader's signal is applied by itself; the same one of a narrow key is only proposed."""
    desk = await eight_members(database)
    keys = KeyDesk(database)
    await put(desk, automation="auto")
    await by_skill(desk)
    callers = {
        "narrow": await keys.issue("tv", None, Scope.SIGNALS),
        "viewing": await keys.issue("eye", Role.VIEWER, Scope.SIGNALS),
        "trading": await keys.issue("engine", Role.TRADER),
    }
    state = {"my_symbols": desk, AUTHENTICATOR: keys.ring}
    effects = {}
    async with serve([signals.router], state) as client:
        for number, (name, token) in enumerate(callers.items()):
            board = desk.boards.board
            if waits:  # for a board: judged later, from the database
                desk.boards.board = None
            body = {**SIGNAL, "symbol": SYMBOLS[10 + number]}
            sent = await client.post(f"{PREFIX}/signals", json=body, headers=bearer(token))
            assert sent.status_code == (202 if waits else 201), sent.text
            desk.boards.board = board
            await desk.signals.process_queue()
            before = await version(desk)
            while await desk.signal_actions.apply_approved():
                pass
            path = f"{PREFIX}/signals/{sent.json()['signal_id']}"
            found = (await client.get(path, headers=bearer(callers["viewing"]))).json()
            assert found["verdict"]["evaluation"] is not None, "it is judged all the same"
            effect = found["effect"]
            effects[name] = (found["state"], effect["automation"], await version(desk) - before)
            assert (effect["proposal_id"] is None) is (name == "trading")
    assert effects == {
        "narrow": ("approved", "propose", 0),
        "viewing": ("approved", "propose", 0),
        "trading": ("applied", "auto", 1),
    }
