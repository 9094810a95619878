"""Preview over HTTP: equal to what the service says before and after the change; writes nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from app.configuration.api.schemas import SettingsUpdate
from app.configuration.domain.model import Configuration, IntervalSettings
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.foundation.sql.schema import metadata
from app.operations.api import configuration_routes, preview_routes
from app.operations.services.preview import UNSCORED, PreviewRequest
from app.portfolio.api import control_routes, membership_routes, rebalance_routes
from app.portfolio.domain.controls import LockKind
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.scoring.domain.board import Board
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.service_in_process import PATIENCE_S, Running, running, settings_for
from tests.support.trading_desk import SYMBOLS, WHO, Desk

PATH = f"{PREFIX}/portfolio/preview"
ROUTES = (
    preview_routes, configuration_routes, control_routes, membership_routes, rebalance_routes,
)  # fmt: skip
BALANCE = "25000"
PLAN = (
    "triggers", "changes", "total_changes", "turnover", "estimated_cost", "cost_includes_impact",
    "lots", "lot_rule", "waits_until", "cash_percentage", "flags", "would_be_refused",
)  # fmt: skip
Ask = Callable[[str, str, Mapping[str, Any]], Awaitable[Any]]


@pytest.fixture
async def desk(database: Database) -> Desk:
    """Ten members, two of them pinned or banned; a day later prices and scores have moved."""
    desk = await Desk(database).filled()
    await desk.controls.lock(SYMBOLS[3], LockKind.PIN, "we need it", None, WHO)
    await desk.controls.lock(SYMBOLS[12], LockKind.BAN, "never", None, WHO)
    desk.later(days=2)
    for place, mark in ((0, "13"), (1, "8.5"), (4, "11.2"), (9, "10.8")):
        desk.quote(SYMBOLS[place], mark=Decimal(mark))
    desk.score({SYMBOLS[2]: 0.58, SYMBOLS[3]: 0.3, SYMBOLS[7]: 0.4, SYMBOLS[30]: 0.985})
    return desk


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in ROUTES], {"my_symbols": desk}) as opened:
        yield opened


def asking(client: httpx2.AsyncClient) -> Ask:
    async def ask(method: str, path: str, body: Mapping[str, Any]) -> Any:
        answer = await client.request(method, f"{PREFIX}{path}", json=dict(body))
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    return ask


async def said_by_the_service(ask: Ask, get: Callable[[str], Awaitable[Any]]) -> dict[str, Any]:
    """The answer of a dry run and the replacements, in the shape of a previewed state."""
    dry = await ask("POST", "/portfolio/rebalance", {"dry_run": True, "account_balance": BALANCE})
    candidates = await get("/portfolio/replacements")
    return {
        **{name: dry[name] for name in PLAN},
        "replacements": candidates["replacements"],
    }


async def rows(database: Database) -> dict[str, list[Any]]:
    """Every table of the database."""
    async with database.read() as unit:
        found = {
            table.name: sorted(map(repr, await unit.connection.execute(select(table))))
            for table in metadata.sorted_tables
        }
    return {name: lines for name, lines in found.items() if lines}


async def both(
    desk: Desk, client: httpx2.AsyncClient, body: Mapping[str, Any]
) -> tuple[dict[str, Any], Ask, Callable[[str], Awaitable[Any]]]:
    """The preview of a change; it writes nothing, and `before` is what the service says now."""
    ask = asking(client)

    async def get(path: str) -> Any:
        return (await client.get(f"{PREFIX}{path}")).json()

    before, stored = await said_by_the_service(ask, get), await rows(desk.database)
    shown = await ask("POST", "/portfolio/preview", {"account_balance": BALANCE, **body})
    assert await rows(desk.database) == stored
    assert desk.refused == []
    assert {name: shown["before"][name] for name in before} == before
    return shown, ask, get


async def test_without_a_change_both_states_are_what_a_dry_run_says(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    shown, _, _ = await both(desk, client, {})
    assert shown["after"] == shown["before"]
    assert shown["before"]["changes"], "a plan worth comparing"
    assert shown["before"]["replacements"]
    assert (shown["changes"], shown["refusals"], shown["is_rescored"]) == ([], [], False)
    assert (shown["version"], shown["configuration_version"]) == (3, 1)
    assert (shown["data_status"], shown["data_source"]) == ("fresh", "sandbox")
    assert shown["as_of"] is not None
    assert shown["before"]["members"] == list(SYMBOLS[:10])
    weights = {one["symbol"]: one["before"] for one in shown["weights"]}
    assert list(weights) == sorted(SYMBOLS[:10])
    for change in shown["before"]["changes"]:
        assert weights[change["symbol"]]["current"] == change["old"]
        assert weights[change["symbol"]]["planned"] == change["new"]
    scores = {one["symbol"]: one["before"] for one in shown["scores"]}
    assert scores[SYMBOLS[3]] == {"score": 0.3, "rank": 47, "reason": None}
    assert len(scores) == 23, "the best twenty, and members that are not among them"
    same = await client.post(PATH, json={"settings": {"score_tilt": 0.5}})
    assert same.json()["changes"] == []


CHANGES: dict[str, dict[str, Any]] = {
    "tilt": {"settings": {"score_tilt": 2.0}},
    "caps": {"settings": {"max_weight_percentage": 12, "min_weight_percentage": "7.5"}},
    "method": {"settings": {"rebalancing": {"method": "equal"}, "rebalance_threshold": 0.25}},
    "member weights": {
        "settings": {
            "rebalancing": {
                "method": "fixed",
                "fixed_weights": {"C00USDTM": 12.5, SYMBOLS[1].lower(): 17},
            }
        }
    },
    "thresholds": {"settings": {"entry_score": 0.9, "exit_score": 0.86}},
    "replacement": {
        "settings": {
            "replacement_candidates": 5,
            "replacement": {"noise_multiple": 0.1, "confirmations": 1, "min_holding_s": 0},
        }
    },
    "nothing to do": {"settings": {"rebalance_threshold": 100, "rebalancing": {}}},
    "ban": {"locks": {SYMBOLS[0]: {"kind": "ban", "reason": "a rumour"}}},
    "pin": {"locks": {"C07USDTM": {"kind": "pin", "reason": "we stay"}}},
    "unlock": {"locks": {SYMBOLS[3]: {"kind": None}, SYMBOLS[12]: {"kind": None}}},
    "all at once": {
        "settings": {"score_tilt": 1.5, "max_weight_percentage": 15, "exit_score": 0.2},
        "locks": {SYMBOLS[5]: {"kind": "ban", "reason": "x"}, SYMBOLS[3]: {"kind": "watch"}},
    },
}


@pytest.mark.parametrize("name", CHANGES)
async def test_the_state_after_is_what_the_service_says_once_the_change_is_made(
    desk: Desk, client: httpx2.AsyncClient, name: str
) -> None:
    body = CHANGES[name]
    shown, ask, get = await both(desk, client, body)
    assert shown["refusals"] == []
    for symbol, lock in body.get("locks", {}).items():
        path = f"/portfolio/locks/{symbol}"
        if lock["kind"] is None:
            await ask("DELETE", path, {})
        else:
            await ask("PUT", path, {"reason": "preview", **lock})
    if "settings" in body:
        done = await ask("PATCH", "/configuration", body["settings"])
        newest = (await get("/configuration/history"))["items"][0]
        assert shown["changes"] == newest["changes"]
        assert shown["warnings"] == done["warnings"]
    after = await said_by_the_service(ask, get)
    assert {one: shown["after"][one] for one in after} == after
    changed = {one: value for one, value in shown["after"].items() if value != shown["before"][one]}
    assert changed, "the change has an effect"
    assert shown["is_rescored"] is False


async def test_members_leave_with_a_smaller_limit_where_that_is_wished(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    smaller = {"max_portfolio_symbols": 8}
    refused, _, _ = await both(desk, client, {"settings": smaller})
    assert refused["after"] is None
    (refusal,) = refused["refusals"]
    assert (refusal["step"], refusal["code"]) == ("configuration", "portfolio_exceeds_limit")
    assert "The portfolio has 10 members" in refusal["detail"]
    assert all(one["after"] is None for one in (*refused["weights"], *refused["scores"]))
    shown, ask, get = await both(desk, client, {"settings": smaller, "evict_lowest": True})
    await ask("PATCH", "/configuration", {**smaller, "evict_lowest": True})
    after = await said_by_the_service(ask, get)
    assert {one: shown["after"][one] for one in after} == after
    members = shown["after"]["members"]
    assert members == await desk.members()
    assert SYMBOLS[3] in members, "the pinned one stays"
    gone = {one["symbol"] for one in shown["weights"] if one["after"] is None}
    assert gone == {SYMBOLS[2], SYMBOLS[7]}


async def test_a_refused_rebalance_is_said_with_its_reason(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.controls.switch(False, "a halt", WHO)
    off, _, _ = await both(desk, client, {"settings": {"score_tilt": 2.0}})
    assert [(one["step"], one["code"]) for one in off["refusals"]] == [
        ("rebalance", "trading_disabled")
    ]
    assert "a halt" in off["refusals"][0]["detail"]
    assert off["after"]["changes"], "the plan is shown all the same"
    await desk.controls.switch(True, "on", WHO)
    desk.market.state = DataStatus.STALE
    stale, _, _ = await both(desk, client, {"settings": {"score_tilt": 2.0}})
    assert stale["refusals"][0]["code"] == "market_data_stale"
    assert stale["data_status"] == "stale"
    evicting = {"settings": {"max_portfolio_symbols": 8}, "evict_lowest": True}
    stale, _, _ = await both(desk, client, evicting)
    assert (stale["after"], stale["refusals"][0]["step"]) == (None, "configuration")


WRONG: tuple[tuple[dict[str, Any], str, list[str]], ...] = (
    ({"settings": {"score_tilt": 9}}, "validation_failed", ["settings", "score_tilt"]),
    ({"settings": {"tilt": 1}}, "validation_failed", ["settings", "tilt"]),
    (
        {"settings": {"scoring": {"factor_weights": {"tea": 1}}}},
        "validation_failed",
        ["settings", "scoring", "factor_weights", "tea"],
    ),
    (
        {"settings": {"min_weight_percentage": 15}},
        "constraints_infeasible",
        ["settings", "min_weight_percentage"],
    ),
    (
        {"settings": {"family_weights": {"risk": 0.9}}},
        "validation_failed",
        ["settings", "family_weights"],
    ),
    ({"locks": {"NOSUCHUSDT": {"kind": "ban"}}}, "symbol_unknown", ["locks", "NOSUCHUSDT"]),
    ({"locks": {"C20USDT": {"kind": None}}}, "validation_failed", ["locks", "C20USDT"]),
    (
        {"locks": {"C20USDT": {"kind": "ban"}, "C20USDTM": {"kind": "ban"}}},
        "validation_failed",
        ["locks", "C20USDTM"],
    ),
    ({"locks": {"C20USDT": {"kind": "no"}}}, "validation_failed", ["locks", "C20USDT", "kind"]),
    ({"top": -1}, "validation_failed", ["top"]),
    ({"speed": 1}, "validation_failed", ["speed"]),
)


@pytest.mark.parametrize(("body", "code", "place"), WRONG)
async def test_an_invalid_change_is_named(
    client: httpx2.AsyncClient, body: dict[str, Any], code: str, place: list[str]
) -> None:
    refused = problem(await client.post(PATH, json=body), 422, code)
    assert [one["loc"] for one in refused["errors"]] == [["body", *place]]


async def test_without_new_scores_decisions_keep_the_present_board(desk: Desk) -> None:
    """Scoring would be refused, or its board be provisional: the service would go on so."""
    request = PreviewRequest({"max_age_intervals": 5})
    board = desk.boards.board
    assert board is not None
    better = replace(board, run_id="better", cards=board.cards[:20])

    async def refused(_: Configuration) -> Board:
        raise UnavailableError(Code.CLOCK_UNSAFE, "The time is uncertain.")

    async def provisional(_: Configuration) -> Board:
        return replace(better, is_provisional=True)

    async def complete(_: Configuration) -> Board:
        return better

    for rescore, code in ((refused, "clock_unsafe"), (provisional, "no_board_yet")):
        shown = await replace(desk.change_preview, rescore=rescore).preview(request)
        assert [(one.step, one.code) for one in shown.refusals] == [("scoring", code)]
        assert shown.after is not None
        assert shown.after.context.complete_board is board
    shown = await replace(desk.change_preview, rescore=complete).preview(request)
    assert shown.after is not None
    assert (shown.refusals, shown.after.context.complete_board) == ((), better)
    assert shown.before.context.complete_board is board


SCORED: dict[str, dict[str, Any]] = {
    "factor weights": {"scoring": {"factor_weights": {"rsi_14": 0.3, "volume_growth": 0.2}}},
    "family weights": {"family_weights": {"technical": 0.4, "risk": 0.15}},
    "eligibility floor": {"eligibility": {"min_turnover": "120000000"}},
    "impact": {"scoring": {"impact_notional": 200_000}, "score_tilt": 1.0},
    "age limits": {"max_age_intervals": 5},
}


async def test_a_change_of_scores_shows_the_board_that_the_service_then_computes(
    tmp_path: Path,
) -> None:
    """The time of the exchange stands still, so that both score the same market."""
    options = SandboxOptions(contracts=48, speed=0.0, quota=100_000)
    async with serve_exchange(options, time.time) as url:
        settings = settings_for(url, f"sqlite+aiosqlite:///{tmp_path}/preview.sqlite3")
        async with running(settings) as service:
            await prepare(service)
            first = await service.get("/configuration")
            del first["version"]
            for name, changes in SCORED.items():
                async with asyncio.timeout(PATIENCE_S):
                    while not await compared(service, name, changes, first):
                        """Data arrived meanwhile: the two boards rest on different markets."""


async def prepare(service: Running) -> None:
    """A portfolio, a market that is asked once a day, and a clock that stands still."""
    await service.filled()
    slow = {
        "intervals": {one.name: 86_400 for one in fields(IntervalSettings)},
        "automation": {"rebalance": "observe", "replacement": "observe"},
    }
    changed = await service.client.patch(f"{PREFIX}/configuration", json=slow)
    assert changed.status_code == 200, changed.text
    await service.post("/scoring/calculate")
    await service.post("/portfolio/initialize")
    market = service.services.my_symbols.market
    clock, stopped, now = market.server_clock, market.monotonic(), market.clock()
    market.monotonic = clock.monotonic = lambda: stopped
    clock.clock = lambda: now
    await service.post("/scoring/calculate")


async def compared(
    service: Running, name: str, changes: Mapping[str, Any], first: Mapping[str, Any]
) -> bool:
    """Compares a preview with the service after the change; False if the market has changed."""
    live = service.services.my_symbols.market.live

    async def ask(method: str, path: str, body: Mapping[str, Any]) -> Any:
        answer = await service.client.request(method, f"{PREFIX}{path}", json=dict(body))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(path: str) -> Any:
        return await service.get(path)

    async def ranks() -> dict[str, Any]:
        items = (await get("/scoring/rankings?limit=500"))["items"]
        return {one["symbol"]: (one["composite_score"], one["rank"]) for one in items}

    await ask("PATCH", "/configuration", first)
    market = live.market
    await service.post("/scoring/calculate")
    before, ranked = await said_by_the_service(ask, get), await ranks()
    body = {"settings": changes, "account_balance": BALANCE, "top": 1_000}
    shown = await ask("POST", "/portfolio/preview", body)
    unchanged = await ranks()
    await ask("PATCH", "/configuration", changes)
    await service.post("/scoring/calculate")
    after, ranked_after = await said_by_the_service(ask, get), await ranks()
    if live.market is not market:
        return False
    assert shown["is_rescored"], name
    assert shown["refusals"] == [], name
    assert unchanged == ranked, "the preview publishes no board"
    assert {one: shown["before"][one] for one in before} == before, name
    assert {one: shown["after"][one] for one in after} == after, name
    for state, wanted in (("before", ranked), ("after", ranked_after)):
        scores = {
            one["symbol"]: (one[state]["score"], one[state]["rank"])
            for one in shown["scores"]
            if one[state] is not None and one[state]["rank"] is not None
        }
        assert scores == {one: two for one, two in wanted.items() if two[1] is not None}, name
    assert ranked_after != ranked, name
    return True


def test_unscored_settings_are_settings() -> None:
    """A misspelled name would score anew with every change of that setting."""
    assert set(SettingsUpdate.model_fields) >= UNSCORED
