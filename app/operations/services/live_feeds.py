"""Feeds of live topics: tickers of all symbols and the dashboard; nothing of them is stored.

A feed computes only while a reader is subscribed to its topic.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from app.foundation.data_status import DataStatus
from app.foundation.errors import ServiceError
from app.market.domain.models import DELISTED, ContractStats, Ticker
from app.market.domain.symbols import SymbolEntry
from app.market.services.exchange_clock import instant
from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment
from app.market.services.state import LIVE, Received
from app.operations.services.dashboard import Dashboard, dashboard_details
from app.operations.services.event_messages import (
    Details,
    Frame,
    LiveTopic,
    dashboard_frame,
    ticker_row,
    tickers_frame,
)
from app.operations.services.event_stream import EventStream

STEP_S: Final = 1.0  # both topics send at most one message in this time
_log = structlog.get_logger("stream")
Inputs = tuple[Received[ContractStats] | None, Received[Ticker] | None, DataStatus]


@dataclass(slots=True)
class TickerFeed:
    """Publishes the tickers that changed since the last message, all in one; no I/O.

    A later time of an unchanged value is no change; a changed status is one.
    """

    market: MarketData
    stream: EventStream
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _inputs: dict[str, Inputs] = field(default_factory=dict)  # as last seen, by symbol
    _rows: dict[str, Details] = field(default_factory=dict)  # as last sent, by symbol

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            self.publish_changes()
            beat()
            await self.sleep(STEP_S)

    def publish_changes(self) -> None:
        """Publishes one message if a ticker changed, appeared, vanished or became stale."""
        if not self.stream.has_live_reader(LiveTopic.TICKERS):
            if self._inputs:
                self._inputs, self._rows = {}, {}
                self.stream.drop_live(LiveTopic.TICKERS)
            return
        moment = self.market.moment()
        changed, present = self._changed_rows(moment), self._rows
        removed = present.keys() - {entry.symbol for entry in _listed(moment)}
        for symbol in removed:
            del self._inputs[symbol], present[symbol]
        if not (changed or removed):
            return
        present |= changed
        at, source = instant(moment.server_ms), self.market.source.value

        def complete() -> Frame:
            rows = [present[symbol] for symbol in sorted(present)]
            return tickers_frame(at, source, rows, (), is_complete=True)

        change = tickers_frame(
            at, source, list(changed.values()), sorted(removed), is_complete=False
        )
        self.stream.publish_live(LiveTopic.TICKERS, change, complete)

    def _changed_rows(self, moment: MarketMoment) -> dict[str, Details]:
        """Returns the rows of other content than the ones last sent, by symbol.

        Objects of the market are compared first: building a row takes ten times as long.
        """
        market, known = moment.market, self._inputs
        limits_s = moment.age_limit_s(LIVE[0]), moment.age_limit_s(LIVE[1])
        changed: dict[str, Details] = {}
        for entry in _listed(moment):
            code, symbol = entry.contract.code, entry.symbol
            stats, ticker = market.stats.get(code), market.tickers.get(code)
            status = _status(moment, code, stats, ticker, limits_s)
            former = known.get(symbol)
            if (
                former is not None
                and former[0] is stats
                and former[1] is ticker
                and former[2] is status
            ):
                continue
            known[symbol] = stats, ticker, status
            row = _row(entry, stats, ticker, status)
            if not _is_same(self._rows.get(symbol), row):
                changed[symbol] = row
        return changed


def _listed(moment: MarketMoment) -> Iterator[SymbolEntry]:
    """Yields the symbols whose contract may still trade."""
    entries = moment.known.index.entries
    return (entry for entry in entries if entry.contract.status not in DELISTED)


def _status(
    moment: MarketMoment,
    code: str,
    stats: Received[ContractStats] | None,
    ticker: Received[Ticker] | None,
    limits_s: tuple[float, float],
) -> DataStatus:
    """Returns the status of a quote, as `MarketMoment.quote` does."""
    if stats is None or ticker is None:
        return DataStatus.UNAVAILABLE
    is_fresh = (
        moment.mono - stats.mono <= limits_s[0]
        and moment.mono - ticker.mono <= limits_s[1]
        and code not in moment.market.diverged
    )
    return DataStatus.FRESH if is_fresh else DataStatus.STALE


def _row(
    entry: SymbolEntry,
    stats: Received[ContractStats] | None,
    ticker: Received[Ticker] | None,
    status: DataStatus,
) -> Details:
    times = [one.at for one in (stats, ticker) if one is not None]
    return ticker_row(
        entry,
        None if stats is None else stats.value,
        None if ticker is None else ticker.value,
        min(times, default=None),
        status,
    )


def _is_same(former: Details | None, row: Details) -> bool:
    """True for equal rows, apart from their time."""
    return former is not None and former | {"as_of": None} == row | {"as_of": None}


@dataclass(slots=True)
class DashboardFeed:
    """Publishes the dashboard when it changed, at most once a second."""

    read: Callable[[], Awaitable[Dashboard]]
    stream: EventStream
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _published: Details | None = None  # without its time

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            await self.publish_changes()
            beat()
            await self.sleep(STEP_S)

    async def publish_changes(self) -> None:
        """Publishes the dashboard if it changed; a failed read is logged and tried again."""
        if not self.stream.has_live_reader(LiveTopic.DASHBOARD):
            if self._published is not None:
                self._published = None
                self.stream.drop_live(LiveTopic.DASHBOARD)
            return
        try:
            dashboard = await self.read()
        except ServiceError as error:
            _log.warning("dashboard_unavailable", cause=error.code.value)
            return
        details = dashboard_details(dashboard)
        content = details | {"timestamp": None}
        if content != self._published:
            self._published = content
            frame = dashboard_frame(details)
            self.stream.publish_live(LiveTopic.DASHBOARD, frame, lambda: frame)
