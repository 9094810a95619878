"""The traps of the protocol, one by one, and that no value contradicts another."""

import gzip
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import START_MS, Shop, data, failure

HOUR_MS = 3_600_000
Client = TestClient[Any, Any]


async def contracts_of(client: Client) -> dict[str, dict[str, Any]]:
    return {item["symbol"]: item for item in await data(client, "/api/v1/contracts/active")}


async def test_the_universe_has_the_real_counts_and_odd_names(client: Client) -> None:
    contracts = await contracts_of(client)
    by_settle: dict[tuple[str, str], int] = {}
    for item in contracts.values():
        group = (item["type"], item["settleCurrency"] if not item["isInverse"] else "coin")
        by_settle[group] = by_settle.get(group, 0) + 1
    assert by_settle == {
        ("FFWCSX", "USDT"): 541,
        ("FFWCSX", "USDC"): 7,
        ("FFWCSX", "coin"): 7,
        ("FFICSX", "coin"): 1,
    }
    for symbol, base in (
        ("XBTUSDTM", "XBT"),
        ("4USDTM", "4"),
        ("1MBABYDOGEUSDTM", "1MBABYDOGE"),
        ("1000BONKUSDTM", "1000BONK"),
        ("USUSDTM", "US"),
        ("USDCUSDTM", "USDC"),
        ("ETHBTCUSDTM", "ETHBTC"),
        ("AUSDTM", "A"),
    ):
        assert contracts[symbol]["baseCurrency"] == base
        assert contracts[symbol]["quoteCurrency"] == "USDT"
    assert "BTCUSDTM" not in contracts
    assert max(len(symbol) for symbol in contracts) == 16
    assert contracts["BINANCELIFEUSDTM"]["displaySymbol"] != "BINANCELIFEUSDTM"


async def test_dated_future_has_no_funding(client: Client) -> None:
    dated = next(c for c in (await contracts_of(client)).values() if c["type"] == "FFICSX")
    assert dated["symbol"] == "XBTMZ26"
    assert dated["expireDate"] > START_MS
    for key in ("fundingFeeRate", "fundingRateGranularity", "fundingRateCap", "fairMethod"):
        assert dated[key] is None
    assert dated["nextFundingRateTime"] is None
    path = f"/api/v1/funding-rate/{dated['symbol']}/current"
    assert await failure(client, path) == (200, "415000")
    assert await failure(client, "/api/v1/funding-rate/NOPEUSDTM/current") == (200, "415000")


async def test_inverse_contracts_have_minus_one_and_negative_turnover(client: Client) -> None:
    contracts = await contracts_of(client)
    inverse = contracts["XBTUSDM"]
    assert inverse["multiplier"] == -1
    assert inverse["isInverse"] is True
    assert inverse["rootSymbol"] == inverse["settleCurrency"] == "XBT"
    assert inverse["turnoverOf24h"] < 0
    # Turnover in coins: lots are dollars.
    assert -inverse["turnoverOf24h"] * inverse["markPrice"] == pytest.approx(
        inverse["volumeOf24h"], rel=0.05
    )
    linear = contracts["XBTUSDTM"]
    assert linear["turnoverOf24h"] == pytest.approx(
        linear["volumeOf24h"] * linear["markPrice"], rel=0.05
    )
    assert linear["turnoverOf24h"] > 1e8


async def test_next_funding_is_a_countdown_and_an_instant(client: Client) -> None:
    contracts = await contracts_of(client)
    intervals = set()
    for item in contracts.values():
        if item["type"] == "FFICSX":
            continue
        step = item["currentFundingRateGranularity"]
        intervals.add(step // HOUR_MS)
        assert item["nextFundingRateDateTime"] % step == 0
        left = item["nextFundingRateDateTime"] - START_MS
        assert 0 < left <= step
        assert left <= item["nextFundingRateTime"] < left + 8_000
        assert item["fundingRateFloor"] == -item["fundingRateCap"]
        assert abs(item["fundingFeeRate"]) <= item["fundingRateCap"]
    assert intervals == {1, 4, 8}
    assert contracts["XBTUSDTM"]["fundingRateCap"] == 0.003
    assert contracts["ETHUSDTM"]["fundingRateCap"] == 0.00375
    assert (
        contracts["ENSUSDTM"]["fundingRateGranularity"]
        != (contracts["ENSUSDTM"]["currentFundingRateGranularity"])
    ), "the configured interval may run ahead of the one in force"


async def test_states_other_than_an_ordinary_open_contract(client: Client) -> None:
    contracts = await contracts_of(client)
    assert [c["symbol"] for c in contracts.values() if c["status"] != "Open"] == ["WAVESUSDTM"]
    assert contracts["WAVESUSDTM"]["status"] == "Paused"
    assert contracts["WAVESUSDTM"]["volumeOf24h"] == 0
    leaving = [c for c in contracts.values() if c["expireDate"] and c["type"] == "FFWCSX"]
    assert len(leaving) == 3
    assert all(c["expireDate"] > START_MS and c["status"] == "Open" for c in leaving)
    assert sum(c["marketStage"] == "PRE_MARKET" for c in contracts.values()) == 3
    young = [c for c in contracts.values() if START_MS - c["firstOpenDate"] < 90 * 24 * HOUR_MS]
    assert 8 <= len(young) <= 20


async def test_funding_history_is_newest_first_on_the_grid(client: Client) -> None:
    query = {"symbol": "XBTUSDTM", "from": START_MS - 14 * 24 * HOUR_MS, "to": START_MS}
    rows = await data(client, "/api/v1/contract/funding-rates", **query)
    times = [row["timepoint"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert len(times) == 42
    assert all(time % (8 * HOUR_MS) == 0 for time in times)
    assert len({row["fundingRate"] for row in rows}) > 20
    for missing in ("from", "to"):
        partial = {key: value for key, value in query.items() if key != missing}
        assert (await failure(client, "/api/v1/contract/funding-rates", **partial))[1] == "400100"


async def test_current_funding_is_named_by_its_index_and_settles_as_shown(
    client: Client, whole: Shop
) -> None:
    current = await data(client, "/api/v1/funding-rate/XBTUSDTM/current")
    assert current["symbol"] == ".XBTUSDTMFPI8H"
    assert current["fundingTime"] - current["timePoint"] == current["granularity"]
    assert current["timePoint"] <= START_MS < current["fundingTime"]
    contract = await data(client, "/api/v1/contracts/XBTUSDTM")
    assert contract["fundingFeeRate"] == current["value"]
    whole.exchange.clock.set(current["fundingTime"] + 1)
    rows = await data(
        client,
        "/api/v1/contract/funding-rates",
        symbol="XBTUSDTM",
        **{"from": current["fundingTime"] - 1, "to": current["fundingTime"] + 1},
    )
    assert rows == [
        {
            "symbol": "XBTUSDTM",
            "fundingRate": current["value"],
            "timepoint": current["fundingTime"],
        }
    ]


@pytest.mark.parametrize("symbol", ["XBTUSDTM", "SOLUSDM", "SXPUSDTM", "AUSDTM"])
async def test_all_quotes_stand_on_one_price(client: Client, symbol: str) -> None:
    ticker = await data(client, "/api/v1/ticker", symbol=symbol)
    last, bid, ask = (float(ticker[key]) for key in ("price", "bestBidPrice", "bestAskPrice"))
    assert bid < ask
    assert bid <= last <= ask
    book = await data(client, "/api/v1/level2/depth20", symbol=symbol)
    assert book["bids"][0] == [bid, ticker["bestBidSize"]]
    assert book["asks"][0] == [ask, ticker["bestAskSize"]]
    assert [row[0] for row in book["bids"]] == sorted({row[0] for row in book["bids"]})[::-1]
    assert [row[0] for row in book["asks"]] == sorted({row[0] for row in book["asks"]})
    trade = (await data(client, "/api/v1/trade/history", symbol=symbol))[0]
    assert (trade["price"], trade["side"], trade["size"], trade["tradeId"], trade["ts"]) == (
        ticker["price"],
        ticker["side"],
        ticker["size"],
        ticker["tradeId"],
        ticker["ts"],
    )
    for granularity in (1, 60, 480, 1440, 10080):
        query = {"symbol": symbol, "granularity": granularity}
        row = (await data(client, "/api/v1/kline/query", **query))[-1]
        if granularity >= 60:
            assert row[3] <= last <= row[2]
            assert row[4] == last
    contract = await data(client, f"/api/v1/contracts/{symbol}")
    assert contract["lastTradePrice"] == last
    assert contract["lowPrice"] <= last <= contract["highPrice"]
    assert contract["indexPrice"] == pytest.approx(last, rel=0.005)
    assert contract["markPrice"] == pytest.approx(contract["indexPrice"], rel=0.005)
    mark = await data(client, f"/api/v1/mark-price/{symbol}/current")
    assert (mark["value"], mark["indexPrice"]) == (contract["markPrice"], contract["indexPrice"])
    assert contract["sellLimit"] < last < contract["buyLimit"]


async def test_change_of_24_hours_is_truncated_toward_zero(client: Client) -> None:
    for item in (await contracts_of(client)).values():
        before = item["lastTradePrice"] - item["priceChg"]
        exact = item["priceChg"] / before
        assert abs(item["priceChgPct"]) <= abs(exact) + 1e-9
        assert abs(item["priceChgPct"] - exact) < 1.0001e-4


async def test_answers_travel_gzipped_when_the_client_takes_it(client: Client) -> None:
    plain = {"Accept-Encoding": "identity"}
    async with client.get("/api/v1/contracts/active", headers=plain) as response:
        assert "Content-Encoding" not in response.headers
        body = await response.read()
    zipped = {"Accept-Encoding": "gzip"}
    client.session._auto_decompress = False
    async with client.get("/api/v1/contracts/active", headers=zipped) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        small = await response.read()
    assert len(small) < len(body) / 4
    assert json.loads(gzip.decompress(small)) == json.loads(body)


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/api/v1/unknown", {}, (404, "404000")),
        ("/", {}, (404, "404000")),
        ("/api/v1/ticker", {}, (400, "400100")),
        ("/api/v1/ticker", {"symbol": "BTCUSDTM"}, (200, "200003")),
        ("/api/v1/ticker", {"symbol": "xbtusdtm"}, (200, "200003")),
        ("/api/v1/contracts/BTCUSDTM", {}, (200, "100003")),
        ("/api/v1/mark-price/NOPE/current", {}, (200, "200003")),
        ("/api/v1/contracts/risk-limit/NOPE", {}, (200, "200003")),
        ("/api/v1/level2/depth50", {"symbol": "XBTUSDTM"}, (404, "404000")),
        ("/api/v1/index/query", {"symbol": ".NOPE"}, (200, "200003")),
        ("/api/v1/premium/query", {}, (400, "400100")),
        ("/api/v1/kline/query", {"symbol": "XBTUSDTM"}, (400, "400100")),
        ("/api/v1/kline/query", {"symbol": "XBTUSDTM", "granularity": 3}, (400, "400100")),
        ("/api/v1/kline/query", {"symbol": "XBTUSDTM", "granularity": 360}, (400, "400100")),
        ("/api/v1/kline/query", {"symbol": "XBTUSDTM", "granularity": "1hour"}, (400, "400100")),
        ("/api/v1/kline/query", {"symbol": "NOPE", "granularity": 60}, (200, "200003")),
        (
            "/api/v1/kline/query",
            {"symbol": "XBTUSDTM", "granularity": 60, "from": 2, "to": 1},
            (400, "400100"),
        ),
    ],
)
async def test_errors_carry_kucoins_codes(
    client: Client, path: str, query: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert await failure(client, path, **query) == expected


async def test_a_wrong_method_and_extra_parameters(client: Client) -> None:
    async with client.post("/api/v1/timestamp") as response:
        assert (await response.json())["code"] == "404000"
    async with client.get("/api/v1/bullet-public") as response:
        assert (response.status, (await response.json())["code"]) == (404, "404000")
    async with client.post("/api/v1/bullet-private") as response:
        assert (response.status, (await response.json())["code"]) == (404, "404000")
    assert await data(client, "/api/v1/timestamp", nonsense=1) == START_MS
