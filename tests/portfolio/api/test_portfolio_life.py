"""Replacement, correlation and safety over HTTP, on real databases and the real services."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus, Interval
from app.operations.api.system_routes import integrity_router
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import membership_routes as portfolio_replacement
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.scoring.storage.runs import ScoringRepository
from app.trading.api import routes as portfolio_safety
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, WHO, Desk

MODULES = (
    portfolio,
    portfolio_changes,
    portfolio_rebalance,
    portfolio_replacement,
    portfolio_safety,
)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve(
        [*(one.router for one in MODULES), integrity_router], {"my_symbols": desk}
    ) as opened:
        yield opened


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(f"{PREFIX}/portfolio{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(client: httpx2.AsyncClient, path: str, **body: Any) -> httpx2.Response:
    return await client.post(f"{PREFIX}/portfolio{path}", json=body)


async def test_replacements_say_what_is_in_the_way(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(10)
    shown = await get(client, "/replacements")
    assert (shown["version"], shown["required_confirmations"]) == (1, 3)
    assert shown["data_status"] == "fresh"
    first, second = shown["replacements"]
    replaced = (first["replace_symbol"], second["replace_symbol"])
    assert replaced == (SYMBOLS[9], SYMBOLS[8])
    assert first["candidate_symbol"] == SYMBOLS[10]
    assert second["candidate_symbol"] == SYMBOLS[11]
    assert first["score_improvement"] == pytest.approx(-0.015)
    assert first["confirmations"] == 0
    assert (first["forced"], first["reason"]) == (False, None)
    cost = 2 * (0.0006 + 0.001) * 10_000 / (4 * 28)
    assert (first["noise_z"], first["cost_z"]) == (0.0, pytest.approx(cost))
    assert first["threshold_z"] == pytest.approx(cost)
    assert first["blocked_by"] == ["improvement_too_small", "unconfirmed", "min_holding"]
    board = desk.boards.board
    assert board is not None
    cards = tuple(replace(one, noise=0.3) for one in board.cards)
    desk.boards.board = replace(board, cards=cards)
    first = (await get(client, "/replacements"))["replacements"][0]
    assert first["noise_z"] == pytest.approx(0.3 * 2**0.5)
    assert first["threshold_z"] == pytest.approx(1.45 * 0.3 * 2**0.5 + cost)
    desk.boards.board = replace(board, cards=tuple(replace(one, noise=None) for one in board.cards))
    first = (await get(client, "/replacements"))["replacements"][0]
    assert (first["threshold_z"], first["recommendation_strength"]) == (None, None)
    assert first["blocked_by"] == ["noise_unknown", "unconfirmed", "min_holding"]
    desk.status(SYMBOLS[3], ContractStatus.BEING_SETTLED)
    forced = (await get(client, "/replacements"))["replacements"][0]
    assert (forced["replace_symbol"], forced["forced"]) == (SYMBOLS[3], True)
    assert (forced["reason"], forced["blocked_by"]) == ("the contract is BeingSettled", [])
    assert forced["recommendation_strength"] == 1.0


async def test_replacements_of_old_data_are_shown_as_such(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(10)
    desk.later(hours=2)
    shown = await get(client, "/replacements")
    assert {one["blocked_by"][0] for one in shown["replacements"]} == {"market_data_stale"}


async def test_a_manual_replace_keeps_to_the_sector_limit(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(10)
    newcomer = SYMBOLS[20]
    for symbol in (*SYMBOLS[:4], newcomer):
        desk.quote(symbol, sector="memes")
    refused = await post(client, "/replace-symbol", old_symbol=SYMBOLS[9], new_symbol=newcomer)
    assert problem(refused, 422, "sector_limit")
    assert SYMBOLS[9] in await desk.members()
    like_for_like = await post(
        client, "/replace-symbol", old_symbol=SYMBOLS[0], new_symbol=newcomer
    )
    assert like_for_like.status_code == 200, "without confirmations, holding time or pause"


async def test_I20_what_may_not_come_in(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(9)
    closed, stale = SYMBOLS[20], SYMBOLS[21]
    desk.status(closed, ContractStatus.PAUSED)
    desk.stale(stale)
    expected = {
        "NOSUCHUSDT": (422, "symbol_unknown"),
        closed: (422, "symbol_not_tradable"),
        stale: (503, "market_data_stale"),
        SYMBOLS[0]: (409, "symbol_already_in_portfolio"),
    }
    for symbol, (status, code) in expected.items():
        answer = await post(client, "/add-symbol", symbol=symbol)
        assert problem(answer, status, code, extra=frozenset({"near_matches"}))
        answer = await post(client, "/replace-symbol", old_symbol=SYMBOLS[8], new_symbol=symbol)
        assert problem(answer, status, code, extra=frozenset({"near_matches"}))
    assert await desk.members() == list(SYMBOLS[:9])


async def test_I21_the_empty_cases(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(1)
    only = SYMBOLS[0]
    same = await post(client, "/replace-symbol", old_symbol=only, new_symbol=only)
    assert problem(same, 422, "validation_failed")
    nothing = await post(client, "/rebalance")
    assert nothing.status_code == 200
    assert (nothing.json()["changes"], nothing.json()["total_changes"]) == ([], 0)
    assert (await get(client, ""))["version"] == 1
    assert (await post(client, "/remove-symbol", symbol=only)).status_code == 200
    left = await get(client, "")
    assert (left["size"], left["cash_percentage"]) == (0, 100)


async def test_D21_old_data_of_members_stops_every_decision(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(10)
    before = await get(client, "")
    desk.score({SYMBOLS[9]: 0.98})
    desk.stale(*SYMBOLS[:2])
    done = await post(client, "/rebalance")
    assert done.status_code == 200, "eight of ten members are enough"
    for change in done.json()["changes"]:
        assert change["symbol"] not in SYMBOLS[:2], "a stale member keeps its weight"
    version = (await get(client, ""))["version"]
    desk.stale(SYMBOLS[2])
    calls: tuple[tuple[str, dict[str, str]], ...] = (
        ("/rebalance", {}),
        ("/add-symbol", {"symbol": SYMBOLS[20]}),
        ("/replace-symbol", {"old_symbol": SYMBOLS[9], "new_symbol": SYMBOLS[20]}),
    )
    await desk.configuration.put({"max_portfolio_symbols": 11}, "room for one more", WHO)
    unchanged = (await get(client, ""))["version"]
    for path, body in calls:
        refused = await post(client, path, **body)
        assert problem(refused, 503, "market_data_stale")
        assert refused.headers["retry-after"] == "30"
    after = await get(client, "")
    assert (version, after["version"]) == (unchanged - 1, unchanged)
    assert [one["symbol"] for one in after["members"]] == [
        one["symbol"] for one in before["members"]
    ]
    safety = await get(client, "/safety")
    assert not safety["is_safe"]
    assert [one["code"] for one in safety["issues"]] == ["market_data_stale"]


async def test_a_sound_portfolio_is_safe(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    shown = await get(client, "/safety")
    assert (shown["is_safe"], shown["issues"], shown["warnings"]) == (True, [], [])
    assert shown["tradeable_symbols"] == list(SYMBOLS[:3])


async def test_safety_names_everything_at_once(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(10)
    follow(desk, SYMBOLS[0], SYMBOLS[1])
    desk.status(SYMBOLS[2], ContractStatus.CLOSED)
    desk.stale(SYMBOLS[3])
    desk.score({SYMBOLS[4]: 0.4})
    desk.market.halted = True
    for symbol in SYMBOLS[:5]:
        desk.quote(symbol, sector="unclassified")  # a sector of its own
    await desk.configuration.put({"max_weight_percentage": 10.5}, "lower", WHO)
    shown = await get(client, "/safety")
    issues = {(one["code"], one["symbol"]) for one in shown["issues"]}
    assert {("market_halted", None), ("symbol_not_tradable", SYMBOLS[2])} <= issues
    assert ("weight_above_maximum", SYMBOLS[0]) in issues
    warnings = {(one["code"], one["symbol"]) for one in shown["warnings"]}
    assert {
        ("not_tradeable_contract_open", SYMBOLS[2]),
        ("not_tradeable_data_fresh", SYMBOLS[3]),
        ("not_tradeable_score", SYMBOLS[4]),
        ("sector_crowded", None),
        ("correlation_high", SYMBOLS[0]),
    } <= warnings
    assert shown["tradeable_symbols"] == []


async def test_safety_without_a_board(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    desk.boards.board = None
    assert [one["code"] for one in (await get(client, "/safety"))["issues"]] == ["no_board_yet"]


async def test_a_shown_score_that_is_not_the_stored_one_is_named(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(3)
    board = desk.boards.board
    assert board is not None
    async with desk.database.write() as unit:
        await unit.get(ScoringRepository).save(board, None)
    assert (await get(client, "/integrity"))["ok"]
    first = board.cards[0]
    assert first.composite is not None
    close, far = (replace(first, composite=first.composite - by) for by in (0.09, 0.11))
    desk.boards.board = replace(board, cards=(close, *board.cards[1:]))
    assert (await get(client, "/integrity"))["ok"]
    desk.boards.board = replace(board, cards=(far, *board.cards[1:]))
    wrong = [one for one in (await get(client, "/integrity"))["invariants"] if not one["ok"]]
    assert [one["name"] for one in wrong] == ["scores_are_current"]
    assert first.symbol in wrong[0]["detail"]


def paths(desk: Desk, change: dict[str, Any]) -> None:
    """Daily closes of some symbols, the newest last; NaN is missing."""
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    for symbol, values in change.items():
        close[:, panel.symbols.index(symbol)] = values
    desk.market.panels[Interval.DAY] = replace(panel, close=close)


def path(desk: Desk, symbol: str) -> Any:
    panel = desk.market.panels[Interval.DAY]
    return panel.close[:, panel.symbols.index(symbol)].copy()


def follow(desk: Desk, leader: str, follower: str) -> None:
    paths(desk, {follower: path(desk, leader) * 2.0})


async def test_correlation_over_thirty_days_with_unequal_histories(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(5)
    young, holed, still = path(desk, SYMBOLS[2]), path(desk, SYMBOLS[3]), path(desk, SYMBOLS[4])
    young[:-20] = np.nan
    holed[-10] = np.nan
    still[:] = 5.0
    paths(desk, {SYMBOLS[2]: young, SYMBOLS[3]: holed, SYMBOLS[4]: still})
    follow(desk, SYMBOLS[0], SYMBOLS[1])
    shown = await get(client, "/correlation", days=30)
    a, b, c, d, e = SYMBOLS[:5]
    assert shown["correlations"] == {f"{a}-{b}": pytest.approx(1.0)}
    assert shown["warnings"] == [
        f"{a}-{b}: 1.000 is above 0.8",
        f"{a}-{b}: raw 1.000 is above 0.9",
    ]
    assert (shown["max_correlation"], shown["average_correlation"]) == (
        pytest.approx(1.0),
        pytest.approx(1.0),
    )
    assert len(shown["pairs_without_history"]) == 9
    assert f"{a}-{c}" in shown["pairs_without_history"]
    assert shown["symbols"] == [a, b, c, d, e]
    one = pytest.approx(1.0)
    none = [None] * 5
    assert shown["matrix"] == [[one, one, *none[:3]], [one, one, *none[:3]], none, none, none]
    await desk.configuration.put({"correlation": {"min_common": 19}}, "younger", WHO)
    shown = await get(client, "/correlation", days=30)
    assert f"{a}-{c}" in shown["correlations"]
    assert f"{c}-{d}" not in shown["correlations"], "only 17 returns in common"
    assert {pair for pair in shown["pairs_without_history"] if e not in pair} == {f"{c}-{d}"}
    matrix = np.array(shown["matrix"], dtype=float)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix[0, 2] == shown["correlations"][f"{a}-{c}"]
    assert np.isnan(matrix[4]).all(), "a path that does not move relates to nothing"


async def test_correlation_agrees_with_the_textbook(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    await desk.configuration.put({"correlation": {"basis": "raw"}}, "raw", WHO)
    shown = await get(client, "/correlation", days=30)
    returns = np.array([np.diff(np.log(path(desk, symbol)[-31:])) for symbol in SYMBOLS[:3]])
    np.testing.assert_allclose(np.array(shown["matrix"]), np.corrcoef(returns), atol=1e-12)
    assert shown["basis"] == "raw"


async def test_correlation_of_none_and_of_one(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    empty = await get(client, "/correlation")
    assert (empty["symbols"], empty["matrix"], empty["correlations"]) == ([], [], {})
    assert (empty["average_correlation"], empty["max_correlation"]) == (None, None)
    await desk.portfolio.initialize(1, "start", WHO)
    alone = await get(client, "/correlation")
    assert (alone["symbols"], alone["matrix"]) == ([SYMBOLS[0]], [[1.0]])
    desk.market.panels.clear()
    assert (await get(client, "/correlation"))["matrix"] == [[None]]
