"""The equity curve with what it was made of, read as far back as the question goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from app.foundation.sql.unit_of_work import UnitOfWork
from app.market.domain.models import Interval
from app.performance.domain.equity_curve import (
    Curve,
    Day,
    KnownEquity,
    Valuation,
    days,
    track_record,
    walk,
)
from app.performance.domain.equity_steps import Step
from app.performance.domain.late_marks import LateMark
from app.performance.services.equity_reader import followed, stretch, weighed_before
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.returns import Figures
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.trading.services.position_sizing import DataFacts, facts_of


@dataclass(frozen=True, slots=True)
class Track:
    """The curve and what it was made of."""

    portfolio: Portfolio
    changes: tuple[Step, ...]
    valuations: tuple[Valuation, ...]
    curve: Curve
    grounds: Grounds
    late: tuple[LateMark, ...] = ()  # marks of the changes that were not known in their time
    earlier: tuple[KnownEquity, ...] = ()  # of weighings before the curve, where figures are needed

    def figures(self, since: datetime | None = None, until: datetime | None = None) -> Figures:
        """Figures at or after `since` and before `until`."""
        return track_record(self.curve, self.earlier, since, until)

    def within(self, since: datetime | None, until: datetime | None) -> tuple[Day, ...]:
        """The days at or after `since` and before `until`."""
        return tuple(
            day
            for day in self.days
            if (since is None or day.at >= since) and (until is None or day.at < until)
        )

    def late_within(self, since: datetime | None, until: datetime | None) -> tuple[LateMark, ...]:
        """The late marks of changes at or after `since` and before `until`."""
        return tuple(
            one
            for one in self.late
            if (since is None or one.at >= since) and (until is None or one.at < until)
        )

    @property
    def days(self) -> tuple[Day, ...]:
        return days(self.curve)

    @property
    def facts(self) -> DataFacts:
        return facts_of(self.grounds)

    def sector(self, symbol: str) -> str:
        return self.grounds.sector(symbol)


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked of a track; more than that may be missing from it."""

    days_since: datetime | None = None  # None: from the first member on
    has_days: bool = True
    gains_since: datetime | None = None  # from when on gains must be whole; None: none are needed
    has_figures: bool = False  # of all points from `days_since` on

    def first(self, begun_at: datetime, grounds: Grounds) -> datetime:
        """From when on everything is to be known; a day needs the close before it."""
        closes = [end for _, end in ends(grounds)]
        needed = [grounds.at]
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


async def track_of(
    unit: UnitOfWork, grounds_now: GroundsNow, need: Need, swaps: Sequence[Step] = ()
) -> Track:
    """What `need` says, within a transaction; the symbols of `swaps` are valued, too."""
    portfolio = await unit.portfolio.load()
    grounds = grounds_now(await unit.configuration.current())
    begun_at = await unit.history.begun_at()
    if begun_at is None:
        return Track(portfolio, (), (), walk((), ()), grounds)
    has_start = need.is_from_the_start(begun_at)
    read = await stretch(unit, need.first(begun_at, grounds), begun_at, has_start=has_start)
    symbols = {symbol for change in read.changes for symbol in change.weights}
    symbols |= {name for step in swaps for one in step.swaps for name in (one.old, one.new)}
    changes = {name: found for name in symbols if (found := grounds.redenominations(name))}
    now = Valuation(grounds.at, _marks(symbols, grounds))
    valuations = tuple(
        replace(one, redenominated=changes) for one in (*_closes(symbols, grounds), now)
    )
    whole, curve = await followed(unit, read, valuations)
    earlier: tuple[KnownEquity, ...] = ()
    if need.has_figures and has_start and whole.opening is not None:
        earlier = await weighed_before(unit, whole.changes[0].version)
    return Track(portfolio, whole.changes, valuations, curve, grounds, whole.late, earlier)


def _marks(symbols: set[str], grounds: Grounds) -> dict[str, Decimal]:
    marks = {symbol: grounds.mark(symbol) for symbol in symbols}
    return {symbol: mark for symbol, mark in marks.items() if mark is not None and mark > 0}


def ends(grounds: Grounds) -> Iterator[tuple[int, datetime]]:
    """The rows of the daily panel that are over, with the moment of their close."""
    panel = grounds.market.panel(Interval.DAY)
    epoch = datetime.fromtimestamp(0, grounds.at.tzinfo)
    for row, opened in enumerate([] if panel is None else panel.opened_ms.tolist()):
        at = epoch + timedelta(milliseconds=opened + Interval.DAY.ms)
        if at < grounds.at:
            yield row, at


def _closes(symbols: set[str], grounds: Grounds) -> tuple[Valuation, ...]:
    """The close of every day of the panel that is over, for the symbols that have one."""
    panel = grounds.market.panel(Interval.DAY)
    if panel is None:
        return ()
    columns = [(name, at) for at, name in enumerate(panel.symbols) if name in symbols]
    found = []
    for row, at in ends(grounds):
        closes = ((name, float(panel.close[row, column])) for name, column in columns)
        prices = {
            name: Decimal(repr(close)) for name, close in closes if np.isfinite(close) and close > 0
        }
        found.append(Valuation(at, prices))
    return tuple(found)
