"""What the use cases ask of the outside; adapters fit these structurally."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from app.domain.market import (
    Book,
    CandleSeries,
    Contract,
    ContractListing,
    DataSource,
    ExchangeLink,
    ExchangeStatus,
    Funding,
    FundingNow,
    Interval,
    LinkState,
    MarkPrice,
    Ticker,
    TickerListing,
)

__all__ = [
    "Clock",
    "Exchange",
    "ExchangeLink",
    "LinkState",
    "Monotonic",
    "NewId",
]

Clock = Callable[[], datetime]  # aware, UTC
Monotonic = Callable[[], float]  # seconds
NewId = Callable[[], str]  # UUID text


class Exchange(Protocol):
    """Public market data of one exchange.

    Every method raises only errors of `domain.errors` (UnavailableError and its kinds,
    RefusedError for a symbol that the exchange does not know). Records that make no sense are
    reported as rejections, they do not fail the answer.
    """

    @property
    def source(self) -> DataSource: ...

    def link(self) -> ExchangeLink: ...

    async def server_time_ms(self) -> int: ...

    async def status(self) -> ExchangeStatus: ...

    async def contracts(self) -> ContractListing: ...

    async def contract(self, code: str) -> ContractListing: ...

    async def tickers(self) -> TickerListing: ...

    async def ticker(self, code: str) -> Ticker: ...

    async def candles(
        self, contract: Contract, interval: Interval, start_ms: int, end_ms: int
    ) -> CandleSeries:
        """Candles opened in [start_ms, end_ms), the running one included if it is in range."""
        ...

    async def book(self, code: str) -> Book: ...

    async def funding_now(self, code: str) -> FundingNow: ...

    async def funding_history(self, code: str, start_ms: int, end_ms: int) -> tuple[Funding, ...]:
        """Settled rates in [start_ms, end_ms], oldest first."""
        ...

    async def mark_price(self, code: str) -> MarkPrice: ...
