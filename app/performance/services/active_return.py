"""Builds the daily inputs of the Brinson attribution: portfolio and universe."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

import numpy as np

from app.foundation.decimal_math import EXACT, total
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel
from app.market.domain.segments import contiguous
from app.performance.domain.attribution import (
    CASH,
    ActiveReturn,
    MarketDay,
    link_days,
    unknown_active_return,
)
from app.performance.domain.equity_curve import Point
from app.performance.services.equity_reader import EquityHistory, period_ends

SectorOf = Callable[[str], str]


def compute_active_return(history: EquityHistory, since: datetime, until: datetime) -> ActiveReturn:
    """Computes the active return from the last close at or before `since` (else the first)."""
    panel = history.context.market.panel(Interval.DAY)
    rows = {at: row for row, at in period_ends(history.context)}
    closes = [
        at for at, one in enumerate(history.curve.points) if not one.is_step and one.at in rows
    ]
    points = history.curve.points
    closes = [at for at in closes if points[at].at <= until]
    before = [at for at in closes if points[at].at <= since]
    closes = closes[len(before) - 1 if before else 0 :]
    if panel is None or len(closes) < 2:
        return unknown_active_return("there was no whole day with a position in the period")
    missing = next((points[at].reason for at in closes if points[at].equity is None), None)
    if missing is not None:
        return unknown_active_return(missing)
    sectors = [history.sector(symbol) for symbol in panel.symbols]
    days: list[MarketDay] = []
    for first, last in pairwise(closes):
        own = _portfolio_day(points[first], points[first + 1 : last + 1], history.sector)
        edges = (rows[points[first].at], rows[points[last].at])
        benchmark = _universe_day(panel, edges, sectors)
        if own is None or benchmark is None:
            return unknown_active_return(
                f"the universe has no return on the day to {points[last].at:%Y-%m-%d}"
            )
        days.append(MarketDay(*own, *benchmark))
    return link_days(days, points[closes[0]].at, points[closes[-1]].at)


def _portfolio_day(
    start: Point, later: Sequence[Point], sector_of: SectorOf
) -> tuple[Mapping[str, Decimal], Mapping[str, Decimal]] | None:
    """Weights at the start of a day and their contributions by sector; None without equity."""
    equity = start.equity
    if equity is None or equity <= 0:
        return None
    values: dict[str, Decimal] = defaultdict(Decimal)
    for symbol, value in start.values.items():
        values[sector_of(symbol)] = EXACT.add(values[sector_of(symbol)], value)
    values[CASH] = EXACT.subtract(equity, total(start.values.values()))
    gains: dict[str, Decimal] = defaultdict(Decimal)
    for point in later:
        for symbol, gain in point.gains.items():
            gains[sector_of(symbol)] = EXACT.add(gains[sector_of(symbol)], gain)
    return _shares(values, equity), _shares(gains, equity)


def _shares(amounts: Mapping[str, Decimal], equity: Decimal) -> dict[str, Decimal]:
    return {sector: EXACT.divide(one, equity) for sector, one in amounts.items()}


def _universe_day(
    panel: Panel, edges: tuple[int, int], sectors: Sequence[str]
) -> tuple[Mapping[str, Decimal], Mapping[str, Decimal]] | None:
    """Shares and mean returns of the universe's sectors; None if no symbol has both closes."""
    returns_by_sector: dict[str, list[float]] = defaultdict(list)
    for column, change in _daily_returns(contiguous(panel).close, edges):
        returns_by_sector[sectors[column]].append(change)
    count = Decimal(sum(len(one) for one in returns_by_sector.values()))
    if not count:
        return None
    shares = {
        sector: EXACT.divide(Decimal(len(one)), count) for sector, one in returns_by_sector.items()
    }
    means = {
        sector: EXACT.divide(total(Decimal(repr(change)) for change in one), Decimal(len(one)))
        for sector, one in returns_by_sector.items()
    }
    return shares, means


def _daily_returns(close: Floats, edges: tuple[int, int]) -> Iterator[tuple[int, float]]:
    start, end = close[edges[0]], close[edges[1]]
    known = np.isfinite(start) & np.isfinite(end) & (start > 0.0) & (end > 0.0)
    for column in np.flatnonzero(known).tolist():
        yield column, float(end[column] / start[column] - 1.0)
