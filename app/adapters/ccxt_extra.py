"""Last prices of another exchange through ccxt, an optional package that only we here load."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

import ccxt.async_support as exchanges
from ccxt.base.errors import BaseError

from app.domain.errors import Code, UnavailableError
from app.domain.reference import ReferencePrice

# Our name -> theirs, and the quote currencies whose price stands for one in USDT, the best first.
EXCHANGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "binance": ("binanceusdm", ("USDT",)),
    "kraken": ("kraken", ("USDT", "USD")),
    "coinbase": ("coinbase", ("USDT", "USD")),
}
_RETRY_S: Final = 60.0
# What the package raises itself when an answer is not what it should be.
_NONSENSE: Final = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError)


@dataclass(slots=True)
class CcxtPrices:
    """One exchange; `now_ms` stamps what comes without a time of its own."""

    name: str
    client: Any
    quotes: tuple[str, ...]
    now_ms: Callable[[], int]

    async def prices(self) -> Mapping[str, ReferencePrice]:
        """By base coin; what is not a positive price is left out.

        Raises UnavailableError; an answer with something in it that is no number is refused whole.
        """
        try:
            await self.client.load_markets()
            tickers = await self.client.fetch_tickers()
        except (BaseError, *_NONSENSE) as error:
            raise UnavailableError(
                Code.EXCHANGE_UNAVAILABLE,
                f"{self.name} gives no reference prices.",
                retry_after_s=_RETRY_S,
            ) from error
        found: dict[str, ReferencePrice] = {}
        for quote in reversed(self.quotes):
            for symbol, ticker in tickers.items():
                one = self._price(self.client.markets.get(symbol), ticker, quote)
                if one is not None:
                    found[one.base] = one
        return found

    def _price(
        self, market: Mapping[str, Any] | None, ticker: Mapping[str, Any], quote: str
    ) -> ReferencePrice | None:
        if market is None or market["quote"] != quote:
            return None
        if not market.get("spot") and not (market.get("swap") and market.get("linear")):
            return None
        price = _positive(ticker.get("last"))
        if price is None:
            return None
        stamp = ticker.get("timestamp")
        at_ms = self.now_ms() if stamp is None else int(stamp)
        return ReferencePrice(self.name, str(market["base"]), quote, price, at_ms)


@asynccontextmanager
async def open_reference(
    name: str, base_url: str | None, timeout_s: float, now_ms: Callable[[], int]
) -> AsyncIterator[CcxtPrices]:
    """The exchange called `name`, at `base_url` instead of its own address if one is given."""
    theirs, quotes = EXCHANGES[name]
    client = getattr(exchanges, theirs)({"timeout": round(timeout_s * 1000)})
    client.aiohttp_trust_env = True
    client.has["fetchCurrencies"] = False  # needs a key, and no price depends on it
    if base_url is not None:
        client.urls["api"] = {
            kind: _moved(address, base_url) for kind, address in client.urls["api"].items()
        }
    try:
        yield CcxtPrices(name, client, quotes, now_ms)
    finally:
        await client.close()


def _moved(address: Any, base_url: str) -> Any:
    if not isinstance(address, str):
        return address
    return base_url.rstrip("/") + urlsplit(address).path


def _positive(value: Any) -> Decimal | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        return None
    return price if price.is_finite() and price > 0 else None
