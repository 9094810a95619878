"""Last prices of another exchange through ccxt, an optional package imported only here."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

import ccxt.pro as exchanges
from ccxt.base.errors import BaseError

from app.foundation.errors import Code, UnavailableError
from app.market.domain.reference_prices import ReferencePrice

# Our name -> ccxt's, and the quote currencies that count as USDT, the best first.
EXCHANGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "binance": ("binanceusdm", ("USDT",)),
    "kraken": ("kraken", ("USDT", "USD")),
    "coinbase": ("coinbase", ("USDT", "USD")),
}
# Streams of all markets at once; the others need a list of markets.
_STREAMS_ALL: Final = frozenset({"binance"})
_RETRY_S: Final = 60.0
_SILENCE: Final = 3.0  # allowed silence of a stream, in time-outs of an answer
# Errors that ccxt raises itself on malformed answers.
_NONSENSE: Final = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError)


@dataclass(slots=True)
class CcxtPrices:
    """Prices of one exchange; `now_ms` stamps prices without a time.

    `bases` names the coins to read; empty means all.
    """

    name: str
    client: Any
    quotes: tuple[str, ...]
    now_ms: Callable[[], int]
    timeout_s: float
    bases: Callable[[], Collection[str]]
    _named: list[str] | None = field(default=None, init=False)  # markets of the open stream
    _seen: dict[str, object] = field(default_factory=dict, init=False)  # last ticker of each market

    @property
    def streams(self) -> bool:
        """True if the exchange streams its prices."""
        return bool(self.client.has.get("watchTickers"))

    async def prices(self) -> Mapping[str, ReferencePrice]:
        """Prices by base coin; values that are not positive are left out.

        Raises UnavailableError; an answer with a malformed number is refused whole.
        """
        try:
            await self.client.load_markets()
            tickers = await self.client.fetch_tickers()
        except (BaseError, *_NONSENSE) as error:
            raise self._unavailable() from error
        return self._best(tickers)

    async def updates(self) -> Mapping[str, ReferencePrice]:
        """Streamed prices by base coin since the last call, as soon as one arrives.

        Opens the stream if needed. Raises UnavailableError when it breaks or stays silent
        too long; call `close_stream` then.
        """
        try:
            await self.client.load_markets()
            if self._named is None and self.name not in _STREAMS_ALL:
                self._named = self._wanted()
            async with asyncio.timeout(_SILENCE * self.timeout_s):
                await self.client.watch_tickers(self._named)
        except (TimeoutError, BaseError, *_NONSENSE) as error:
            raise self._unavailable() from error
        # ccxt keeps the newest ticker of each market.
        fresh = {
            symbol: ticker
            for symbol, ticker in self.client.tickers.items()
            if self._seen.get(symbol) is not ticker
        }
        self._seen.update(fresh)
        return self._best(fresh)

    async def close_stream(self) -> None:
        """Close the stream; the next `updates` opens another one."""
        self._named = None
        with suppress(TimeoutError):  # a missing close frame does not matter
            async with asyncio.timeout(self.timeout_s):
                await self.client.close_ws_clients()

    def _wanted(self) -> list[str]:
        """One market of each coin, in the best available currency."""
        wanted, found = set(self.bases()), dict[str, str]()
        for quote in reversed(self.quotes):
            for symbol, market in self.client.markets.items():
                if _is_priced(market, quote) and (not wanted or market["base"] in wanted):
                    found[market["base"]] = symbol
        return sorted(found.values())

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(
            Code.EXCHANGE_UNAVAILABLE,
            f"{self.name} gives no reference prices.",
            retry_after_s=_RETRY_S,
        )

    def _best(self, tickers: Mapping[str, Any]) -> Mapping[str, ReferencePrice]:
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
        if market is None or not _is_priced(market, quote):
            return None
        price = _positive(ticker.get("last"))
        if price is None:
            return None
        stamp = ticker.get("timestamp")
        at_ms = self.now_ms() if stamp is None else int(stamp)
        return ReferencePrice(self.name, str(market["base"]), quote, price, at_ms)


@asynccontextmanager
async def open_reference(
    name: str,
    base_url: str | None,
    timeout_s: float,
    now_ms: Callable[[], int],
    bases: Callable[[], Collection[str]] = tuple,
) -> AsyncIterator[CcxtPrices]:
    """Open the exchange called `name`, at `base_url` instead of its own address if given."""
    ccxt_name, quotes = EXCHANGES[name]
    client = getattr(exchanges, ccxt_name)({"timeout": round(timeout_s * 1000)})
    client.aiohttp_trust_env = True
    client.has["fetchCurrencies"] = False  # needs an API key, and no price depends on it
    if base_url is not None:
        client.urls["api"] = _moved(client.urls["api"], base_url)
    try:
        yield CcxtPrices(name, client, quotes, now_ms, timeout_s, bases)
    finally:
        await client.close()


def _is_priced(market: Mapping[str, Any], quote: str) -> bool:
    """True if a market prices a coin in `quote`: spot, or a linear perpetual."""
    is_coin = market.get("spot") or (market.get("swap") and market.get("linear"))
    return bool(is_coin) and market["quote"] == quote


def _moved(address: Any, base_url: str) -> Any:
    """The same API address at another host; streams use `ws` for `http`."""
    if isinstance(address, dict):
        return {kind: _moved(one, base_url) for kind, one in address.items()}
    if not isinstance(address, str):
        return address
    parts, base = urlsplit(address), base_url.rstrip("/")
    if parts.scheme in {"ws", "wss"}:
        base = "ws" + base.removeprefix("http")
    return base + parts.path


def _positive(value: Any) -> Decimal | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        return None
    return price if price.is_finite() and price > 0 else None
