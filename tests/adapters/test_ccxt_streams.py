"""Reference prices as Binance, Kraken and Coinbase answer and tell them, over real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from app.adapters.ccxt_extra import CcxtPrices, open_reference
from app.foundation.errors import UnavailableError
from app.market.domain.reference_prices import ReferencePrice
from tests.adapters.binance import NOW_MS
from tests.adapters.tellers import BinanceTeller, CoinbaseTeller, KrakenTeller, Teller, telling

# Exchange, its names of two markets in the best currency, and one in another currency.
SHAPES = [
    ("binance", BinanceTeller, ("BTCUSDT", "ETHUSDT"), ("BTC", "ETH"), "BTCUSDC"),
    ("kraken", KrakenTeller, ("BTC/USDT", "SOL/USD"), ("BTC", "SOL"), "BTC/USD"),
    ("coinbase", CoinbaseTeller, ("BTC-USDT", "SOL-USD"), ("BTC", "SOL"), "BTC-USD"),
]
each = pytest.mark.parametrize(("name", "kind", "markets", "bases", "other"), SHAPES)
LATER_MS = NOW_MS + 60_000  # ours: stamps what has no time of its own


@asynccontextmanager
async def opened(
    name: str, there: Teller, bases: tuple[str, ...] = (), timeout_s: float = 5.0
) -> AsyncIterator[CcxtPrices]:
    async with (
        telling(there),
        open_reference(name, there.url, timeout_s, lambda: LATER_MS, lambda: bases) as source,
    ):
        source.client.enableRateLimit = False
        yield source


async def told_on(source: CcxtPrices) -> None:
    """For ever: frames that were on their way may still come."""
    while True:
        await source.updates()


@each
async def test_what_is_asked_and_what_is_told_are_the_same_prices(
    name: str,
    kind: type[Teller],
    markets: tuple[str, str],
    bases: tuple[str, str],
    other: str,
) -> None:
    there = kind(prices=dict(zip((*markets, other), ("64000.5", "150.25", "1"), strict=True)))
    async with opened(name, there, bases) as source:
        assert source.streams
        asked = await source.prices()
        assert {base: one.price for base, one in asked.items()} == {
            bases[0]: Decimal("64000.5"), bases[1]: Decimal("150.25"),
        }  # fmt: skip
        assert {one.exchange for one in asked.values()} == {name}
        told: dict[str, ReferencePrice] = {}
        while set(told) != set(bases):
            told |= await source.updates()
        assert {base: one.price for base, one in told.items()} == {
            base: one.price for base, one in asked.items()
        }
        assert {base: one.quote for base, one in told.items()} == {
            base: one.quote for base, one in asked.items()
        }
        stamp_ms = LATER_MS if name == "kraken" else NOW_MS  # which gives no time with a price
        assert {one.at_ms for one in told.values()} == {stamp_ms}
        await there.tell({markets[0]: "65000.5"})
        news = await source.updates()
        while news.get(bases[0]) == told[bases[0]] or bases[0] not in news:
            news = await source.updates()
        assert news[bases[0]].price == Decimal("65000.5")
        assert bases[1] not in news, "what was not told of again is not as young as the rest"
        assert len(there.streams) == 1


@each
async def test_a_stream_that_was_cut_is_told_so_and_opened_anew(
    name: str,
    kind: type[Teller],
    markets: tuple[str, str],
    bases: tuple[str, str],
    other: str,
) -> None:
    del other
    there = kind(prices={markets[0]: "64000.5"})
    async with opened(name, there, bases) as source:
        assert bases[0] in await source.updates()
        await there.cut()
        with pytest.raises(UnavailableError):
            await told_on(source)
        await source.close_stream()
        there.prices = {markets[0]: "61000.5"}
        assert (await source.updates())[bases[0]].price == Decimal("61000.5")
        there.refuses_streams = True
        await source.close_stream()
        with pytest.raises(UnavailableError):
            await source.updates()
        assert (await source.prices())[bases[0]].price == Decimal("61000.5"), "it still answers"


async def test_a_stream_that_says_nothing_is_given_up() -> None:
    there = KrakenTeller(prices={"BTC/USD": "64000"}, is_mute=True)
    async with opened("kraken", there, ("BTC",), timeout_s=5.0) as source:
        source.timeout_s = 0.05
        with pytest.raises(UnavailableError):
            await source.updates()
        await source.close_stream()
        source.timeout_s, there.is_mute = 5.0, False
        there.prices = {"BTC/USDT": "64000"}
        assert set(await source.updates()) == {"BTC"}


async def test_only_the_coins_that_are_wanted_are_subscribed() -> None:
    there = KrakenTeller(prices={"SOL/USD": "150"})
    async with opened("kraken", there, ("SOL", "NOSUCH")) as source:
        await source.updates()
    (said,) = (one for one in there.said if one.get("method") == "subscribe")
    assert said["params"]["symbol"] == ["SOL/USD"]
