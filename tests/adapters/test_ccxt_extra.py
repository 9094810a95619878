"""Reference prices over a real socket, from a local server in the shape of Binance's futures."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from app.adapters.ccxt_extra import CcxtPrices, open_reference
from app.foundation.errors import Code, UnavailableError
from app.market.domain.reference_prices import ReferencePrice
from tests.adapters.binance import NOW_MS, Binance, local_binance, traded


@pytest.fixture
async def binance() -> AsyncIterator[Binance]:
    async with local_binance() as there:
        yield there


@pytest.fixture
async def prices(binance: Binance) -> AsyncIterator[CcxtPrices]:
    async with open_reference("binance", binance.url, 5.0, lambda: NOW_MS) as opened:
        opened.client.enableRateLimit = False
        yield opened


async def test_the_last_price_of_each_coin_comes_in_one_request(
    binance: Binance, prices: CcxtPrices
) -> None:
    binance.rows = [
        traded("BTCUSDT", "64000.10"),
        traded("ETHUSDT", "3100.5"),
        traded("BTCUSDC", "63000"),
        traded("BTCUSDT_270326", "66000"),
    ]
    found = await prices.prices()
    assert found == {
        "BTC": ReferencePrice("binance", "BTC", "USDT", Decimal("64000.1"), NOW_MS),
        "ETH": ReferencePrice("binance", "ETH", "USDT", Decimal("3100.5"), NOW_MS),
    }
    await prices.prices()
    assert binance.asked == ["/fapi/v1/exchangeInfo", *["/fapi/v1/ticker/24hr"] * 2]


async def test_what_is_no_price_is_left_out(binance: Binance, prices: CcxtPrices) -> None:
    for last in ("0", "-5", None):
        binance.rows = [traded("BTCUSDT", last), traded("ETHUSDT", "3100.5")]
        assert set(await prices.prices()) == {"ETH"}, last


async def test_an_answer_that_makes_no_sense_or_none_at_all_gives_no_prices(
    binance: Binance, prices: CcxtPrices
) -> None:
    for last in ("text", "NaN", "Infinity"):
        binance.rows = [traded("BTCUSDT", last), traded("ETHUSDT", "3100.5")]
        with pytest.raises(UnavailableError):
            await prices.prices()
    for status in (418, 429, 451, 500):
        binance.status = status
        with pytest.raises(UnavailableError) as caught:
            await prices.prices()
        assert caught.value.code is Code.EXCHANGE_UNAVAILABLE
