"""Ports of market data: scoring boards, portfolio members, the exchange's REST API and stream."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from app.foundation.data_status import DataSource
from app.market.domain.models import (
    Book,
    CandleSeries,
    Contract,
    ContractListing,
    CurrentFunding,
    ExchangeLink,
    ExchangeStatus,
    Funding,
    Interval,
    MarkPrice,
    Ticker,
    TickerListing,
)
from app.market.domain.stream import Listener, StreamStatus, StreamTopic


class ScoringRun(Protocol):
    """Scoring run, as far as the market publishes it to other processes."""

    @property
    def run_id(self) -> str: ...


class SharedBoards(Protocol):
    """Boards in memory, announced by the market's publisher and loaded by its followers."""

    @property
    def complete_board_ready(self) -> asyncio.Event:
        """Event that is set with the first complete board after the first fill."""
        ...

    def latest_complete(self) -> ScoringRun | None:
        """Returns the newest complete board; None before the first one."""
        ...

    def has_complete_board(self) -> bool: ...

    async def refresh(self) -> object:
        """Loads the newest stored board. Raises UnavailableError."""
        ...


class PortfolioMembers(Protocol):
    """Symbols of the portfolio, for marking and filtering in the list of symbols."""

    async def symbols(self) -> frozenset[str]: ...


class Exchange(Protocol):
    """Public market data of one exchange.

    Every method raises only errors of `foundation.errors`: UnavailableError and its kinds, or
    RefusedError for an unknown symbol. Invalid records become rejections and do not fail the
    answer.
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
        """Returns candles opened in [start_ms, end_ms), a running one included."""
        ...

    async def book(self, code: str) -> Book:
        """Returns up to 100 levels a side."""
        ...

    async def funding_now(self, code: str) -> CurrentFunding: ...

    async def funding_history(self, code: str, start_ms: int, end_ms: int) -> tuple[Funding, ...]:
        """Returns settled rates in [start_ms, end_ms], oldest first."""
        ...

    async def mark_price(self, code: str) -> MarkPrice: ...


class MarketStream(Protocol):
    """Market data stream of one exchange."""

    def want(self, topics: Collection[StreamTopic]) -> None:
        """Replaces the requested topics."""
        ...

    def live(self) -> Mapping[StreamTopic, float]:
        """Returns the topics without a gap, and the monotonic time since which each has none."""
        ...

    def resubscribe(self, topics: Collection[StreamTopic]) -> None:
        """Resubscribes topics that changed at the exchange without an update."""
        ...

    def facts(self) -> StreamStatus: ...

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Runs until cancelled."""
        ...
