"""Booked results and figures over HTTP, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx2
import numpy as np
import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus, Funding, Interval
from app.market.storage.market_data import MarketRepository
from app.performance.api import metrics_routes as portfolio_metrics
from app.performance.api import report_routes as portfolio_report
from app.performance.api import routes as portfolio_performance
from app.portfolio.api import portfolio_routes as portfolio
from tests.performance.services.test_backfilled_marks import bar
from tests.portfolio.services.test_portfolio import with_market
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, WHO, Desk, panel

MODULES = (
    portfolio,
    portfolio_metrics,
    portfolio_performance,
    portfolio_report,
)
RESULT = {
    "trade_id": "fill-1",
    "pnl": "12.5",
    "currency": "USDT",
    "fees": "0.5",
    "funding": "-1",
    "occurred_at": "2026-03-01T12:00:00Z",
}

TOO_EARLY = {"occurred_at": "2026-03-01T11:59:59Z"}
TOO_LATE = {"occurred_at": "2026-03-01T12:05:01Z"}


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await Desk(database).filled(3)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as opened:
        yield opened


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    response = await client.get(f"{PREFIX}/portfolio{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def book(
    client: httpx2.AsyncClient, symbol: str = SYMBOLS[0], key: str | None = None, **changed: Any
) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(
        f"{PREFIX}/portfolio/symbols/{symbol}/performance",
        json={**RESULT, **changed},
        headers=headers,
    )


async def test_the_same_trade_gives_the_same_answer(client: httpx2.AsyncClient) -> None:
    first = await book(client, pnl="12.500")
    assert first.status_code == 201
    assert (first.json()["net"], first.json()["symbol"]) == ("11", SYMBOLS[0])
    again = await book(client, "c00-usdt", pnl=12.5)
    assert (again.status_code, again.content) == (201, first.content)
    problem(await book(client, pnl="13"), 409, "trade_id_reused")
    keyed = await book(client, key="k1", trade_id="fill-2")
    replay = await book(client, key="k1", trade_id="fill-2")
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert replay.content == keyed.content
    problem(await book(client, key="k1", trade_id="fill-3"), 422, "idempotency_key_reused")
    page = await get(client, "/trades", limit=1)
    assert [one["trade_id"] for one in page["items"]] == ["fill-2"]
    rest = await get(client, "/trades", limit=1, cursor=page["next_cursor"])
    assert [one["trade_id"] for one in rest["items"]] == ["fill-1"]
    assert rest["next_cursor"] is None
    members = (await get(client, ""))["members"]
    assert [one["realized_pnl"] for one in members] == ["22", None, None]
    booked = {
        "results": 2, "pnl": "25", "fees": "1", "funding": "-2", "net": "22", "currency": "USDT",
    }  # fmt: skip
    positions = (await get(client, "/positions"))["positions"]
    for listed in (members, positions):
        assert [one["booked_since_inclusion"] for one in listed] == [booked, None, None]
    events = (await get(client, "/history", action="PERFORMANCE"))["items"]
    assert [one["details"]["trade"]["trade_id"] for one in events] == ["fill-2", "fill-1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"pnl": "1e5"},
        {"pnl": 1e-19},
        {"pnl": "99999999999999999"},
        {"trade_id": ""},
        {"trade_id": "a b"},
        {"currency": "US D"},
        {"currency": "BTC"},
        {"occurred_at": "2026-03-01T11:00:00"},
        {"tip": 1},
        TOO_EARLY,
        TOO_LATE,
    ],
)
async def test_what_no_result_can_be(client: httpx2.AsyncClient, wrong: dict[str, Any]) -> None:
    refused = await book(client, **wrong)
    assert refused.status_code == 422, refused.text
    body = refused.json()
    is_timed = wrong in (TOO_EARLY, TOO_LATE)
    assert body.get("field") == ("occurred_at" if is_timed else None)
    assert body.get("included_at") == (
        "2026-03-01T12:00:00.000000Z" if wrong is TOO_EARLY else None
    )
    assert ("before the inclusion" in body["detail"]) is (wrong is TOO_EARLY)
    assert ("after the current time" in body["detail"]) is (wrong is TOO_LATE)
    assert (await get(client, "/trades"))["items"] == []


async def test_a_stranger_has_no_results(client: httpx2.AsyncClient) -> None:
    problem(await book(client, SYMBOLS[20]), 409, "symbol_not_in_portfolio")
    problem(
        await book(client, "NOSUCH"),
        422,
        "symbol_unknown",
        extra=frozenset({"near_matches"}),
    )


async def test_positions_equity_and_attribution(desk: Desk, client: httpx2.AsyncClient) -> None:
    await book(client)
    desk.later(hours=13)
    desk.quote(SYMBOLS[0], mark=Decimal(11))
    desk.quote(SYMBOLS[1], mark=None)
    shown = await get(client, "/positions")
    known, unknown, _ = shown["positions"]
    assert known["notional"] == "0.2"
    assert known["unrealized"] == "0.02"
    assert (known["realized_pnl"], unknown["realized_pnl"]) == ("11", None)
    assert (unknown["mark_price"], unknown["unrealized"]) == (None, None)
    assert unknown["reason"] == "its mark price is unknown"
    curve = await get(client, "/equity")
    assert (curve["items"][0]["equity"], curve["items"][-1]["equity"]) == ("1", None)
    assert curve["items"][-1]["reason"] == f"no price of {SYMBOLS[1]} is known"
    desk.quote(SYMBOLS[1], mark=Decimal(10))
    page = await get(client, "/equity", limit=1)
    rest = await get(client, "/equity", cursor=page["next_cursor"])
    assert len(rest["items"]) == len(curve["items"]) - 1
    assert Decimal(rest["items"][-1]["equity"]) == Decimal("1.02")
    late = await get(client, "/equity", **{"from": "2026-03-02T00:30:00Z"})
    assert len(late["items"]) == 1
    assert (await get(client, "/equity", to="2026-01-01T00:00:00Z"))["items"] == []
    attributed = await get(client, "/performance-attribution")
    index, booked = attributed["ledgers"]
    active = attributed["active"]
    assert (active["active_return"], active["sectors"]) == (None, [])
    assert active["reason"] == "there was no whole day with a position in the period"
    for ledger in (index, booked):
        for lines in (ledger["symbols"], ledger["sectors"]):
            assert sum(Decimal(one["contribution"]) for one in lines) == Decimal(ledger["change"])
    assert Decimal(index["change"]) == Decimal("0.02")
    assert booked["unit"] == "USDT"
    assert booked["symbols"][0]["fees"] == "0.5"
    assert index["symbols"][0]["funding"] is None
    await _a_late_mark_is_shown_with_its_source(desk, client)


async def _a_late_mark_is_shown_with_its_source(desk: Desk, client: httpx2.AsyncClient) -> None:
    desk.quote(SYMBOLS[2], mark=None)
    await desk.portfolio.remove(SYMBOLS[2], "out", WHO)
    curve = await get(client, "/equity")
    assert (curve["items"][-1]["equity"], curve["late_marks"]) == (None, [])
    await bar(desk, desk.now - timedelta(hours=1), 8.5, number=2)
    curve, report = await get(client, "/equity"), await get(client, "/report")
    assert Decimal(curve["items"][-1]["equity"]) == Decimal("0.99")
    assert curve["late_marks"] == report["late_marks"]
    assert curve["late_marks"] == [
        {
            "at": "2026-03-02T01:00:00Z",
            "version": 3,
            "symbol": SYMBOLS[2],
            "price": "8.5",
            "source": "hourly_bar",
            "bar_opened_at": "2026-03-02T00:00:00Z",
        }
    ]


async def test_the_active_return_adds_up_as_it_is_sent(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    desk.later(days=5)
    desk.market.panels[Interval.DAY] = panel(Interval.DAY, desk.now)
    active = (await get(client, "/performance-attribution", days=3))["active"]
    assert (active["days"], active["reason"]) == (3, None)
    kinds = ("allocation", "selection", "interaction")
    parts = [Decimal(one[kind]) for one in active["sectors"] for kind in kinds]
    assert sum(parts) == Decimal(active["active_return"]) != 0
    days = {"from": (desk.now - timedelta(days=3)).isoformat()}
    report = await get(client, "/report", **days)
    assert report["active"] == active
    whole = await get(client, "/report")
    months = [one["value"] for one in whole["monthly_returns"]]
    assert [one["month"] for one in whole["monthly_returns"]] == ["2026-03"]
    assert months == [pytest.approx(whole["figures"]["growth"])]
    deepest = whole["drawdowns"][0]
    assert deepest["depth"] == pytest.approx(whole["figures"]["max_drawdown"]) != 0
    assert deepest["peak_at"] < deepest["valley_at"]
    returns = [Decimal(active[name]) for name in ("portfolio_return", "universe_return")]
    assert returns[0] - returns[1] == Decimal(active["active_return"])


async def test_a_period_that_ends_before_it_begins_is_refused(client: httpx2.AsyncClient) -> None:
    query = {"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    for path in ("/positions", "/equity", "/trades"):
        response = await client.get(f"{PREFIX}/portfolio{path}", params=query)
        problem(response, 422, "validation_failed")


async def test_an_empty_portfolio_has_no_curve(database: Database) -> None:
    desk = await Desk(database).open()
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:
        assert (await get(client, "/equity"))["items"] == []
        assert (await get(client, "/positions"))["positions"] == []
        (ledger,) = (await get(client, "/performance-attribution", days=1))["ledgers"]
        assert ledger["reason"] == "there was no position in the period"
        await desk.portfolio.initialize(2, "start", WHO)
        assert len((await get(client, "/equity"))["items"]) == 1


async def test_the_report_as_json(desk: Desk, client: httpx2.AsyncClient) -> None:
    await book(client)
    await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[4], "better", WHO)
    desk.later(hours=13)
    desk.quote(SYMBOLS[1], mark=Decimal(9))
    desk.quote(SYMBOLS[4], mark=Decimal(12))
    made = await get(client, "/report")
    (swap,) = made["replacements"]
    assert (swap["old_symbol"], swap["new_symbol"]) == (SYMBOLS[1], SYMBOLS[4])
    assert swap["difference"] == pytest.approx(0.3)
    assert (swap["net"], swap["outperformed"]) == (None, None)
    assert swap["net_reason"] == f"the funding of {SYMBOLS[1]} since the replacement is unknown"
    assert [one["trade_id"] for one in made["trades"]] == ["fill-1"]
    assert made["figures"]["sharpe"] is made["figures"]["sharpe_standard_error"] is None
    assert made["figures"]["is_sufficient"] is False
    assert Decimal(made["equity"][-1]["equity"]) == Decimal("1.04")
    assert [one["unit"] for one in made["attribution"]] == ["index", "USDT"]
    assert len(made["positions"]) == 3
    later = await get(client, "/report", **{"from": "2026-03-01T23:00:00Z"})
    assert later["trades"] == []
    assert later["positions"][0]["realized_pnl"] is None
    upside_down = {"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    response = await client.get(f"{PREFIX}/portfolio/report", params=upside_down)
    problem(response, 422, "validation_failed")


async def test_the_last_price_of_a_delisted_symbol_stands_in_the_report(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[4], "delisted", WHO)
    desk.later(hours=13)
    desk.quote(SYMBOLS[1], mark=None)
    desk.quote(SYMBOLS[4], mark=Decimal(12))
    (swap,) = (await get(client, "/report"))["replacements"]
    assert swap["reason"] == f"no price of {SYMBOLS[1]} is known"
    assert (swap["difference"], swap["delisted"]) == (None, [])
    desk.status(SYMBOLS[1], ContractStatus.VANISHED)
    (swap,) = (await get(client, "/report"))["replacements"]
    assert swap["delisted"] == [SYMBOLS[1]]
    assert swap["old_return"] == 0.0
    assert swap["difference"] == pytest.approx(0.2)


async def settle(desk: Desk, rate: str, *symbols: str) -> None:
    """Funding every eight hours from before the swap on."""
    ids = {symbol: desk.market.resolve(symbol).symbol_id for symbol in symbols}
    start = round(desk.now.timestamp() * 1000)
    rates = tuple(
        Funding(start + hours * 3_600_000, Decimal(rate), 8 * 3_600_000) for hours in (-1, 7)
    )
    async with desk.database.write() as unit:
        await unit.get(MarketRepository).save_funding(dict.fromkeys(ids.values(), rates))


async def test_the_ledger_of_replacements_is_net_of_their_costs(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    empty = await get(client, "/replacements/ledger")
    assert empty["replacements"] == []
    assert empty["total"] == {
        "net": None,
        "low": None,
        "high": None,
        "counted": 0,
        "unknown": 0,
        "reason": "there are no replacements",
    }
    await settle(desk, "0.0001", SYMBOLS[1], SYMBOLS[2])
    await settle(desk, "0.02", SYMBOLS[4], SYMBOLS[5])
    await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[4], "better", WHO)
    desk.quote(SYMBOLS[5], bid=None)
    await desk.portfolio.replace(SYMBOLS[2], SYMBOLS[5], "nobody knows its spread", WHO)
    desk.later(hours=13)
    desk.quote(SYMBOLS[4], mark=Decimal("10.15"))
    shown = await get(client, "/replacements/ledger")
    first, second = shown["replacements"]
    assert first["fees"] == pytest.approx(2 * 0.0006)
    assert first["spread"] == pytest.approx(2 * 0.001)
    assert first["funding"] == pytest.approx(0.02 - 0.0001)
    assert first["difference"] == pytest.approx(0.015)
    assert first["net"] == pytest.approx(0.015 - 0.0012 - 0.002 - 0.0199)
    assert first["outperformed"] is False, "the prices alone say that it has"
    assert (second["net"], second["outperformed"]) == (None, None)
    assert second["net_reason"] == "the spread at the replacement is unknown"
    assert shown["total"]["net"] == pytest.approx(first["net"])
    assert (shown["total"]["counted"], shown["total"]["unknown"]) == (1, 1)
    assert shown["total"]["low"] is shown["total"]["high"] is None
    assert (await get(client, "/report"))["replacements"] == shown["replacements"]

    desk.score({})
    await settle(desk, "0.0001", SYMBOLS[0], SYMBOLS[6])
    await desk.portfolio.replace(SYMBOLS[0], SYMBOLS[6], "another one", WHO)
    desk.later(hours=1)
    desk.score({})
    again = await get(client, "/replacements/ledger")
    nets = [one["net"] for one in again["replacements"]]
    assert nets == [pytest.approx(first["net"]), None, pytest.approx(-0.0012 - 0.002)]
    total, half = nets[0] + nets[2], 12.7062047 * abs(nets[0] - nets[2])  # t of one degree
    assert again["total"] == {
        "net": pytest.approx(total),
        "low": pytest.approx(total - half),
        "high": pytest.approx(total + half),
        "counted": 2,
        "unknown": 1,
        "reason": "1 of 3 have no net figure and are left out",
    }


async def test_the_report_as_a_page(desk: Desk, client: httpx2.AsyncClient) -> None:
    hostile = "<b>t&1</b>"
    await book(client, trade_id=hostile)
    await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[4], "better", WHO)
    await desk.portfolio.remove(SYMBOLS[4], "out", WHO)
    desk.later(hours=13)
    desk.quote(SYMBOLS[0], mark=None)
    browser = "text/html,application/xhtml+xml,*/*;q=0.8"
    for query, accept in (({"format": "html"}, "application/json"), ({}, browser)):
        response = await client.get(
            f"{PREFIX}/portfolio/report", params=query, headers={"Accept": accept}
        )
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "style-src 'unsafe-inline'" in response.headers["content-security-policy"]
        assert "&lt;b&gt;t&amp;1&lt;/b&gt;" in response.text
        assert hostile not in response.text
        assert "Replacement outcomes" in response.text
        assert f"no price of {SYMBOLS[0]} is known" in response.text
        assert "<svg" in response.text
    for accept in ("*/*", "application/json, text/html"):
        response = await client.get(f"{PREFIX}/portfolio/report", headers={"Accept": accept})
        assert response.headers["content-type"] == "application/json"
    forced = await client.get(
        f"{PREFIX}/portfolio/report", params={"format": "json"}, headers={"Accept": "text/html"}
    )
    assert forced.json()["version"] == 4


async def test_the_report_of_nothing_is_a_page_too(database: Database) -> None:
    desk = await Desk(database).open()
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:
        response = await client.get(f"{PREFIX}/portfolio/report", params={"format": "html"})
        assert "No value is known." in response.text
        assert (await get(client, "/report"))["replacements"] == []


async def test_metrics_of_the_whole(desk: Desk, client: httpx2.AsyncClient) -> None:
    desk.quote(SYMBOLS[0], mark=Decimal(11), sector="meme")
    for symbol in SYMBOLS[1:3]:
        desk.quote(symbol, sector="unclassified")
    made = await get(client, "/metrics")
    assert made["score_metrics"]["highest"] == pytest.approx(0.99)
    assert made["sector_analysis"]["weights"] == {"meme": 20, "unclassified": 40}
    assert made["sector_analysis"]["hhi"] == pytest.approx(5 / 9)
    assert made["performance_analysis"]["share_of_gainers"] == pytest.approx(1 / 3)
    would = made["hypothetical"]
    assert (would["hypothetical_days"], would["hypothetical_reason"]) == (119, None)
    # About 1 / sqrt(years).
    assert 0.5 < would["hypothetical_sharpe_standard_error"] * (119 / 365) ** 0.5 < 2.0
    assert made["risk_analysis"]["proxied_days"] == {}
    risk = made["risk_analysis"]
    assert sum(risk["risk_contributions"].values()) == pytest.approx(1.0)
    assert [tail["level"] for tail in risk["tails"]] == [0.95, 0.99]
    assert all(tail["cvar"] >= tail["var"] > 0 for tail in risk["tails"])
    judged = [tail["backtest"] for tail in risk["tails"]]
    assert [(one["window"], one["days"]) for one in judged] == [(90, 29)] * 2
    assert [one["expected"] for one in judged] == pytest.approx([29 * 0.05, 29 * 0.01])
    assert all(one["is_rejected"] is (one["p_value"] < 0.05) for one in judged)
    assert risk["beta_to_btc"] is not None
    assert made["correlation_analysis"]["average_correlation"] is not None


async def test_what_was_not_earned_is_called_hypothetical_wherever_it_is_shown(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    desk.later(minutes=19)
    desk.score({})
    metrics, analytics = await get(client, "/metrics"), await get(client, "/analytics")
    report = await get(client, "/report")
    would, earned = metrics["hypothetical"], metrics["performance_analysis"]
    assert would["hypothetical_sharpe"] is not None, "of 119 days before there was a portfolio"
    assert report["hypothetical"] == would
    for shown in (earned, analytics, report["figures"]):
        ratios = (
            "sharpe",
            "sharpe_standard_error",
            "sortino",
            "calmar",
            "win_rate",
            "profit_factor",
        )
        assert [shown[name] for name in ratios] == [None] * 6
        assert (shown["growth"], shown["max_drawdown"], shown["is_sufficient"]) == (0, 0, False)
        assert shown["ratios_reason"] == "1 observations, 30 are needed"
        assert not would.keys() & shown.keys()
    assert not would.keys() & metrics["risk_analysis"].keys()
    page = await client.get(f"{PREFIX}/portfolio/report", params={"format": "html"})
    assert "Hypothetical: not earned" in page.text
    paths = (await client.get("/openapi.json")).json()["paths"]
    for name in ("metrics", "report"):
        said = paths[f"{PREFIX}/portfolio/{name}"]["get"]["description"]
        assert "nothing of it was earned" in " ".join(said.split())


async def test_a_pair_with_the_market_is_not_applicable_in_every_answer(
    database: Database,
) -> None:
    """It shows no 0, counts in no mean and blocks nobody; the raw figure stands beside it."""
    desk = Desk(database)
    await with_market(desk)
    daily = desk.market.panels[Interval.DAY]
    close = daily.close.copy()
    market, coin = (daily.symbols.index(name) for name in ("BTCUSDT", SYMBOLS[0]))
    close[:, market] **= 0.1
    close[:, market] *= close[:, coin]  # nearly the same moves
    desk.market.panels[Interval.DAY] = replace(daily, close=close)
    await desk.portfolio.initialize(1, "start", WHO)
    for one in SYMBOLS[:2]:
        await desk.portfolio.add(one, "beside the market", WHO)
    pairs, coins = [f"BTCUSDT-{one}" for one in SYMBOLS[:2]], f"{SYMBOLS[0]}-{SYMBOLS[1]}"
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:
        shown = await get(client, "/correlation")
        metrics = (await get(client, "/metrics"))["correlation_analysis"]
        report = (await get(client, "/report"))["correlation"]
        page = (await client.get(f"{PREFIX}/portfolio/report", params={"format": "html"})).text
    own, raw = shown["correlations"], shown["raw_correlations"]
    assert [own[one] for one in pairs] == [None, None]
    assert shown["not_applicable"] == dict.fromkeys(pairs, "is_the_market")
    assert shown["matrix"][0][1:] == [row[0] for row in shown["matrix"][1:]] == [None, None]
    assert shown["average_correlation"] == shown["max_correlation"] == own[coins]
    assert raw.keys() == {*pairs, coins}
    assert shown["average_raw_correlation"] == pytest.approx(sum(raw.values()) / 3)
    assert shown["max_raw_correlation"] == raw[pairs[0]] == shown["raw_matrix"][0][1] > 0.9
    assert shown["average_raw_correlation"] != pytest.approx(own[coins])
    assert [one for one in shown["warnings"] if "raw" in one] == [
        f"{pairs[0]}: raw {raw[pairs[0]]:.3f} is above 0.9"
    ]
    for name in ("average_correlation", "average_raw_correlation"):
        assert metrics[name] == report[name] == shown[name]
    assert metrics["max_raw_correlation"] == shown["max_raw_correlation"]
    assert (metrics["pairs_not_applicable"], metrics["pairs_without_history"]) == (2, 0)
    assert (report["days"], report["basis"]) == (30, "residual")
    assert report["pairs"] == [
        {"pair": one, "correlation": own[one], "raw_correlation": raw[one], "reason": why}
        for one, why in ((pairs[0], "is_the_market"), (pairs[1], "is_the_market"), (coins, None))
    ]
    assert "Correlation of the members" in page
    assert f"<td>not applicable</td><td>{raw[pairs[0]]:.2f}</td>" in "".join(page.split("\n"))


async def test_win_rate_is_the_same_figure_everywhere(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    desk.later(days=40)
    desk.market.panels[Interval.DAY] = panel(Interval.DAY, desk.now)
    desk.score({})
    rates = {
        (await get(client, "/metrics"))["performance_analysis"]["win_rate"],
        (await get(client, "/analytics"))["win_rate"],
        (await get(client, "/report"))["figures"]["win_rate"],
    }
    (rate,) = rates
    assert 0.0 < rate < 1.0


async def test_the_tails_name_the_days_that_were_proxied(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    panel = desk.market.panels[Interval.DAY]
    panel.close[:40, panel.symbols.index(SYMBOLS[0])] = np.nan
    risk = (await get(client, "/metrics"))["risk_analysis"]
    assert risk["proxied_days"] == {SYMBOLS[0]: 40}
    assert risk["common_days"] == 79
    assert risk["tails"][0]["var"] > 0


async def test_metrics_of_nothing_are_null(database: Database) -> None:
    desk = await Desk(database).open()
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:
        made = await get(client, "/metrics")
    assert made["score_metrics"]["average"] is None
    assert made["sector_analysis"]["diversification"] is None
    assert made["performance_analysis"]["win_rate"] is None
    assert made["risk_analysis"]["reason"] == "nothing is held"
