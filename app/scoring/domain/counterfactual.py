"""Counterfactual explanation: smallest change found that moves a symbol to a wanted rank.

A board holds the raw value of every factor and the confidence of every symbol, the only inputs of
ranks. A supposed value is therefore ranked exactly as scoring would rank it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from app.configuration.domain.sections import Family
from app.foundation.decimal_math import all_to_millionths
from app.market.domain.models import Floats
from app.market.domain.panel import Bools
from app.scoring.domain.board import Board, Card
from app.scoring.domain.composite import EXPOSURES, RANKING, AlgorithmSpec, composite_scores
from app.scoring.domain.factors import Factor

_BISECTIONS: Final = 20  # between an insufficient and a sufficient change
_MAX_SINGLE_FACTORS: Final = 3  # single factors that are searched, the heaviest first


@dataclass(frozen=True, slots=True)
class FactorChange:
    """Raw value of a factor, and the raw value that it would need."""

    factor: str
    unit: str
    raw: float
    needed: float


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Changes that bring a symbol among the first `top` ranks.

    All changes together and in full are enough; half of each is not. `changes` is empty if `rank`
    is within `top`, or if even the best known value of every factor is not enough.
    """

    top: int
    rank: int
    changes: tuple[FactorChange, ...]


def find_counterfactual(
    board: Board, factors: Iterable[Factor], symbol: str, top: int
) -> Counterfactual | None:
    """Searches the smallest change: one factor if one is enough, else the heaviest ones.

    `factors` must contain the factors of the board. Returns None for an unranked symbol, and where
    a factor of the board is missing in `factors`.
    """
    card = board.card(symbol)
    if card is None or card.rank is None:
        return None
    table = {factor.name: factor for factor in factors}
    if not {one.name for one in card.factors} <= table.keys():
        return None
    if card.rank <= top:
        return Counterfactual(top, card.rank, ())
    return Counterfactual(top, card.rank, _Universe.of(board, card, table).find_changes(card, top))


@dataclass(frozen=True, slots=True, eq=False)
class _Universe:
    spec: AlgorithmSpec
    raw: Floats  # (K, N)
    level: Floats  # (N,), NaN for a symbol without a score
    names: tuple[str, ...]
    own: int  # column of the symbol

    @classmethod
    def of(cls, board: Board, card: Card, table: Mapping[str, Factor]) -> "_Universe":
        cards = [one for one in board.cards if one.factors]
        raw = [[_number(reading.raw) for reading in one.factors] for one in cards]
        levels = [np.nan if one.confidence is None else one.confidence.level for one in cards]
        return cls(
            _spec_from_board(board, card, table),
            np.array(raw, dtype=np.float64).T,
            np.array(levels, dtype=np.float64),
            tuple(one.symbol for one in cards),
            cards.index(card),
        )

    def rank(self, needed: Floats) -> int:
        """Rank of the symbol if its raw values were `needed` (K,)."""
        raw = self.raw.copy()
        raw[:, self.own] = needed
        z = all_to_millionths(self.level * composite_scores(raw, self.spec).z)
        before = (z > z[self.own]) | ((z == z[self.own]) & self._sorts_before)
        return 1 + int(before.sum())

    @property
    def _sorts_before(self) -> Bools:
        return np.array([name < self.names[self.own] for name in self.names], np.bool_)

    def find_changes(self, card: Card, top: int) -> tuple[FactorChange, ...]:
        current, best = self.raw[:, self.own], self._best()
        improvable = self._improvable(current, best)
        single = [
            [one]
            for one in improvable
            if self.rank(_interpolated(current, best, [one], 1.0)) <= top
        ]
        options = single[:_MAX_SINGLE_FACTORS] or self._smallest_set(current, best, improvable, top)
        needed = [self._bisect(current, best, chosen, top) for chosen in options]
        if not needed:
            return ()
        least = min(needed, key=lambda one: self._count_overtaken(current, one))
        return tuple(
            FactorChange(reading.name, reading.unit, reading.raw, float(value))
            for reading, value in zip(card.factors, least, strict=True)
            if reading.raw is not None and reading.raw != value
        )

    def _best(self) -> Floats:
        """(K,) best value of any symbol; NaN where no symbol has one."""
        sign = np.array([factor.orientation for factor in self.spec.factors], np.float64)
        return np.asarray(sign * np.fmax.reduce(sign[:, None] * self.raw, axis=1), np.float64)

    def _improvable(self, current: Floats, best: Floats) -> list[int]:
        """Weighted factors with a value below the best one, the heaviest first."""
        weight = np.array([factor.weight for factor in self.spec.factors])
        movable = np.isfinite(current) & (best != current) & (weight > 0.0)
        return [one for one in np.argsort(-weight, kind="stable").tolist() if movable[one]]

    def _smallest_set(
        self, current: Floats, best: Floats, improvable: Sequence[int], top: int
    ) -> list[Sequence[int]]:
        """Smallest number of the heaviest factors that is enough; empty if all are not."""
        for count in range(2, len(improvable) + 1):
            if self.rank(_interpolated(current, best, improvable[:count], 1.0)) <= top:
                return [improvable[:count]]
        return []

    def _bisect(self, current: Floats, best: Floats, chosen: Sequence[int], top: int) -> Floats:
        """(K,) values with the smallest sufficient share of the way to the best, by bisection."""
        short, enough = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (short + enough) / 2.0
            if self.rank(_interpolated(current, best, chosen, middle)) <= top:
                enough = middle
            else:
                short = middle
        return _interpolated(current, best, chosen, enough)

    def _count_overtaken(self, current: Floats, needed: Floats) -> int:
        """Number of other symbols' values passed by the change: its size in ranks."""
        low, high = np.fmin(current, needed)[:, None], np.fmax(current, needed)[:, None]
        return int(((self.raw > low) & (self.raw < high)).sum())


def _interpolated(current: Floats, best: Floats, chosen: Sequence[int], share: float) -> Floats:
    out = current.copy()
    out[chosen] = (
        best[chosen] if share == 1.0 else current[chosen] + share * (best[chosen] - current[chosen])
    )
    return out


def _spec_from_board(board: Board, card: Card, table: Mapping[str, Factor]) -> AlgorithmSpec:
    """Algorithm with the weights and moments that the board records."""
    factors = tuple(replace(table[one.name], weight=one.weight) for one in card.factors)
    weights = {
        family: sum(one.weight for one in card.factors if one.family is family) for family in Family
    }
    total = sum(weights.values())
    shares = {family: weight / total for family, weight in weights.items()}
    taken_out = card.neutralisation.keys() - {RANKING}
    neutralise = next(mode for mode, names in EXPOSURES.items() if set(names) == taken_out)
    return AlgorithmSpec("supposed", shares, factors, board.moments, neutralise=neutralise)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
