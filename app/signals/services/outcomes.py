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
    REACH_MS,
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
        """Record every outcome whose window is over and whose prices are known.

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
                field = await _universe_returns(unit, window)
            while True:
                some = await self._some(window, field, is_late=now >= window.ends_at + GRACE)
                decided += some.decided
                unknown += some.unknown
                if some.decided + some.unknown < self.batch:
                    break
        return BookingResult(decided, unknown)

    async def _some(
        self, window: OutcomeWindow, field: UniverseReturns, *, is_late: bool
    ) -> BookingResult:
        if field.median is None and not is_late:
            return BookingResult(0, 0)
        wanted = None if is_late else field.gains

        async def change(unit: UnitOfWork) -> BookingResult:
            waiting = await unit.get(SignalOutcomeRepository).take(window, self.batch, wanted)
            bookings = await self._bookings(unit, waiting, field)
            await unit.get(SignalOutcomeRepository).book(bookings)
            await _record_outcomes(unit, waiting, bookings)
            booked = _publish_outcomes(unit, bookings, self.contexts.clock())
            return BookingResult(booked.beat + booked.missed, booked.unknown)

        return await self.database.run(change)

    async def _bookings(
        self, unit: UnitOfWork, waiting: Iterable[OpenOutcome], field: UniverseReturns
    ) -> list[Booking]:
        """Outcomes to record; of overlapping windows of one symbol only the first counts.

        They are one event: a source that repeats itself each minute proves nothing more.
        Each type of a source's signals has its own record.
        """
        names = {one.symbol for one in waiting}
        agents, sources = await unit.get(SignalOutcomeRepository).counted_until(names)
        at = self.contexts.clock()
        bookings = []
        for one in waiting:
            outcome = field.decided(one.outcome, one.symbol, at)
            if outcome is None:
                missing = one.outcome.unknown(field.why_unknown(one.symbol), at)
                bookings.append(Booking(one.signal_id, missing, False, False))
                continue
            key = (one.source, one.type, one.symbol)
            leans = outcome_matches(one.direction, bool(outcome.beat)) is not None
            free = _is_free(agents.get(one.symbol), outcome.window)
            first = leans and _is_free(sources.get(key), outcome.window)
            if free:
                agents[one.symbol] = outcome.window.ends_at
            if first:
                sources[key] = outcome.window.ends_at
            bookings.append(Booking(one.signal_id, outcome, free, first))
        return bookings


async def _universe_returns(unit: UnitOfWork, window: OutcomeWindow) -> UniverseReturns:
    """Returns within the window of the symbols scored at its start."""
    universe = await unit.get(HourlyBarRepository).universe(window.starts_at)
    names = universe | await unit.get(SignalOutcomeRepository).symbols(window)
    listings = await unit.get(HourlyBarRepository).listings(names)
    ends = (window.starts_ms - REACH_MS, window.starts_ms + HOUR_MS)
    last = (window.ends_ms - REACH_MS - HOUR_MS, window.ends_ms)
    ids = [one.symbol_id for one in listings]
    bars = await unit.get(HourlyBarRepository).bars(ids, (ends, last))
    # A delisted contract has its last price within the window.
    gone = [one.symbol_id for one in listings if one.is_over]
    if gone:
        bars |= await unit.get(HourlyBarRepository).bars(gone, [(ends[0], window.ends_ms)])
    gains = {}
    for one in listings:
        gain = window_return(bars.get(one.symbol_id, ()), window, is_over=one.is_over)
        if gain is not None:
            gains[one.symbol] = gain
    return UniverseReturns.of(gains, universe)


async def _record_outcomes(
    unit: UnitOfWork, waiting: Iterable[OpenOutcome], bookings: Iterable[Booking]
) -> None:
    """Add counted outcomes to the records of voting agents and of sources."""
    booked = {one.signal_id: one for one in bookings}
    counted = [one.signal_id for one in booked.values() if one.counts_for_agents]
    agents: dict[str, ForecastRecord] = {}
    for signal_id, agent, probability in await unit.get(SignalRepository).forecasts(counted):
        beat = bool(booked[signal_id].outcome.beat)
        agents[agent] = agents.get(agent, ForecastRecord()).add_forecast(probability, beat)
    sources: dict[SourceKey, ForecastRecord] = {}
    for one in waiting:
        booking, key = booked[one.signal_id], (one.source, one.type)
        right = outcome_matches(one.direction, bool(booking.outcome.beat))
        if booking.counts_for_source and right is not None:
            said = clip_probability(claimed_probability(one.strength, one.confidence))
            sources[key] = sources.get(key, ForecastRecord()).add_forecast(said, right)
    await unit.get(SignalRecordRepository).add(agents, sources)


def _publish_outcomes(
    unit: UnitOfWork, bookings: Iterable[Booking], at: datetime
) -> SignalOutcomesBooked:
    found = Counter(one.outcome.beat for one in bookings)
    booked = SignalOutcomesBooked(found[True], found[False], found[None], at)
    if found:
        unit.announce(booked)
    return booked


def _is_free(until: datetime | None, window: OutcomeWindow) -> bool:
    return until is None or until <= window.starts_at
