"""Brinson attribution of the active return: allocation, selection, interaction.

Brinson by sector against the equal-weight universe, day by day, linked after Carino. What is not
invested is a sector of its own that earns nothing and is no part of the universe.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from functools import reduce
from typing import Final

CASH: Final = "cash"
_WIDE: Final = Context(prec=60)
_GRAIN: Final = Decimal(1).scaleb(-18)
_NOTHING: Final = Decimal(0)
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
        return sum_of((self.allocation, self.selection, self.interaction))


@dataclass(frozen=True, slots=True)
class ActiveReturn:
    """Active return; the effects of all sectors add up to it exactly.

    Returns are None with the reason where a day is unknown.
    """

    start_at: datetime | None
    end_at: datetime | None
    days: int
    portfolio: Decimal | None
    universe: Decimal | None
    active: Decimal | None  # portfolio minus universe
    sectors: tuple[SectorEffects, ...]
    reason: str | None


def unknown(reason: str) -> ActiveReturn:
    """Result without figures, with the reason."""
    return ActiveReturn(None, None, 0, None, None, None, (), reason)


def explained(days: Sequence[MarketDay], start_at: datetime, end_at: datetime) -> ActiveReturn:
    """Link the known days of a period.

    For a sector outside the universe the whole effect is interaction, as is the return of a
    sector on its first day.
    """
    earned = [(sum_of(day.earned.values()), _universe_return(day)) for day in days]
    if any(one <= -1 for both in earned for one in both):
        return unknown("a day on which everything was lost cannot be linked")
    portfolio, universe = (_compounded(one) for one in zip(*earned, strict=True))
    whole = _carino(portfolio, universe)
    totals: dict[str, list[Decimal]] = {}
    for day, (ours, theirs) in zip(days, earned, strict=True):
        scale = _WIDE.divide(_carino(ours, theirs), whole)
        for sector, effects in _effects(day, theirs).items():
            sums = totals.setdefault(sector, [_NOTHING] * 3)
            for at, effect in enumerate(effects):
                sums[at] = _WIDE.add(sums[at], _WIDE.multiply(scale, effect))
    returns = [_rounded(one) for one in (portfolio, universe)]
    active = _WIDE.subtract(returns[0], returns[1])
    rounded = _adding_up(totals, active)
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
                _mean(day.weights.get(sector, _NOTHING) for day in days),
                _mean(day.universe_weights.get(sector, _NOTHING) for day in days),
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
    weight = day.weights.get(sector, _NOTHING)
    earned = day.earned.get(sector, _NOTHING)
    theirs = day.universe_weights.get(sector, _NOTHING)
    # A sector outside the universe is no allocation bet; cash is one.
    other = _NOTHING if sector == CASH else day.universe_returns.get(sector, universe)
    over = _WIDE.subtract(weight, theirs)
    allocation = _WIDE.multiply(over, _WIDE.subtract(other, universe))
    if weight == 0:
        return allocation, _NOTHING, earned
    better = _WIDE.subtract(_WIDE.divide(earned, weight), other)
    return allocation, _WIDE.multiply(theirs, better), _WIDE.multiply(over, better)


def _universe_return(day: MarketDay) -> Decimal:
    shares = day.universe_weights
    return sum_of(_WIDE.multiply(shares[one], day.universe_returns[one]) for one in shares)


def _compounded(returns: Iterable[Decimal]) -> Decimal:
    growth = reduce(_WIDE.multiply, (_WIDE.add(_ONE, one) for one in returns), _ONE)
    return _WIDE.subtract(growth, _ONE)


def _carino(ours: Decimal, theirs: Decimal) -> Decimal:
    """(ln(1 + p) - ln(1 + b)) / (p - b), or its limit where both are equal."""
    apart = _WIDE.subtract(ours, theirs)
    if apart == 0:
        return _WIDE.divide(_ONE, _WIDE.add(_ONE, ours))
    logs = (_WIDE.ln(_WIDE.add(_ONE, one)) for one in (ours, theirs))
    return _WIDE.divide(_WIDE.subtract(*logs), apart)


def _adding_up(
    totals: Mapping[str, Sequence[Decimal]], active: Decimal
) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    """Round the effects so that they add up to `active`: the largest takes the remainder."""
    rounded = {(name, at): _rounded(one) for name in totals for at, one in enumerate(totals[name])}
    left = _WIDE.subtract(active, sum_of(rounded.values()))
    if left:
        largest = max(sorted(rounded), key=lambda key: abs(rounded[key]))
        rounded[largest] = _WIDE.add(rounded[largest], left)
    return {name: (rounded[name, 0], rounded[name, 1], rounded[name, 2]) for name in totals}


def sum_of(amounts: Iterable[Decimal]) -> Decimal:
    """Product to 60 digits."""
    return reduce(_WIDE.add, amounts, _NOTHING)


def _mean(shares: Iterable[Decimal]) -> Decimal:
    known = tuple(shares)
    return _rounded(_WIDE.divide(sum_of(known), Decimal(len(known))))


def _rounded(one: Decimal) -> Decimal:
    return one.quantize(_GRAIN, context=_WIDE)
