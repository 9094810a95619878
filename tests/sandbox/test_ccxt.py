"""A third party's client works against the exchange and reads the right values."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from ccxt.async_support import kucoinfutures

from tests.sandbox.conftest import START_MS, data

Client = TestClient[Any, Any]


@pytest.fixture
async def ccxt(client: Client) -> AsyncIterator[Any]:
    base = str(client.make_url("")).rstrip("/")
    other = kucoinfutures({"enableRateLimit": False, "timeout": 5000})
    other.urls["api"] = dict.fromkeys(other.urls["api"], base)
    # Currencies come from the spot host, which is no part of this exchange.
    other.has["fetchCurrencies"] = False
    yield other
    await other.close()


async def test_markets(ccxt: Any, client: Client) -> None:
    markets = await ccxt.load_markets()
    assert len(markets) == 556
    contracts = {item["symbol"]: item for item in await data(client, "/api/v1/contracts/active")}
    for market in markets.values():
        contract = contracts[market["id"]]
        assert market["contractSize"] == abs(contract["multiplier"])
        assert market["precision"]["price"] == contract["tickSize"]
        assert market["inverse"] is contract["isInverse"]
        assert market["active"] is (contract["status"] == "Open")
    bitcoin = markets["BTC/USDT:USDT"]
    assert (bitcoin["id"], bitcoin["contractSize"], bitcoin["linear"]) == ("XBTUSDTM", 0.001, True)
    assert markets["BTC/USD:BTC"]["inverse"] is True
    assert markets["BTC/USD:BTC-261225"]["expiry"] == contracts["XBTMZ26"]["expireDate"]


async def test_candles(ccxt: Any, client: Client) -> None:
    day = 86_400_000
    start = START_MS - START_MS % day - 100 * day
    theirs = await ccxt.fetch_ohlcv("BTC/USDT:USDT", "1d", since=start, limit=50)
    query = {"symbol": "XBTUSDTM", "granularity": 1440, "from": start, "to": start + 49 * day}
    ours = await data(client, "/api/v1/kline/query", **query)
    assert theirs == [row[:6] for row in ours]
    hourly = await ccxt.fetch_ohlcv("SOL/USDT:USDT", "1h", since=START_MS - 5 * 3_600_000)
    assert len(hourly) == 5


async def test_tickers(ccxt: Any, client: Client) -> None:
    tickers = await ccxt.fetch_tickers()
    contract = await data(client, "/api/v1/contracts/ETHUSDTM")
    ticker = tickers["ETH/USDT:USDT"]
    assert len(tickers) == 556
    assert ticker["last"] == contract["lastTradePrice"]
    assert ticker["high"] == contract["highPrice"]
    assert ticker["markPrice"] == contract["markPrice"]
    assert ticker["percentage"] == pytest.approx(contract["priceChgPct"] * 100, abs=0.011)
    best = await ccxt.fetch_bids_asks(["ETH/USDT:USDT"])
    raw = await data(client, "/api/v1/ticker", symbol="ETHUSDTM")
    assert best["ETH/USDT:USDT"]["bid"] == float(raw["bestBidPrice"])
    assert best["ETH/USDT:USDT"]["ask"] == float(raw["bestAskPrice"])


async def test_order_book(ccxt: Any, client: Client) -> None:
    book = await ccxt.fetch_order_book("XRP/USDT:USDT", 20)
    raw = await data(client, "/api/v1/level2/depth20", symbol="XRPUSDTM")
    assert book["bids"] == [[price, float(size)] for price, size in raw["bids"]]
    assert book["asks"] == [[price, float(size)] for price, size in raw["asks"]]
    assert book["bids"][0][0] < book["asks"][0][0]
    assert len((await ccxt.fetch_order_book("XRP/USDT:USDT", 100))["asks"]) == 100


async def test_funding(ccxt: Any, client: Client) -> None:
    funding = await ccxt.fetch_funding_rate("ETH/USDT:USDT")
    raw = await data(client, "/api/v1/funding-rate/ETHUSDTM/current")
    assert funding["fundingRate"] == raw["value"]
    assert raw["fundingTime"] in (funding["fundingTimestamp"], funding["nextFundingTimestamp"])
    assert funding["interval"] == "8h"
    history = await ccxt.fetch_funding_rate_history(
        "ETH/USDT:USDT", since=START_MS - 7 * 86_400_000, params={"until": START_MS}
    )
    assert len(history) == 21


async def test_trades_time_and_status(ccxt: Any, client: Client) -> None:
    trades = await ccxt.fetch_trades("BTC/USDT:USDT")
    raw = await data(client, "/api/v1/trade/history", symbol="XBTUSDTM")
    assert [trade["price"] for trade in trades] == [float(row["price"]) for row in raw[::-1]]
    assert await ccxt.fetch_time() == START_MS
