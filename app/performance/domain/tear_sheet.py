"""Tear-sheet figures of an equity curve: drawdown periods and returns by month and year."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from app.performance.domain.equity_curve import KnownEquity

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DrawdownPeriod:
    """Fall from a peak until the peak is reached again; the depth is a positive fraction."""

    peak_at: datetime
    valley_at: datetime
    recovered_at: datetime | None  # None: not yet
    depth: float


@dataclass(frozen=True, slots=True)
class MonthReturn:
    """Simple return of one calendar month (UTC); None without a known value in it.

    The month after a gap holds the return of the gap too, so that all returns compound to the
    whole growth. The first and the last month may be partial.
    """

    year: int
    month: int
    value: float | None


def find_drawdown_periods(points: Sequence[KnownEquity]) -> tuple[DrawdownPeriod, ...]:
    """Returns the periods below a former peak, the deepest first; of equal ones the earliest."""
    periods: list[DrawdownPeriod] = []
    if not points:
        return ()
    peak = valley = points[0]
    for point in points[1:]:
        if point.equity >= peak.equity:
            if valley.equity < peak.equity:
                periods.append(_period(peak, valley, point.at))
            peak = valley = point
        elif point.equity < valley.equity:
            valley = point
    if valley.equity < peak.equity:
        periods.append(_period(peak, valley, None))
    return tuple(sorted(periods, key=lambda one: (-one.depth, one.peak_at)))


def _period(
    peak: KnownEquity, valley: KnownEquity, recovered_at: datetime | None
) -> DrawdownPeriod:
    depth = float(1 - valley.equity / peak.equity)
    return DrawdownPeriod(peak.at, valley.at, recovered_at, depth)


def monthly_returns(points: Sequence[KnownEquity]) -> tuple[MonthReturn, ...]:
    """Returns the months from the first to the last point.

    A close at midnight belongs to the day, and so to the month, that it ends. After a value of zero
    no return is known.
    """
    ends: dict[tuple[int, int], Decimal] = {}
    for point in points[1:]:
        ends[_month(point.at - _INSTANT)] = point.equity
    if not ends:
        return ()
    months: list[MonthReturn] = []
    year, month = min(ends)
    base = points[0].equity
    while (year, month) <= max(ends):
        end = ends.get((year, month))
        value = None if end is None or base <= 0 else float(end / base - 1)
        months.append(MonthReturn(year, month, value))
        base = base if end is None else end
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return tuple(months)


def year_return(months: Sequence[MonthReturn], year: int) -> float | None:
    """Returns the compound return of the known months of a year; None if none is known."""
    known = [one.value for one in months if one.year == year and one.value is not None]
    if not known:
        return None
    growth = 1.0
    for value in known:
        growth *= 1.0 + value
    return growth - 1.0


def _month(at: datetime) -> tuple[int, int]:
    return at.year, at.month
