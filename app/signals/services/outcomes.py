"""Records outcomes of signals after their horizon, and the resulting skill of agents."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.services.decision_context import DecisionContextFactory
from app.scoring.storage.hourly_bars import HourlyBarRepository
from app.signals.domain.events import SignalOutcomesBooked
from app.signals.domain.opinion_pool import clip_probability
from app.signals.domain.outcomes import (
    GRACE,
    HOUR_MS,
    MAX_CARRY_MS,
    OutcomeWindow,
    UniverseReturns,
    window_return,
)
from app.signals.domain.track_record import (
    ForecastRecord,
    SourceKey,
    claimed_probability,
    outcome_matches,
)
from app.signals.storage.outcomes import Booking, OpenOutcome, SignalOutcomeRepository
from app.signals.storage.signals import SignalRepository
from app.signals.storage.statistics import SignalRecordRepository

BATCH: Final = 500  # outcomes per transaction


@dataclass(frozen=True, slots=True)
class BookingResult:
    decided: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SignalOutcomes:
    """Records each outcome and its forecast records in one transaction, so that it counts once."""

    database: Database
    contexts: DecisionContextFactory
    batch: int = BATCH

    async def book(self) -> BookingResult:
        """Records every outcome whose window has ended and whose prices are known.

        An outcome without a price or a median waits for six hours and is then recorded as
        unknown. Without market data nothing is recorded.
        """
        now = self.contexts.market.as_of()
        if now is None:
            return BookingResult(0, 0)
        async with self.database.read() as unit:
            windows = await unit.get(SignalOutcomeRepository).windows(now)
        decided = unknown = 0
        for window in windows:
            async with self.database.read() as unit:
                returns = await _universe_returns(unit, window)
            is_late = now >= window.ends_at + GRACE
            while True:
                batch = await self._book_batch(window, returns, is_late=is_late)
                decided += batch.decided
                unknown += batch.unknown
                if batch.decided + batch.unknown < self.batch:
                    break
        return BookingResult(decided, unknown)

    async def _book_batch(
        self, window: OutcomeWindow, returns: UniverseReturns, *, is_late: bool
    ) -> BookingResult:
        if returns.median is None and not is_late:
            return BookingResult(0, 0)
        symbols = None if is_late else returns.gains

        async def change(unit: UnitOfWork) -> BookingResult:
            waiting = await unit.get(SignalOutcomeRepository).take(window, self.batch, symbols)
            bookings = await self._create_bookings(unit, waiting, returns)
            await unit.get(SignalOutcomeRepository).book(bookings)
            await _record_outcomes(unit, waiting, bookings)
            booked = _publish_outcomes(unit, bookings, self.contexts.clock())
            return BookingResult(booked.outperformed + booked.underperformed, booked.unknown)

        return await self.database.run(change)

    async def _create_bookings(
        self, unit: UnitOfWork, waiting: Iterable[OpenOutcome], returns: UniverseReturns
    ) -> list[Booking]:
        """Creates bookings; of overlapping windows of one symbol only the first one counts.

        Overlapping windows are one event, so that repeated signals add no evidence. Each type of
        a source's signals has its own record.
        """
        names = {pending.symbol for pending in waiting}
        agents, sources = await unit.get(SignalOutcomeRepository).counted_until(names)
        at = self.contexts.clock()
        bookings = []
        for pending in waiting:
            outcome = returns.decide(pending.outcome, pending.symbol, at)
            if outcome is None:
                unknown = pending.outcome.as_unknown(returns.unknown_reason(pending.symbol), at)
                bookings.append(Booking(pending.signal_id, unknown, False, False))
                continue
            key = (pending.source, pending.type, pending.symbol)
            match = outcome_matches(pending.direction, bool(outcome.outperformed))
            for_agents = _is_after(agents.get(pending.symbol), outcome.window)
            for_source = match is not None and _is_after(sources.get(key), outcome.window)
            if for_agents:
                agents[pending.symbol] = outcome.window.ends_at
            if for_source:
                sources[key] = outcome.window.ends_at
            bookings.append(Booking(pending.signal_id, outcome, for_agents, for_source))
        return bookings


async def _universe_returns(unit: UnitOfWork, window: OutcomeWindow) -> UniverseReturns:
    """Computes returns within the window of the symbols scored at its start."""
    universe = await unit.get(HourlyBarRepository).universe(window.starts_at)
    names = universe | await unit.get(SignalOutcomeRepository).symbols(window)
    listings = await unit.get(HourlyBarRepository).listings(names)
    first = (window.starts_ms - MAX_CARRY_MS, window.starts_ms + HOUR_MS)
    last = (window.ends_ms - MAX_CARRY_MS - HOUR_MS, window.ends_ms)
    ids = [listing.symbol_id for listing in listings]
    bars = await unit.get(HourlyBarRepository).bars(ids, (first, last))
    # A delisted contract has its last price within the window.
    delisted = [listing.symbol_id for listing in listings if listing.is_delisted]
    if delisted:
        bars |= await unit.get(HourlyBarRepository).bars(delisted, [(first[0], window.ends_ms)])
    gains = {}
    for listing in listings:
        own_bars = bars.get(listing.symbol_id, ())
        gain = window_return(own_bars, window, is_delisted=listing.is_delisted)
        if gain is not None:
            gains[listing.symbol] = gain
    return UniverseReturns.of(gains, universe)


async def _record_outcomes(
    unit: UnitOfWork, waiting: Iterable[OpenOutcome], bookings: Iterable[Booking]
) -> None:
    """Adds counted outcomes to the records of voting agents and of sources."""
    by_signal = {booking.signal_id: booking for booking in bookings}
    counted = [booking.signal_id for booking in by_signal.values() if booking.counts_for_agents]
    agents: dict[str, ForecastRecord] = {}
    for signal_id, agent, probability in await unit.get(SignalRepository).forecasts(counted):
        outperformed = bool(by_signal[signal_id].outcome.outperformed)
        record = agents.get(agent, ForecastRecord())
        agents[agent] = record.add_forecast(probability, outperformed)
    sources: dict[SourceKey, ForecastRecord] = {}
    for pending in waiting:
        booking, key = by_signal[pending.signal_id], (pending.source, pending.type)
        is_right = outcome_matches(pending.direction, bool(booking.outcome.outperformed))
        if booking.counts_for_source and is_right is not None:
            forecast = clip_probability(claimed_probability(pending.strength, pending.confidence))
            sources[key] = sources.get(key, ForecastRecord()).add_forecast(forecast, is_right)
    await unit.get(SignalRecordRepository).add(agents, sources)


def _publish_outcomes(
    unit: UnitOfWork, bookings: Iterable[Booking], at: datetime
) -> SignalOutcomesBooked:
    counts = Counter(booking.outcome.outperformed for booking in bookings)
    event = SignalOutcomesBooked(counts[True], counts[False], counts[None], at)
    if counts:
        unit.publish_after_commit(event)
    return event


def _is_after(until: datetime | None, window: OutcomeWindow) -> bool:
    return until is None or until <= window.starts_at
