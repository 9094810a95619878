"""Performance attribution: exact lines per symbol and sector, and Brinson's active return.

Brinson by sector against the equal-weight universe, day by day, linked after Carino. Cash is a
sector of its own, without return and outside of the universe.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from functools import reduce
from typing import Final

from app.foundation.decimal_math import EXACT, total
from app.performance.domain.equity_curve import Point
from app.portfolio.domain.returns import BookedResult, BookedTotal

ZERO: Final = Decimal(0)


class AttributionMethod(StrEnum):
    """Basis of the amounts: the notional index or booked results."""

    INDEX = "index"
    BOOKED = "booked"


@dataclass(frozen=True, slots=True)
class AttributionLine:
    """Line with contribution = price_pnl + funding - fees; None is not part of the ledger."""

    name: str  # symbol or sector
    sector: str
    weight_u: int | None  # of record, for present members
    price_pnl: Decimal
    funding: Decimal | None
    fees: Decimal | None
    contribution: Decimal


@dataclass(frozen=True, slots=True)
class Attribution:
    """Ledger over a period; with a `reason`, start, end or lines are missing."""

    basis: AttributionMethod
    unit: str  # "index", or the currency
    start_at: datetime | None
    end_at: datetime | None
    start: Decimal | None
    end: Decimal | None
    change: Decimal | None
    symbols: tuple[AttributionLine, ...]
    sectors: tuple[AttributionLine, ...]
    reason: str | None


def attribution_from_curve(
    points: Sequence[Point],
    since: datetime,
    until: datetime,
    weights: Mapping[str, int],
    sector_of: Callable[[str], str],
) -> Attribution:
    """Attributes gains from the last known equity at or before `since` (else the first) to `until`.

    Funding and fees belong to booked results only.
    """
    points = [point for point in points if point.at <= until]
    known = [at for at, point in enumerate(points) if point.equity is not None]
    if len(known) < 2 or points[known[-1]].at <= since:
        reasons = [point.reason for point in points if point.reason is not None]
        reason = reasons[-1] if reasons else "there was no position in the period"
        return Attribution(
            AttributionMethod.INDEX, "index", None, None, None, None, None, (), (), reason
        )
    before = [at for at in known if points[at].at <= since]
    first, last = before[-1] if before else known[0], known[-1]
    pnl: dict[str, Decimal] = dict.fromkeys(weights, ZERO)
    for point in points[first + 1 : last + 1]:
        for symbol, gain in point.gains.items():
            pnl[symbol] = EXACT.add(pnl.get(symbol, ZERO), gain)
    lines = tuple(
        AttributionLine(symbol, sector_of(symbol), weights.get(symbol), gain, None, None, gain)
        for symbol, gain in sorted(pnl.items())
    )
    start, end = points[first], points[last]
    opening, closing = start.equity or ZERO, end.equity or ZERO
    return Attribution(
        basis=AttributionMethod.INDEX,
        unit="index",
        start_at=start.at,
        end_at=end.at,
        start=opening,
        end=closing,
        change=EXACT.subtract(closing, opening),
        symbols=lines,
        sectors=_by_sector(lines),
        # A newer moment without a valuation is reported even if the period is complete.
        reason=next((one.reason for one in points[last + 1 :] if one.reason is not None), None),
    )


def attribution_from_results(
    totals: Iterable[BookedTotal],
    after: Iterable[BookedResult],
    since: datetime,
    until: datetime,
    weights: Mapping[str, int],
    sector_of: Callable[[str], str],
) -> tuple[Attribution, ...]:
    """Creates one ledger per currency; its equity is the sum of results up to start and end.

    `totals` cover all results; `after` holds the results that occurred after `since`.
    """
    sums, late = tuple(totals), tuple(after)
    return tuple(
        _booked_ledger(currency, sums, late, since, until, weights, sector_of)
        for currency in sorted({one.currency for one in sums})
        if _has_begun(currency, sums, late, until)
    )


def _has_begun(
    currency: str, totals: Sequence[BookedTotal], after: Sequence[BookedResult], until: datetime
) -> bool:
    """True if a result was booked in the currency up to `until`."""
    results = sum(one.results for one in totals if one.currency == currency)
    return results > sum(one.currency == currency and one.occurred_at > until for one in after)


def _booked_ledger(
    currency: str,
    totals: Sequence[BookedTotal],
    after: Sequence[BookedResult],
    since: datetime,
    until: datetime,
    weights: Mapping[str, int],
    sector_of: Callable[[str], str],
) -> Attribution:
    later = [result for result in after if result.currency == currency]
    overall = total(sum_.net for sum_ in totals if sum_.currency == currency)
    start = EXACT.subtract(overall, total(result.net for result in later))
    inside = [result for result in later if result.occurred_at <= until]
    end = EXACT.add(start, total(result.net for result in inside))
    lines = tuple(
        _line(symbol, [result for result in inside if result.symbol == symbol], weights, sector_of)
        for symbol in sorted({result.symbol for result in inside})
    )
    return Attribution(
        basis=AttributionMethod.BOOKED,
        unit=currency,
        start_at=since,
        end_at=until,
        start=start,
        end=end,
        change=EXACT.subtract(end, start),
        symbols=lines,
        sectors=_by_sector(lines),
        reason=None,
    )


def _line(
    symbol: str,
    results: Sequence[BookedResult],
    weights: Mapping[str, int],
    sector_of: Callable[[str], str],
) -> AttributionLine:
    return AttributionLine(
        name=symbol,
        sector=sector_of(symbol),
        weight_u=weights.get(symbol),
        price_pnl=total(one.pnl for one in results),
        funding=total(one.funding for one in results),
        fees=total(one.fees for one in results),
        contribution=total(one.net for one in results),
    )


def _by_sector(lines: Sequence[AttributionLine]) -> tuple[AttributionLine, ...]:
    return tuple(
        _sum_lines(sector, [one for one in lines if one.sector == sector])
        for sector in sorted({one.sector for one in lines})
    )


def _sum_lines(sector: str, lines: Sequence[AttributionLine]) -> AttributionLine:
    weights = [one.weight_u for one in lines if one.weight_u is not None]
    return AttributionLine(
        name=sector,
        sector=sector,
        weight_u=sum(weights) if weights else None,
        price_pnl=total(one.price_pnl for one in lines),
        funding=_total_known(one.funding for one in lines),
        fees=_total_known(one.fees for one in lines),
        contribution=total(one.contribution for one in lines),
    )


def _total_known(amounts: Iterable[Decimal | None]) -> Decimal | None:
    known = [one for one in amounts if one is not None]
    return total(known) if known else None


CASH: Final = "cash"
_WIDE: Final = Context(prec=60)
_GRAIN: Final = Decimal(1).scaleb(-18)
_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class MarketDay:
    """Day by sector: fractions of the equity at its start, and simple returns.

    `earned` are contributions to the return of the portfolio. A sector that is missing in a
    mapping has no weight there.
    """

    weights: Mapping[str, Decimal]
    earned: Mapping[str, Decimal]
    universe_weights: Mapping[str, Decimal]
    universe_returns: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class SectorEffects:
    """Effects of one sector as fractions; the weights are means over the days."""

    sector: str
    weight: Decimal
    universe_weight: Decimal
    allocation: Decimal
    selection: Decimal
    interaction: Decimal

    @property
    def total(self) -> Decimal:
        return exact_sum((self.allocation, self.selection, self.interaction))


@dataclass(frozen=True, slots=True)
class ActiveReturn:
    """Active return; the effects of all sectors add up to it exactly.

    Returns are None, with the reason, if a day is unknown.
    """

    start_at: datetime | None
    end_at: datetime | None
    days: int
    portfolio: Decimal | None
    universe: Decimal | None
    active: Decimal | None  # portfolio minus universe
    sectors: tuple[SectorEffects, ...]
    reason: str | None


def unknown_active_return(reason: str) -> ActiveReturn:
    """Returns a result without figures, with the reason."""
    return ActiveReturn(None, None, 0, None, None, None, (), reason)


def link_days(days: Sequence[MarketDay], start_at: datetime, end_at: datetime) -> ActiveReturn:
    """Links the effects of the days of a period.

    The whole effect of a sector outside the universe is interaction, and so is the return of a
    sector on its first day.
    """
    earned = [(exact_sum(day.earned.values()), _universe_return(day)) for day in days]
    if any(value <= -1 for pair in earned for value in pair):
        return unknown_active_return("a day with a total loss cannot be linked")
    portfolio, universe = (_compound(series) for series in zip(*earned, strict=True))
    whole = _carino(portfolio, universe)
    totals: dict[str, list[Decimal]] = {}
    for day, (own, benchmark) in zip(days, earned, strict=True):
        scale = _WIDE.divide(_carino(own, benchmark), whole)
        for sector, effects in _effects(day, benchmark).items():
            sums = totals.setdefault(sector, [_ZERO] * 3)
            for at, effect in enumerate(effects):
                sums[at] = _WIDE.add(sums[at], _WIDE.multiply(scale, effect))
    returns = [_rounded(value) for value in (portfolio, universe)]
    active = _WIDE.subtract(returns[0], returns[1])
    rounded = _round_to_total(totals, active)
    return ActiveReturn(
        start_at=start_at,
        end_at=end_at,
        days=len(days),
        portfolio=returns[0],
        universe=returns[1],
        active=active,
        sectors=tuple(
            SectorEffects(
                sector,
                _mean(day.weights.get(sector, _ZERO) for day in days),
                _mean(day.universe_weights.get(sector, _ZERO) for day in days),
                *rounded[sector],
            )
            for sector in sorted(rounded)
        ),
        reason=None,
    )


def _effects(day: MarketDay, universe: Decimal) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    sectors = {*day.weights, *day.earned, *day.universe_weights}
    return {sector: _effect(day, sector, universe) for sector in sectors}


def _effect(day: MarketDay, sector: str, universe: Decimal) -> tuple[Decimal, Decimal, Decimal]:
    """Allocation, selection and interaction; `universe` is the return of the universe."""
    weight = day.weights.get(sector, _ZERO)
    earned = day.earned.get(sector, _ZERO)
    benchmark_weight = day.universe_weights.get(sector, _ZERO)
    # A sector outside the universe is no allocation bet; cash is one.
    sector_return = _ZERO if sector == CASH else day.universe_returns.get(sector, universe)
    overweight = _WIDE.subtract(weight, benchmark_weight)
    allocation = _WIDE.multiply(overweight, _WIDE.subtract(sector_return, universe))
    if weight == 0:
        return allocation, _ZERO, earned
    excess = _WIDE.subtract(_WIDE.divide(earned, weight), sector_return)
    selection = _WIDE.multiply(benchmark_weight, excess)
    return allocation, selection, _WIDE.multiply(overweight, excess)


def _universe_return(day: MarketDay) -> Decimal:
    shares = day.universe_weights
    return exact_sum(_WIDE.multiply(shares[one], day.universe_returns[one]) for one in shares)


def _compound(returns: Iterable[Decimal]) -> Decimal:
    growth = reduce(_WIDE.multiply, (_WIDE.add(_ONE, one) for one in returns), _ONE)
    return _WIDE.subtract(growth, _ONE)


def _carino(portfolio: Decimal, benchmark: Decimal) -> Decimal:
    """(ln(1 + p) - ln(1 + b)) / (p - b), or its limit if both are equal."""
    difference = _WIDE.subtract(portfolio, benchmark)
    if difference == 0:
        return _WIDE.divide(_ONE, _WIDE.add(_ONE, portfolio))
    logs = (_WIDE.ln(_WIDE.add(_ONE, value)) for value in (portfolio, benchmark))
    return _WIDE.divide(_WIDE.subtract(*logs), difference)


def _round_to_total(
    totals: Mapping[str, Sequence[Decimal]], active: Decimal
) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    """Rounds the effects so that they add up to `active`; the largest takes the remainder."""
    rounded = {(name, at): _rounded(one) for name in totals for at, one in enumerate(totals[name])}
    remainder = _WIDE.subtract(active, exact_sum(rounded.values()))
    if remainder:
        largest = max(sorted(rounded), key=lambda key: abs(rounded[key]))
        rounded[largest] = _WIDE.add(rounded[largest], remainder)
    return {name: (rounded[name, 0], rounded[name, 1], rounded[name, 2]) for name in totals}


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Sum to 60 digits."""
    return reduce(_WIDE.add, amounts, _ZERO)


def _mean(shares: Iterable[Decimal]) -> Decimal:
    known = tuple(shares)
    return _rounded(_WIDE.divide(exact_sum(known), Decimal(len(known))))


def _rounded(one: Decimal) -> Decimal:
    return one.quantize(_GRAIN, context=_WIDE)
