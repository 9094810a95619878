"""Key sets and JSON types of every answer, by hand-written tables and by recorded payloads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import data

SHARED = Path(__file__).resolve().parents[2] / "../shared"
RECORDED = SHARED / "kucoin" / "recorded"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded payloads beside the tree")

# s text, i integer, n number, b bool, l list, - null; several letters: any of them.
CONTRACT = {
    "symbol": "s", "rootSymbol": "s", "type": "s", "firstOpenDate": "i", "expireDate": "i-",
    "settleDate": "i-", "baseCurrency": "s", "quoteCurrency": "s", "settleCurrency": "s",
    "maxOrderQty": "i", "marketMaxOrderQty": "i", "maxPrice": "n", "lotSize": "i",
    "tickSize": "n", "indexPriceTickSize": "n", "multiplier": "n", "initialMargin": "n",
    "maintainMargin": "n", "maxRiskLimit": "i", "minRiskLimit": "i", "riskStep": "i",
    "makerFeeRate": "n", "takerFeeRate": "n", "takerFixFee": "n", "makerFixFee": "n",
    "settlementFee": "-", "isDeleverage": "b", "isQuanto": "b", "isInverse": "b",
    "markMethod": "s", "fairMethod": "s-", "fundingBaseSymbol": "s-", "fundingQuoteSymbol": "s-",
    "fundingRateSymbol": "s-", "indexSymbol": "s", "settlementSymbol": "s-", "status": "s",
    "fundingFeeRate": "n-", "predictedFundingFeeRate": "-", "fundingRateGranularity": "i-",
    "currentFundingRateGranularity": "i-", "effectiveFundingRateCycleStartTime": "i-",
    "fundingRateCap": "n-", "fundingRateFloor": "n-", "dailyInterestRate": "n-", "period": "i-",
    "openInterest": "s", "turnoverOf24h": "n", "volumeOf24h": "n", "markPrice": "n",
    "indexPrice": "n", "lastTradePrice": "n", "nextFundingRateTime": "i-",
    "nextFundingRateDateTime": "i-", "maxLeverage": "i", "sourceExchanges": "l",
    "premiumsSymbol1M": "s-", "premiumsSymbol8H": "s-", "fundingBaseSymbol1M": "s-",
    "fundingQuoteSymbol1M": "s-", "lowPrice": "n", "highPrice": "n", "priceChgPct": "n",
    "priceChg": "n", "k": "n", "m": "n", "f": "n", "mmrLimit": "n", "mmrLevConstant": "n",
    "supportCross": "b", "buyLimit": "n", "sellLimit": "n", "adjustK": "-", "adjustM": "-",
    "adjustMmrLevConstant": "-", "adjustActiveTime": "-", "crossRiskLimit": "n",
    "marketStage": "s", "preMarketToPerpDate": "i-", "marketType": "s", "orderPriceRange": "n",
    "displaySymbol": "s", "displayBaseCurrency": "s",
}  # fmt: skip
TICKER = {
    "sequence": "i", "symbol": "s", "side": "s", "size": "i", "tradeId": "s", "price": "s",
    "bestBidPrice": "s", "bestBidSize": "i", "bestAskPrice": "s", "bestAskSize": "i", "ts": "i",
}  # fmt: skip
BOOK = {"sequence": "i", "symbol": "s", "bids": "l", "asks": "l", "ts": "i"}
TRADE = {
    "sequence": "i", "contractId": "i", "tradeId": "s", "makerOrderId": "s", "takerOrderId": "s",
    "ts": "i", "size": "i", "price": "s", "side": "s",
}  # fmt: skip
FUNDING = {
    "symbol": "s", "granularity": "i", "timePoint": "i", "value": "n", "dailyInterestRate": "n",
    "fundingRateCap": "n", "fundingRateFloor": "n", "period": "i", "fundingTime": "i",
}  # fmt: skip
FUNDING_ROW = {"symbol": "s", "fundingRate": "n", "timepoint": "i"}
MARK = {"symbol": "s", "granularity": "i", "timePoint": "i", "value": "n", "indexPrice": "n"}
SERIES = {"symbol": "s", "granularity": "i", "timePoint": "i", "value": "n"}
RISK = {
    "symbol": "s", "level": "i", "maxRiskLimit": "i", "minRiskLimit": "i", "maxLeverage": "i",
    "initialMargin": "n", "maintainMargin": "n",
}  # fmt: skip


def letter(value: Any) -> str:
    """The type letter of a JSON value."""
    if value is None:
        return "-"
    for kind, sign in ((bool, "b"), (int, "i"), (float, "n"), (str, "s"), (list, "l")):
        if isinstance(value, kind):
            return sign
    return "d"


def check(record: dict[str, Any], table: dict[str, str]) -> None:
    """The record has exactly the keys of the table, of the right types."""
    assert set(record) == set(table)
    for key, allowed in table.items():
        found = letter(record[key])
        assert found in allowed or (found == "i" and "n" in allowed), (key, record[key])


async def test_every_contract_has_the_keys_and_types_of_2026(client: TestClient[Any, Any]) -> None:
    contracts = await data(client, "/api/v1/contracts/active")
    assert len(contracts) == 556
    for contract in contracts:
        check(contract, CONTRACT)
    one = await data(client, "/api/v1/contracts/XBTUSDTM")
    check(one, CONTRACT)


async def test_tickers_books_and_trades(client: TestClient[Any, Any]) -> None:
    tickers = await data(client, "/api/v1/allTickers")
    assert len(tickers) == 556
    for ticker in tickers:
        check(ticker, TICKER)
        assert len(str(ticker["ts"])) == 19
        assert re.fullmatch(r"\d+(\.\d*[1-9])?", ticker["price"]), "no exponent, no tail of zeros"
    check(await data(client, "/api/v1/ticker", symbol="ETHUSDM"), TICKER)
    for depth, rows in (("snapshot", 100), ("depth20", 20), ("depth100", 100)):
        book = await data(client, f"/api/v1/level2/{depth}", symbol="SOLUSDTM")
        check(book, BOOK)
        assert len(str(book["ts"])) == 19
        for side in (book["bids"], book["asks"]):
            assert len(side) >= rows
            assert depth == "snapshot" or len(side) == rows
            for price, size in side:
                assert letter(price) in "in", "prices are numbers in books"
                assert letter(size) == "i"
                assert size >= 1
    trades = await data(client, "/api/v1/trade/history", symbol="XBTUSDTM")
    assert len(trades) == 100
    for trade in trades:
        check(trade, TRADE)
        assert len(str(trade["ts"])) == 19


async def test_funding_mark_series_and_limits(client: TestClient[Any, Any]) -> None:
    check(await data(client, "/api/v1/funding-rate/XBTUSDTM/current"), FUNDING)
    rows = await data(client, "/api/v1/contract/funding-rates", symbol="XBTUSDTM", **{"from": 0},
                      to=2_000_000_000_000)  # fmt: skip
    for row in rows:
        check(row, FUNDING_ROW)
    check(await data(client, "/api/v1/mark-price/XBTUSDTM/current"), MARK)
    for path, symbol in (("premium", ".XBTUSDTMPI"), ("interest", ".XBTINT")):
        page = await data(client, f"/api/v1/{path}/query", symbol=symbol)
        assert set(page) == {"dataList", "hasMore"}
        assert page["hasMore"] is True
        assert len(page["dataList"]) == 10
        for row in page["dataList"]:
            check(row, SERIES)
    page = await data(client, "/api/v1/index/query", symbol=".KXBTUSDT", maxCount=3)
    assert len(page["dataList"]) == 3
    check(page["dataList"][0], SERIES | {"decomposionList": "l"})
    levels = await data(client, "/api/v1/contracts/risk-limit/XBTUSDTM")
    for level in levels:
        check(level, RISK)
    assert [level["level"] for level in levels] == list(range(1, len(levels) + 1))
    assert levels[0]["maxLeverage"] == 125


async def test_status_and_timestamp_are_a_text_and_a_scalar(client: TestClient[Any, Any]) -> None:
    async with client.get("/api/v1/status") as response:
        assert response.content_type == "text/plain"
        assert json.loads(await response.text()) == {
            "code": "200000",
            "data": {"status": "open", "msg": ""},
        }
    moment = await data(client, "/api/v1/timestamp")
    assert letter(moment) == "i"


ENDPOINTS = {
    "GET_v1_contracts_active__2022-05": "/api/v1/contracts/active",
    "GET_v1_contracts_active__2023-11": "/api/v1/contracts/active",
    "GET_v1_contracts_active__2025-08": "/api/v1/contracts/active",
    "GET_v1_contracts_symbol__XBTUSDTM_2024-03": "/api/v1/contracts/XBTUSDTM",
    "GET_v1_contract_funding_rates__IDUSDTM_long_envelope":
        "/api/v1/contract/funding-rates?symbol=IDUSDTM&from=0&to=2000000000000",
    "GET_v1_funding_rate_current__ETHUSDTM_2026-04": "/api/v1/funding-rate/ETHUSDTM/current",
    "GET_v1_interest_query__XBTINT_2024-05": "/api/v1/interest/query?symbol=.XBTINT",
    "GET_v1_level2_snapshot__XBTUSDM_2022-06": "/api/v1/level2/snapshot?symbol=XBTUSDM",
    "GET_v1_ticker__XBTUSDTM_2024-03": "/api/v1/ticker?symbol=XBTUSDTM",
    "GET_v1_trade_history__XBTUSDTM_2024-03": "/api/v1/trade/history?symbol=XBTUSDTM",
    "sdk_rest_public/GET_v1_allTickers": "/api/v1/allTickers",
    "sdk_rest_public/GET_v1_contract_funding_rates":
        "/api/v1/contract/funding-rates?symbol=XBTUSDTM&from=0&to=2000000000000",
    "sdk_rest_public/GET_v1_contracts_active": "/api/v1/contracts/active",
    "sdk_rest_public/GET_v1_contracts_risk_limit_symbol": "/api/v1/contracts/risk-limit/XBTUSDTM",
    "sdk_rest_public/GET_v1_contracts_symbol": "/api/v1/contracts/XBTUSDTM",
    "sdk_rest_public/GET_v1_index_query": "/api/v1/index/query?symbol=.KXBTUSDT",
    "sdk_rest_public/GET_v1_interest_query": "/api/v1/interest/query?symbol=.XBTINT",
    "sdk_rest_public/GET_v1_kline_query": "/api/v1/kline/query?symbol=XBTUSDTM&granularity=480",
    "sdk_rest_public/GET_v1_level2_depthsize": "/api/v1/level2/depth20?symbol=XBTUSDM",
    "sdk_rest_public/GET_v1_level2_snapshot": "/api/v1/level2/snapshot?symbol=XBTUSDM",
    "sdk_rest_public/GET_v1_mark_price_symbol_current": "/api/v1/mark-price/XBTUSDTM/current",
    "sdk_rest_public/GET_v1_premium_query": "/api/v1/premium/query?symbol=.XBTUSDTMPI",
    "sdk_rest_public/GET_v1_status": "/api/v1/status",
    "sdk_rest_public/GET_v1_ticker": "/api/v1/ticker?symbol=XBTUSDM",
    "sdk_rest_public/GET_v1_timestamp": "/api/v1/timestamp",
    "sdk_rest_public/GET_v1_trade_history": "/api/v1/trade/history?symbol=XBTUSDTM",
}  # fmt: skip
# Keys whose value was a number until 2025 and is null since, or the other way round.
NULLED = {"predictedFundingFeeRate", "settlementSymbol"}
# The envelope variant with more keys, and the rate that 2025 still predicted.
OLD_KEYS = {"success", "msg", "retry", "predictedValue"}


def agree(theirs: Any, ours: Any, where: str) -> None:
    """Every key they have, we have, with a value of the same JSON type."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), where
        for key, value in theirs.items():
            if key in OLD_KEYS and key not in ours:
                continue
            assert key in ours, f"{where}.{key}"
            if key not in NULLED and value is not None and ours[key] is not None:
                agree(value, ours[key], f"{where}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), where
        if theirs and isinstance(theirs[0], list | dict):
            for item in theirs:
                agree(item, _counterpart(item, ours), where)
        elif theirs:
            for index, value in enumerate(theirs[: len(ours)]):
                agree(value, ours[index], f"{where}[{index}]")
    else:
        kinds = {letter(theirs), letter(ours)}
        assert len(kinds) == 1 or kinds == {"i", "n"}, (where, theirs, ours)


def _counterpart(item: Any, ours: list[Any]) -> Any:
    """Our record of the same symbol, else our first."""
    if isinstance(item, dict):
        same = (one for one in ours if one.get("symbol") == item.get("symbol"))
        return next(same, ours[0])
    return ours[0]


@recorded
@pytest.mark.parametrize("name", sorted(ENDPOINTS))
async def test_recorded_payloads_agree(client: TestClient[Any, Any], name: str) -> None:
    theirs = json.loads((RECORDED / f"{name}.json").read_text())
    async with client.get(ENDPOINTS[name]) as response:
        ours = await response.json(content_type=None)
    agree(theirs, ours, name)


@recorded
async def test_the_names_are_the_real_ones(client: TestClient[Any, Any]) -> None:
    real = json.loads((SHARED / "kucoin" / "lists" / "open_symbols_2026.json").read_text())
    ours = {contract["symbol"] for contract in await data(client, "/api/v1/contracts/active")}
    assert {name for name in ours ^ set(real) if not name.startswith("XBTM")} == set()
