"""Performance attribution: lines per symbol and sector add up exactly to the change of equity."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from app.foundation.decimal_math import EXACT, total
from app.performance.domain.equity_curve import Point
from app.portfolio.domain.returns import BookedResult, BookedTotal

NOTHING: Final = Decimal(0)


class AttributionMethod(StrEnum):
    """Basis of the amounts: the notional index or booked results."""

    INDEX = "index"
    BOOKED = "booked"


@dataclass(frozen=True, slots=True)
class AttributionLine:
    """contribution = price_pnl + funding - fees; None is not part of this ledger."""

    name: str  # symbol or sector
    sector: str
    weight_u: int | None  # of record, for present members
    price_pnl: Decimal
    funding: Decimal | None
    fees: Decimal | None
    contribution: Decimal


@dataclass(frozen=True, slots=True)
class Attribution:
    """Ledger over a period; where `reason` is set, start, end or lines are missing."""

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
    """Gains from the last known equity at or before `since` (else the first) to that at `until`.

    Funding and fees belong to booked results only.
    """
    points = [one for one in points if one.at <= until]
    known = [at for at, one in enumerate(points) if one.equity is not None]
    if len(known) < 2 or points[known[-1]].at <= since:
        ends = [one.reason for one in points if one.reason is not None]
        why = ends[-1] if ends else "nothing was held in the period"
        return Attribution(
            AttributionMethod.INDEX, "index", None, None, None, None, None, (), (), why
        )
    before = [at for at in known if points[at].at <= since]
    first, last = before[-1] if before else known[0], known[-1]
    pnl: dict[str, Decimal] = dict.fromkeys(weights, NOTHING)
    for point in points[first + 1 : last + 1]:
        for symbol, gain in point.gains.items():
            pnl[symbol] = EXACT.add(pnl.get(symbol, NOTHING), gain)
    lines = tuple(
        AttributionLine(symbol, sector_of(symbol), weights.get(symbol), gain, None, None, gain)
        for symbol, gain in sorted(pnl.items())
    )
    start, end = points[first], points[last]
    opening, closing = start.equity or NOTHING, end.equity or NOTHING
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
    """One ledger per currency; its equity is the sum of results up to its ends.

    `totals` cover all results; `after` holds the results that occurred after `since`.
    """
    sums, late = tuple(totals), tuple(after)
    return tuple(
        _booked(currency, sums, late, since, until, weights, sector_of)
        for currency in sorted({one.currency for one in sums})
        if _has_begun(currency, sums, late, until)
    )


def _has_begun(
    currency: str, totals: Sequence[BookedTotal], after: Sequence[BookedResult], until: datetime
) -> bool:
    """Whether a result was booked in the currency up to `until`."""
    results = sum(one.results for one in totals if one.currency == currency)
    return results > sum(one.currency == currency and one.occurred_at > until for one in after)


def _booked(
    currency: str,
    totals: Sequence[BookedTotal],
    after: Sequence[BookedResult],
    since: datetime,
    until: datetime,
    weights: Mapping[str, int],
    sector_of: Callable[[str], str],
) -> Attribution:
    own = [one for one in after if one.currency == currency]
    everything = total(one.net for one in totals if one.currency == currency)
    start = EXACT.subtract(everything, total(one.net for one in own))
    inside = [one for one in own if one.occurred_at <= until]
    end = EXACT.add(start, total(one.net for one in inside))
    lines = tuple(
        _line(symbol, [one for one in inside if one.symbol == symbol], weights, sector_of)
        for symbol in sorted({one.symbol for one in inside})
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
        _sum(sector, [one for one in lines if one.sector == sector])
        for sector in sorted({one.sector for one in lines})
    )


def _sum(sector: str, lines: Sequence[AttributionLine]) -> AttributionLine:
    weights = [one.weight_u for one in lines if one.weight_u is not None]
    return AttributionLine(
        name=sector,
        sector=sector,
        weight_u=sum(weights) if weights else None,
        price_pnl=total(one.price_pnl for one in lines),
        funding=_if_known(one.funding for one in lines),
        fees=_if_known(one.fees for one in lines),
        contribution=total(one.contribution for one in lines),
    )


def _if_known(amounts: Iterable[Decimal | None]) -> Decimal | None:
    known = [one for one in amounts if one is not None]
    return total(known) if known else None
