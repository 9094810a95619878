"""A third-party client and ours ask the same exchange and understand the same."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ccxt.async_support
import pytest

from app.market.domain.models import ContractStatus, Interval
from tests.adapters.kucoin.harness import VirtualTime, asking, local_exchange

DAY = Interval.DAY.ms
SAMPLE = 40


@asynccontextmanager
async def third_party(url: str) -> AsyncIterator[Any]:
    client = ccxt.async_support.kucoinfutures({"enableRateLimit": False})
    client.has["fetchCurrencies"] = False  # coins are listed by the spot host
    client.urls["api"] = dict.fromkeys(client.urls["api"], url)
    try:
        yield client
    finally:
        await client.close()


def same(theirs: float | None, ours: Any) -> bool:
    if theirs is None or ours is None:
        return theirs is None and ours is None
    return math.isclose(float(theirs), float(ours), rel_tol=1e-12)


@pytest.fixture
def frozen() -> VirtualTime:
    """Both clients must see the same instant."""
    return VirtualTime()


async def test_markets_and_tickers_agree(frozen: VirtualTime) -> None:
    async with (
        local_exchange(frozen, contracts=SAMPLE) as local,
        asking(local.url, frozen) as exchange,
        third_party(local.url) as client,
    ):
        markets = {market["id"]: market for market in (await client.load_markets()).values()}
        listing = await exchange.contracts()
        assert {contract.code for contract in listing.contracts} == set(markets)
        assert len(markets) == SAMPLE
        for contract in listing.contracts:
            market = markets[contract.code]
            assert same(market["contractSize"], contract.multiplier)
            assert same(market["precision"]["price"], contract.tick_size)
            assert (market["base"], market["quote"], market["settle"]) == (
                contract.base,
                contract.quote,
                contract.settle,
            )
            assert market["inverse"] is contract.is_inverse
            assert market["active"] is (contract.status is ContractStatus.OPEN)
            assert same(market["limits"]["leverage"]["max"], contract.max_leverage)
        theirs = await client.fetch_tickers()
        by_id = {ticker["info"]["symbol"]: ticker for ticker in theirs.values()}
        assert set(by_id) == set(markets)
        for stats in listing.stats:
            ticker = by_id[stats.code]
            assert same(ticker["last"], stats.last_price)
            assert same(ticker["high"], stats.high_24h)
            assert same(ticker["low"], stats.low_24h)
            assert same(ticker["markPrice"], stats.mark_price)
            assert same(ticker["indexPrice"], stats.index_price)
        quotes = await client.fetch_bids_asks()
        by_id = {ticker["info"]["symbol"]: ticker for ticker in quotes.values()}
        for ours in (await exchange.tickers()).tickers:
            quote = by_id[ours.code]
            assert same(quote["last"], ours.last)
            assert same(quote["bid"], ours.bid)
            assert same(quote["ask"], ours.ask)
            assert same(quote["bidVolume"], ours.bid_lots)
            assert same(quote["askVolume"], ours.ask_lots)


@pytest.mark.parametrize("code", ["XBTUSDTM", "ETHUSDTM"])
async def test_candles_books_and_funding_agree(frozen: VirtualTime, code: str) -> None:
    async with (
        local_exchange(frozen, contracts=SAMPLE) as local,
        asking(local.url, frozen) as exchange,
        third_party(local.url) as client,
    ):
        symbol = next(
            m["symbol"] for m in (await client.load_markets()).values() if m["id"] == code
        )
        contract = (await exchange.contract(code)).contracts[0]
        end = local.sandbox.clock.now_ms() // DAY * DAY
        theirs = await client.fetch_ohlcv(symbol, "1d", end - 100 * DAY, 100)
        series = await exchange.candles(contract, Interval.DAY, end - 100 * DAY, end)
        rows = [row for row in theirs if row[0] < end]
        assert [row[0] for row in rows] == series.opened_ms.tolist()
        assert len(rows) == 100
        for name, column in (("open", 1), ("high", 2), ("low", 3), ("close", 4)):
            assert [row[column] for row in rows] == getattr(series, name).tolist()
        lots = series.volume / float(contract.multiplier)
        assert [row[5] for row in rows] == pytest.approx(lots.tolist())  # theirs are lots

        book = await exchange.book(code)
        other = await client.fetch_order_book(symbol, 100)
        assert [[float(level.price), level.lots] for level in book.bids] == other["bids"]
        assert [[float(level.price), level.lots] for level in book.asks] == other["asks"]
        assert book.sequence == other["nonce"]

        funding = await exchange.funding_now(code)
        rate = await client.fetch_funding_rate(symbol)
        assert same(rate["fundingRate"], funding.rate)
        assert rate["fundingTimestamp"] == funding.settles_ms
