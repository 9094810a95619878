"""Builds the daily inputs of the Brinson attribution: portfolio and universe."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

import numpy as np

from app.foundation.decimal_math import EXACT, total
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel, unbroken
from app.performance.domain.attribution import CASH, ActiveReturn, MarketDay, explained, unknown
from app.performance.domain.equity_curve import Point
from app.performance.services.equity_reader import EquityHistory, period_ends

SectorOf = Callable[[str], str]


def active_return(track: EquityHistory, since: datetime, until: datetime) -> ActiveReturn:
    """Active return from the last daily close at or before `since` (else the first) to `until`."""
    panel = track.context.market.panel(Interval.DAY)
    rows = {at: row for row, at in period_ends(track.context)}
    closes = [at for at, one in enumerate(track.curve.points) if not one.is_step and one.at in rows]
    points = track.curve.points
    closes = [at for at in closes if points[at].at <= until]
    before = [at for at in closes if points[at].at <= since]
    closes = closes[len(before) - 1 if before else 0 :]
    if panel is None or len(closes) < 2:
        return unknown("no whole day was held in the period")
    missing = next((points[at].reason for at in closes if points[at].equity is None), None)
    if missing is not None:
        return unknown(missing)
    sectors = [track.sector(symbol) for symbol in panel.symbols]
    days: list[MarketDay] = []
    for first, last in pairwise(closes):
        own = _own(points[first], points[first + 1 : last + 1], track.sector)
        edges = (rows[points[first].at], rows[points[last].at])
        theirs = _universe(panel, edges, sectors)
        if own is None or theirs is None:
            return unknown(f"nothing to compare with on the day to {points[last].at:%Y-%m-%d}")
        days.append(MarketDay(*own, *theirs))
    return explained(days, points[closes[0]].at, points[closes[-1]].at)


def _own(
    start: Point, later: Sequence[Point], sector_of: SectorOf
) -> tuple[Mapping[str, Decimal], Mapping[str, Decimal]] | None:
    """Weights at the start of a day and their contributions by sector; None without equity."""
    equity = start.equity
    if equity is None or equity <= 0:
        return None
    worth: dict[str, Decimal] = defaultdict(Decimal)
    for symbol, value in start.values.items():
        worth[sector_of(symbol)] = EXACT.add(worth[sector_of(symbol)], value)
    worth[CASH] = EXACT.subtract(equity, total(start.values.values()))
    gained: dict[str, Decimal] = defaultdict(Decimal)
    for point in later:
        for symbol, gain in point.gains.items():
            gained[sector_of(symbol)] = EXACT.add(gained[sector_of(symbol)], gain)
    return _shares(worth, equity), _shares(gained, equity)


def _shares(amounts: Mapping[str, Decimal], equity: Decimal) -> dict[str, Decimal]:
    return {sector: EXACT.divide(one, equity) for sector, one in amounts.items()}


def _universe(
    panel: Panel, edges: tuple[int, int], sectors: Sequence[str]
) -> tuple[Mapping[str, Decimal], Mapping[str, Decimal]] | None:
    """Shares and mean returns of the universe's sectors; None where no symbol has both closes."""
    found: dict[str, list[float]] = defaultdict(list)
    for column, change in _moves(unbroken(panel).close, edges):
        found[sectors[column]].append(change)
    count = Decimal(sum(len(one) for one in found.values()))
    if not count:
        return None
    shares = {sector: EXACT.divide(Decimal(len(one)), count) for sector, one in found.items()}
    means = {
        sector: EXACT.divide(total(Decimal(repr(change)) for change in one), Decimal(len(one)))
        for sector, one in found.items()
    }
    return shares, means


def _moves(close: Floats, edges: tuple[int, int]) -> Iterator[tuple[int, float]]:
    start, end = close[edges[0]], close[edges[1]]
    known = np.isfinite(start) & np.isfinite(end) & (start > 0.0) & (end > 0.0)
    for column in np.flatnonzero(known).tolist():
        yield column, float(end[column] / start[column] - 1.0)
