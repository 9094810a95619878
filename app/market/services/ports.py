"""Ports of the market: boards, members of the portfolio, the exchange's REST API and stream."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from app.foundation.data_status import DataSource
from app.market.domain.models import (
    Book,
    CandleSeries,
    Contract,
    ContractListing,
    ExchangeLink,
    ExchangeStatus,
    Funding,
    FundingNow,
    Interval,
    MarkPrice,
    Ticker,
    TickerListing,
)
from app.market.domain.stream import Listener, StreamFacts, Topic


class ScoringRun(Protocol):
    """A board of scores, as far as the market names it to other processes."""

    @property
    def run_id(self) -> str: ...


class SharedBoards(Protocol):
    """Boards in memory, which the market's publisher names and its followers take over."""

    @property
    def complete_board_ready(self) -> asyncio.Event:
        """Set once a complete board was made after the first fill."""
        ...

    def latest_complete(self) -> ScoringRun | None:
        """The newest complete board; None before the first one."""
        ...

    def has_complete_board(self) -> bool: ...

    async def refresh(self) -> object:
        """Takes over the newest stored board. Raises UnavailableError."""
        ...


class PortfolioMembers(Protocol):
    """Symbols of the portfolio, which the list of symbols marks and filters by."""

    async def symbols(self) -> frozenset[str]: ...


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

    async def book(self, code: str) -> Book:
        """Up to 100 levels a side."""
        ...

    async def funding_now(self, code: str) -> FundingNow: ...

    async def funding_history(self, code: str, start_ms: int, end_ms: int) -> tuple[Funding, ...]:
        """Settled rates in [start_ms, end_ms], oldest first."""
        ...

    async def mark_price(self, code: str) -> MarkPrice: ...


class MarketStream(Protocol):
    """What one exchange tells of its market by itself."""

    def want(self, topics: Collection[Topic]) -> None:
        """From now on these, and no others."""
        ...

    def live(self) -> Mapping[Topic, float]:
        """What is heard without having missed anything, and since which monotonic time."""
        ...

    def deaf(self, topics: Collection[Topic]) -> None:
        """These have moved, as others know, and were not told of."""
        ...

    def facts(self) -> StreamFacts: ...

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Until it is cancelled."""
        ...
