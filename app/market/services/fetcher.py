"""Fetches candles, books and funding symbol by symbol, with bounded concurrency and in batches."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import structlog

from app.configuration.domain.sections import Source
from app.foundation.concurrency import gather_bounded
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.market.domain.data_quality import (
    EMPTY,
    changed_candles,
    closed_candles,
    first_missing_ms,
    last_closed_open_ms,
    merged,
    valid_candles,
)
from app.market.domain.models import CandleSeries, Funding, Interval
from app.market.domain.symbols import SymbolEntry
from app.market.services.feed_leader import Fence, no_fencing
from app.market.services.ports import Exchange
from app.market.services.snapshot import BARS
from app.market.services.state import CANDLE_SOURCE, LiveMarket, joined
from app.market.storage.candles import CandleRepository
from app.market.storage.market_data import MarketRepository

_log = structlog.get_logger("market_fetch")

T = TypeVar("T")
Done = Callable[[], None]
Failures = list[tuple[SymbolEntry, ServiceError]]

BATCH: Final = 64  # symbols per transaction
TRIES_PER_BAR: Final = 3  # a bar without trades is never published
DAY_MS: Final = 86_400_000
FUNDING_DAYS: Final = 8  # span of the first request; the factors look back 7
FUNDING_RETENTION_MS: Final = 15 * DAY_MS


def _ignore_done() -> None:
    """Progress callback that does nothing."""


@contextmanager
def _requeue_on_error(taken: dict[SymbolEntry, T], fresh: dict[SymbolEntry, T]) -> Iterator[None]:
    """Returns a batch refused by the database to `fresh`, to be stored with the next one."""
    try:
        yield
    except ServiceError:
        fresh.update(taken)
        raise


@dataclass(slots=True)
class Fetcher:
    """Requests data of a few symbols at a time; results go to the database, then to memory."""

    exchange: Exchange
    database: Database
    live: LiveMarket
    metrics: Metrics
    workers: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    fence: Fence = no_fencing
    # True if the code of the entry still names its contract.
    is_current: Callable[[SymbolEntry], bool] = lambda _: True
    _tries: dict[tuple[str, Interval], tuple[int, int]] = field(default_factory=dict)

    async def candles(
        self,
        entries: Sequence[SymbolEntry],
        interval: Interval,
        done: Done = _ignore_done,
        batch: int = BATCH,
    ) -> Failures:
        """Fetches the missing closed bars of `entries`.

        Each transaction stores `batch` symbols, which become visible after it. With one batch for
        all, the universe moves to a new bar at once.
        """
        fresh: dict[SymbolEntry, CandleSeries] = {}

        async def flush() -> None:
            taken = dict(fresh)
            fresh.clear()
            with _requeue_on_error(taken, fresh):
                await self._store_candles(taken, interval)

        async def one(entry: SymbolEntry) -> None:
            series = await self._new_bars(entry, interval)
            if len(series):
                fresh[entry] = series
            if len(fresh) >= batch:
                await flush()

        wanted = [entry for entry in entries if self._is_due(entry, interval)]
        for _ in range(len(entries) - len(wanted)):
            done()
        try:
            return await self._each(wanted, one, done, CANDLE_SOURCE[interval])
        finally:
            await flush()  # bars received before an outage are not requested again

    async def books(self, entries: Sequence[SymbolEntry], done: Done = _ignore_done) -> Failures:
        """Fetches the order books of `entries`; each is visible as soon as it arrives."""

        async def one(entry: SymbolEntry) -> None:
            book = await self.exchange.book(entry.contract.code)
            market = self.live.market.with_deep_book(self.live.received(book))
            self.live.publish(market, Source.BOOKS)

        return await self._each(entries, one, done, Source.BOOKS)

    async def funding(
        self, entries: Sequence[SymbolEntry], done: Done = _ignore_done, batch: int = BATCH
    ) -> Failures:
        """Fetches rates of `entries` that were settled since the last known one."""
        fresh: dict[SymbolEntry, tuple[Funding, ...]] = {}

        async def flush() -> None:
            taken = dict(fresh)
            fresh.clear()
            with _requeue_on_error(taken, fresh):
                await self._store_funding(taken)

        async def one(entry: SymbolEntry) -> None:
            fresh[entry] = await self._new_rates(entry)
            if len(fresh) >= batch:
                await flush()

        try:
            return await self._each(entries, one, done, Source.FUNDING)
        finally:
            await flush()

    async def load(self, entries: Sequence[SymbolEntry]) -> None:
        """Loads stored values, so that only missing ones are requested."""
        ids = [entry.symbol_id for entry in entries]
        code_of = {entry.symbol_id: entry.contract.code for entry in entries}
        now_ms = self.live.server_clock.now_ms()
        async with self.database.read() as unit:
            stored = {
                interval: await unit.get(CandleRepository).load(
                    ids, interval, now_ms - (bars + 1) * interval.ms
                )
                for interval, bars in BARS.items()
            }
            rates = await unit.get(MarketRepository).funding(ids, now_ms - FUNDING_RETENTION_MS)
        market = self.live.market
        for interval, found in stored.items():
            # A local exchange may have been set back: drop values ahead of its clock.
            closed = {
                code_of[symbol_id]: closed_candles(series, interval, now_ms)
                for symbol_id, series in found.items()
            }
            restored = {
                code: self.live.restored(series, int(series.opened_ms[-1]) + interval.ms)
                for code, series in closed.items()
                if len(series)
            }
            market = market.with_candles(interval, joined(restored, market.series(interval)))
        settled = {
            code_of[symbol_id]: tuple(one for one in found if one.settled_ms <= now_ms)
            for symbol_id, found in rates.items()
        }
        funding = {
            code: self.live.restored(found, found[-1].settled_ms)
            for code, found in settled.items()
            if found
        }
        self.live.publish(replace(market, funding=joined(funding, market.funding)))

    async def _each(
        self,
        entries: Sequence[SymbolEntry],
        work: Callable[[SymbolEntry], Awaitable[None]],
        done: Done,
        source: Source,
    ) -> Failures:
        failures = await gather_bounded(
            entries, work, workers=self.workers, done=done, sleep=self.sleep
        )
        if failures:
            _log.warning(
                "symbols_failed",
                source=source.value,
                failed=len(failures),
                of=len(entries),
                causes=sorted({str(error.code) for _, error in failures}),
                first=failures[0][0].symbol,
            )
        return failures

    def _is_due(self, entry: SymbolEntry, interval: Interval) -> bool:
        code, now_ms = entry.contract.code, self.live.server_clock.now_ms()
        current = self.live.market.series(interval).get(code)
        series = EMPTY if current is None else current.value
        if first_missing_ms(series, interval, BARS[interval], now_ms) is None:
            return False
        newest, tries = self._tries.get((code, interval), (0, 0))
        return newest != last_closed_open_ms(interval, now_ms) or tries < TRIES_PER_BAR

    async def _new_bars(self, entry: SymbolEntry, interval: Interval) -> CandleSeries:
        code, now_ms = entry.contract.code, self.live.server_clock.now_ms()
        current = self.live.market.series(interval).get(code)
        series = EMPTY if current is None else current.value
        newest = last_closed_open_ms(interval, now_ms)
        start_ms = first_missing_ms(series, interval, BARS[interval], now_ms)
        if start_ms is None:
            return EMPTY
        requested, tries = self._tries.get((code, interval), (newest, 0))
        self._tries[code, interval] = (newest, tries + 1 if requested == newest else 1)
        # Request the last stored bar again: the exchange may have changed it after its close.
        begin_ms = start_ms - interval.ms if len(series) else start_ms
        answer = await self.exchange.candles(
            entry.contract, interval, begin_ms, newest + interval.ms
        )
        return changed_candles(
            closed_candles(valid_candles(answer, interval), interval, now_ms), series
        )

    async def _store_candles(
        self, fresh: Mapping[SymbolEntry, CandleSeries], interval: Interval
    ) -> None:
        # A request for a former listing may have been answered with its successor's data.
        fresh = {entry: one for entry, one in fresh.items() if self.is_current(entry)}
        if not fresh:
            return
        async with self.database.write(BULK_STATEMENT_S) as unit:
            await self.fence(unit)
            saved = await unit.get(CandleRepository).save(
                {entry.symbol_id: series for entry, series in fresh.items()}, interval
            )
        self.metrics.market_candles_stored.labels(interval.name.lower()).inc(saved.written)
        market, bars = self.live.market, BARS[interval]
        current = market.series(interval)
        updates = {
            entry.contract.code: self.live.received(
                merged(
                    current[entry.contract.code].value if entry.contract.code in current else EMPTY,
                    series,
                    bars,
                )
            )
            for entry, series in fresh.items()
        }
        self.live.publish(market.with_candles(interval, updates), CANDLE_SOURCE[interval])

    async def _new_rates(self, entry: SymbolEntry) -> tuple[Funding, ...]:
        """Fetches rates after the last known one; a day of overlap shows the first interval."""
        current = self.live.market.funding.get(entry.contract.code)
        last_ms = current.value[-1].settled_ms if current is not None and current.value else None
        now_ms = self.live.server_clock.now_ms()
        start_ms = now_ms - FUNDING_DAYS * DAY_MS if last_ms is None else last_ms - DAY_MS
        rates = await self.exchange.funding_history(entry.contract.code, start_ms, now_ms)
        return tuple(one for one in rates if last_ms is None or one.settled_ms > last_ms)

    async def _store_funding(self, fresh: Mapping[SymbolEntry, tuple[Funding, ...]]) -> None:
        fresh = {entry: one for entry, one in fresh.items() if self.is_current(entry)}
        if not fresh:
            return
        if any(fresh.values()):
            async with self.database.write(BULK_STATEMENT_S) as unit:
                await self.fence(unit)
                await unit.get(MarketRepository).save_funding(
                    {entry.symbol_id: rates for entry, rates in fresh.items()}
                )
        market = self.live.market
        since_ms = self.live.server_clock.now_ms() - FUNDING_RETENTION_MS
        updates = {}
        for entry, rates in fresh.items():
            current = market.funding.get(entry.contract.code)
            both = (*(() if current is None else current.value), *rates)
            recent = tuple(one for one in both if one.settled_ms >= since_ms)
            updates[entry.contract.code] = self.live.received(recent)
        funding = joined(market.funding, updates)
        self.live.publish(replace(market, funding=funding), Source.FUNDING)
