"""Loads the equity curve from the last rebalance before the requested period."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.hash_chain import instant_text
from app.foundation.sql.database import UnitOfWork
from app.market.domain.models import Interval
from app.performance.domain.backfilled_marks import (
    INDEX,
    BackfilledMark,
    is_gap_final,
    marks_from_event,
    marks_to_payload,
    missing_marks,
    unknown_since,
    with_backfilled_marks,
)
from app.performance.domain.equity_curve import (
    Curve,
    Day,
    EquityOpening,
    EquityStep,
    KnownEquity,
    Valuation,
    build_curve,
    compute_track_figures,
    daily_equity,
    equity_steps,
    known_equity,
)
from app.portfolio.domain.event_log import (
    WEIGHS,
    Draft,
    EventOrigin,
    PortfolioEvent,
    number_text,
    seal_events,
)
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.returns import Figures
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.tradeability import DataFacts, describe_data
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.storage.hourly_bars import HourlyBarRepository


@dataclass(frozen=True, slots=True)
class EquityHistoryWindow:
    """Latest part of the history; the whole history without an opening."""

    changes: tuple[EquityStep, ...]
    opening: EquityOpening | None
    late: tuple[BackfilledMark, ...] = ()  # backfilled marks of these changes
    is_gap_final: bool = False  # missing marks are final


async def load_window(
    unit: UnitOfWork, until: datetime, begun_at: datetime, *, has_start: bool
) -> EquityHistoryWindow:
    """Loads changes from the last rebalance at or before `until` on, with its equity as opening.

    The history began at `begun_at`; `has_start` includes that in the opening. A rebalance without
    a recorded equity requires the whole history. If its equity is unknown because of a mark that
    may still be backfilled, the history from before that mark is required.
    """
    weighing = await _find_opening_event(
        unit, await unit.get(HistoryRepository).last_weighting(until)
    )
    if weighing is not None and weighing.occurred_at <= begun_at:
        weighing = None  # the beginning itself
    return await _load_from(unit, weighing, begun_at if has_start else None)


async def compute_curve(
    unit: UnitOfWork, read: EquityHistoryWindow, valuations: Sequence[Valuation]
) -> tuple[EquityHistoryWindow, Curve]:
    """Computes the curve; missing marks are backfilled from hourly bars."""
    curve = build_curve(read.changes, valuations, read.opening)
    is_lost = read.opening is not None and read.opening.broken is not None
    if curve.broken is None or is_lost or read.is_gap_final:
        return read, curve
    missing = missing_marks(read.changes)
    closes = await unit.get(HourlyBarRepository).closes(
        {(mark.symbol_id, mark.opened_ms) for mark in missing}
    )
    marks = [
        BackfilledMark.from_close(mark, closes[mark.symbol_id, mark.opened_ms])
        for mark in missing
        if (mark.symbol_id, mark.opened_ms) in closes
    ]
    if not marks:
        return read, curve
    filled = replace(
        read, changes=with_backfilled_marks(read.changes, marks), late=(*read.late, *marks)
    )
    return filled, build_curve(filled.changes, valuations, filled.opening)


async def known_equities_before(unit: UnitOfWork, version: int) -> tuple[KnownEquity, ...]:
    """Loads the equities recorded by rebalances before a version, oldest first."""
    equities = []
    for at, recorded, index in await unit.get(HistoryRepository).weightings(INDEX):
        if recorded < version and index is not None and index["equity"] is not None:
            equities.append(KnownEquity(at, Decimal(index["equity"])))
    return tuple(equities)


async def with_equity_index(
    unit: UnitOfWork, drafts: Sequence[Draft], stamp: EventOrigin
) -> tuple[Draft, ...]:
    """Adds the current equity to the draft of a rebalance, so that later reads begin there.

    Backfilled marks behind it are added unless an event has them, so that the history proves it.
    """
    if not any(draft.type in WEIGHS for draft in drafts):
        return tuple(drafts)
    before = await _load_from(
        unit,
        await _find_opening_event(unit, await unit.get(HistoryRepository).last_weighting()),
        None,
    )
    # The position in the chain is unknown yet and does not affect the equity.
    step = equity_steps(seal_events(drafts, stamp, None))[-1]
    read = replace(before, changes=(*before.changes, step))
    filled, curve = await compute_curve(unit, read, ())
    equity = None if curve.broken is not None else curve.points[-1].equity
    index: dict[str, Any] = {"equity": number_text(equity), "broken": curve.broken}
    if curve.broken_at is not None:
        index["broken_at"] = instant_text(curve.broken_at)
    if filled.late != before.late:
        index["late_marks"] = marks_to_payload(filled.late[len(before.late) :])
    *others, last = drafts
    return (*others, replace(last, payload={**last.payload, INDEX: index}))


async def _find_opening_event(
    unit: UnitOfWork, weighing: PortfolioEvent | None
) -> PortfolioEvent | None:
    """Returns `weighing`, or an earlier rebalance if its equity may still be backfilled."""
    while weighing is not None and not is_gap_final(weighing):
        since = unknown_since(weighing)
        if since is None:
            break
        earlier = await unit.get(HistoryRepository).last_weighting(since - datetime.resolution)
        # After a clock was set back a later event may have an earlier time.
        weighing = earlier if earlier is not None and earlier.seq < weighing.seq else None
    return weighing


async def _load_from(
    unit: UnitOfWork, weighing: PortfolioEvent | None, begun_at: datetime | None
) -> EquityHistoryWindow:
    index = None if weighing is None else weighing.payload.get(INDEX)
    if weighing is None or index is None:
        events = await unit.get(HistoryRepository).moves()
        return _create_window(events, equity_steps(events), None)
    equity = None if index["equity"] is None else Decimal(index["equity"])
    opening = EquityOpening(equity, index["broken"], begun_at, unknown_since(weighing))
    events = await unit.get(HistoryRepository).moves(weighing=weighing)
    version = int(weighing.payload["version"])
    changes = tuple(step for step in equity_steps(events) if step.version >= version)
    return _create_window(events, changes, opening)


def _create_window(
    events: Sequence[PortfolioEvent], changes: tuple[EquityStep, ...], opening: EquityOpening | None
) -> EquityHistoryWindow:
    late = tuple(one for event in events for one in marks_from_event(event))
    is_final = any(is_gap_final(event) for event in events)
    return EquityHistoryWindow(with_backfilled_marks(changes, late), opening, late, is_final)


@dataclass(frozen=True, slots=True)
class EquityHistory:
    """Equity curve with its inputs."""

    portfolio: Portfolio
    changes: tuple[EquityStep, ...]
    valuations: tuple[Valuation, ...]
    curve: Curve
    context: DecisionContext
    late: tuple[BackfilledMark, ...] = ()  # backfilled marks of the changes
    earlier: tuple[KnownEquity, ...] = ()  # recorded by rebalances before the curve

    def figures(self, since: datetime | None = None, until: datetime | None = None) -> Figures:
        """Returns the figures at or after `since` and before `until`."""
        return compute_track_figures(self.curve, self.earlier, since, until)

    def known(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[KnownEquity, ...]:
        """Returns the points behind growth and drawdown of `figures`."""
        return known_equity(self.curve, self.earlier, since, until)

    def within(self, since: datetime | None, until: datetime | None) -> tuple[Day, ...]:
        """Returns the days at or after `since` and before `until`."""
        return tuple(
            day
            for day in self.days
            if (since is None or day.at >= since) and (until is None or day.at < until)
        )

    def late_within(
        self, since: datetime | None, until: datetime | None
    ) -> tuple[BackfilledMark, ...]:
        """Returns backfilled marks of changes at or after `since` and before `until`."""
        return tuple(
            one
            for one in self.late
            if (since is None or one.at >= since) and (until is None or one.at < until)
        )

    @property
    def days(self) -> tuple[Day, ...]:
        return daily_equity(self.curve)

    @property
    def facts(self) -> DataFacts:
        return describe_data(self.context)

    def sector(self, symbol: str) -> str:
        return self.context.sector(symbol)


@dataclass(frozen=True, slots=True)
class EquityQuery:
    """Requested content of an equity history; other parts may be missing."""

    days_since: datetime | None = None  # None: since the first member
    has_days: bool = True
    gains_since: datetime | None = None  # start of complete gains; None: not needed
    has_figures: bool = False  # of all points from `days_since` on

    def first(self, begun_at: datetime, context: DecisionContext) -> datetime:
        """Returns the start of the required data; a day needs the close before it."""
        closes = [end for _, end in period_ends(context)]
        needed = [context.at]
        if self.gains_since is not None:
            needed.append(self.gains_since)
        if self.is_from_the_start(begun_at):
            needed += [end for end in closes if end > begun_at][:1]
        elif self.has_days and self.days_since is not None:
            needed.append(max((end for end in closes if end < self.days_since), default=begun_at))
        return min(needed)

    def is_from_the_start(self, begun_at: datetime) -> bool:
        since = self.days_since
        return self.has_days and (since is None or since <= begun_at)


async def load_equity(
    unit: UnitOfWork,
    contexts: DecisionContextFactory,
    query: EquityQuery,
    replacements: Sequence[EquityStep] = (),
) -> EquityHistory:
    """Loads the history for `query`; symbols of `replacements` are valued, too."""
    portfolio = await unit.get(PortfolioRepository).load()
    context = contexts(await unit.get(ConfigurationRepository).current())
    begun_at = await unit.get(HistoryRepository).first_move_at()
    if begun_at is None:
        return EquityHistory(portfolio, (), (), build_curve((), ()), context)
    has_start = query.is_from_the_start(begun_at)
    read = await load_window(unit, query.first(begun_at, context), begun_at, has_start=has_start)
    symbols = {symbol for change in read.changes for symbol in change.weights}
    symbols |= {
        name for step in replacements for one in step.replacements for name in (one.old, one.new)
    }
    changes = {name: found for name in symbols if (found := context.redenominations(name))}
    now = Valuation(context.at, _marks(symbols, context))
    valuations = tuple(
        replace(one, redenominated=changes) for one in (*_closes(symbols, context), now)
    )
    filled, curve = await compute_curve(unit, read, valuations)
    earlier: tuple[KnownEquity, ...] = ()
    if query.has_figures and has_start and filled.opening is not None:
        earlier = await known_equities_before(unit, filled.changes[0].version)
    return EquityHistory(
        portfolio, filled.changes, valuations, curve, context, filled.late, earlier
    )


def _marks(symbols: set[str], context: DecisionContext) -> dict[str, Decimal]:
    marks = {symbol: context.mark(symbol) for symbol in symbols}
    return {symbol: mark for symbol, mark in marks.items() if mark is not None and mark > 0}


def period_ends(context: DecisionContext) -> Iterator[tuple[int, datetime]]:
    """Yields completed rows of the daily panel with the time of their close."""
    panel = context.market.panel(Interval.DAY)
    epoch = datetime.fromtimestamp(0, context.at.tzinfo)
    for row, opened in enumerate([] if panel is None else panel.opened_ms.tolist()):
        at = epoch + timedelta(milliseconds=opened + Interval.DAY.ms)
        if at < context.at:
            yield row, at


def _closes(symbols: set[str], context: DecisionContext) -> tuple[Valuation, ...]:
    """Valuations at the closes of every completed day."""
    panel = context.market.panel(Interval.DAY)
    if panel is None:
        return ()
    columns = [(name, at) for at, name in enumerate(panel.symbols) if name in symbols]
    valuations = []
    for row, at in period_ends(context):
        closes = ((name, float(panel.close[row, column])) for name, column in columns)
        prices = {
            name: Decimal(repr(close)) for name, close in closes if np.isfinite(close) and close > 0
        }
        valuations.append(Valuation(at, prices))
    return tuple(valuations)
