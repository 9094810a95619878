"""A third party's stream client works against the exchange and reads the right values."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from ccxt.pro import kucoinfutures

from tests.sandbox.conftest import Shop, data
from tests.sandbox.streaming import look

Client = TestClient[Any, Any]
PATIENCE_S = 20.0


@pytest.fixture
async def pro(few_client: Client) -> AsyncIterator[Any]:
    base = str(few_client.make_url("")).rstrip("/")
    other = kucoinfutures({"enableRateLimit": False, "timeout": 5000})
    other.urls["api"] = dict.fromkeys(other.urls["api"], base)
    # Currencies come from the spot host, which is no part of this exchange.
    other.has["fetchCurrencies"] = False
    async with asyncio.timeout(PATIENCE_S):
        yield other
        await other.close()


async def test_watch_ticker(pro: Any, few_client: Client, few: Shop) -> None:
    for _ in range(2):
        ticker = await pro.watch_ticker("ETH/USDT:USDT")
        rest = await data(few_client, "/api/v1/ticker", symbol="ETHUSDTM")
        assert ticker["symbol"] == "ETH/USDT:USDT"
        assert ticker["last"] == float(rest["price"])
        assert (ticker["bid"], ticker["ask"]) == (
            float(rest["bestBidPrice"]),
            float(rest["bestAskPrice"]),
        )
        assert ticker["bidVolume"] == rest["bestBidSize"]
        assert ticker["timestamp"] == rest["ts"] // 10**6
        few.clock.now += 10.0


async def test_watch_ohlcv(pro: Any, few_client: Client, few: Shop) -> None:
    running = {}
    for frame, minutes in (("1h", 60), ("1m", 1)):
        (*_, running[frame]) = await pro.watch_ohlcv("BTC/USDT:USDT", frame)
        query = {"symbol": "XBTUSDTM", "granularity": minutes}
        rows = await data(few_client, "/api/v1/kline/query", **query)
        assert running[frame] == rows[-1][:6]
    # The candle that has just closed comes once more before the new one. What the client keeps
    # is looked at: to watch once more would be to wait for a message that has come already.
    few.clock.now += 60.0
    kept = pro.ohlcvs["BTC/USDT:USDT"]["1m"]
    while kept[-1][0] == running["1m"][0]:
        await asyncio.sleep(0.01)
    rows = await data(few_client, "/api/v1/kline/query", symbol="XBTUSDTM", granularity=1)
    assert kept[-1] == rows[-1][:6]
    assert rows[-1][0] == running["1m"][0] + 60_000


async def test_watch_order_book_of_the_best_levels(pro: Any, few_client: Client, few: Shop) -> None:
    few.exchange.clock.set(few.exchange.clock.now_ms(), 0.0)
    book = await pro.watch_order_book("XRP/USDT:USDT", 50)
    rest = await data(few_client, "/api/v1/level2/depth100", symbol="XRPUSDTM")
    assert book["bids"] == [[price, float(lots)] for price, lots in rest["bids"][:50]]
    assert book["asks"] == [[price, float(lots)] for price, lots in rest["asks"][:50]]
    assert book["nonce"] == rest["sequence"]


async def test_watch_order_book_from_a_snapshot_and_its_increments(
    pro: Any, few_client: Client, few: Shop
) -> None:
    watching = asyncio.create_task(pro.watch_order_book("SOL/USDT:USDT"))
    while not few.exchange.books.journals:
        await asyncio.sleep(0.01)
    # The client waits for some increments before it fetches a snapshot.
    few.clock.now += 1.0
    while not watching.done():
        await asyncio.sleep(0.02)
        few.clock.now += 0.25
    book = await watching  # and the client goes on changing it
    for _ in range(3):
        few.clock.now += 1.0
        rest = await data(few_client, "/api/v1/level2/snapshot", symbol="SOLUSDTM")
        while book["nonce"] < rest["sequence"]:
            await asyncio.sleep(0.01)
        theirs = {"bids": dict(map(tuple, book["bids"])), "asks": dict(map(tuple, book["asks"]))}
        assert theirs == {side: dict(map(tuple, rest[side])) for side in ("bids", "asks")}


async def test_watching_many_tickers_and_leaving(pro: Any, few_client: Client) -> None:
    best = await pro.watch_bids_asks(["BTC/USDT:USDT", "ETH/USDT:USDT"])
    (symbol,) = best
    market = pro.market(symbol)["id"]
    rest = await data(few_client, "/api/v1/ticker", symbol=market)
    assert best[symbol]["bid"] == float(rest["bestBidPrice"])
    assert len((await look(few_client))["connections"]) == 1
    await pro.close()
    while (await look(few_client))["connections"]:
        await asyncio.sleep(0.01)
