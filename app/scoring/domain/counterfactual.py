"""What would bring a symbol into the first places: the least change that was found, on a board.

A board holds the raw value of every factor of every symbol and each one's confidence, which is all
that ranks are made of. So a supposed value is ranked as the scoring itself would rank it.
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
from app.scoring.domain.composite import AlgorithmSpec, composite_scores
from app.scoring.domain.factors import Factor

_HALVINGS: Final = 20  # of the stretch between a change that is too small and one that is enough
_LEVERS: Final = 3  # single factors that are looked into, the heaviest first


@dataclass(frozen=True, slots=True)
class Change:
    """The raw value that a factor would need in place of the one that it has."""

    factor: str
    unit: str
    raw: float
    needed: float


@dataclass(frozen=True, slots=True)
class Entry:
    """How a symbol comes to a place among the first `top`.

    All changes together and in full bring it there; in half they do not. Without any it is there
    already if `rank` says so, else not even the best known value of every factor would do.
    """

    top: int
    rank: int
    changes: tuple[Change, ...]


def entry(board: Board, factors: Iterable[Factor], symbol: str, top: int) -> Entry | None:
    """The least change found for `symbol`; one factor if one is enough, else the heaviest ones.

    `factors` is the table that the board was made with, or one that has its factors. None for a
    symbol that is not ranked, and where the board has a factor that the table has not.
    """
    card = board.card(symbol)
    if card is None or card.rank is None:
        return None
    table = {factor.name: factor for factor in factors}
    if not {one.name for one in card.factors} <= table.keys():
        return None
    if card.rank <= top:
        return Entry(top, card.rank, ())
    return Entry(top, card.rank, _Universe.of(board, card, table).changes(card, top))


@dataclass(frozen=True, slots=True, eq=False)
class _Universe:
    spec: AlgorithmSpec
    raw: Floats  # (K, N)
    level: Floats  # (N,), NaN for those that have no score
    names: tuple[str, ...]
    own: int  # column of the symbol

    @classmethod
    def of(cls, board: Board, card: Card, table: Mapping[str, Factor]) -> "_Universe":
        cards = [one for one in board.cards if one.factors]
        raw = [[_number(reading.raw) for reading in one.factors] for one in cards]
        levels = [np.nan if one.confidence is None else one.confidence.level for one in cards]
        return cls(
            _spec(board, card, table),
            np.array(raw, dtype=np.float64).T,
            np.array(levels, dtype=np.float64),
            tuple(one.symbol for one in cards),
            cards.index(card),
        )

    def rank(self, needed: Floats) -> int:
        """The place of the symbol if its values were `needed` (K,)."""
        raw = self.raw.copy()
        raw[:, self.own] = needed
        z = all_to_millionths(self.level * composite_scores(raw, self.spec).z)
        before = (z > z[self.own]) | ((z == z[self.own]) & self._named_before)
        return 1 + int(before.sum())

    @property
    def _named_before(self) -> Bools:
        return np.array([name < self.names[self.own] for name in self.names], np.bool_)

    def changes(self, card: Card, top: int) -> tuple[Change, ...]:
        have, best = self.raw[:, self.own], self._best()
        levers = self._levers(have, best)
        alone = [[one] for one in levers if self.rank(_moved(have, best, [one], 1.0)) <= top]
        ways = alone[:_LEVERS] or self._together(have, best, levers, top)
        needed = [self._least(have, best, way, top) for way in ways]
        if not needed:
            return ()
        least = min(needed, key=lambda one: self._overtaken(have, one))
        return tuple(
            Change(reading.name, reading.unit, reading.raw, float(value))
            for reading, value in zip(card.factors, least, strict=True)
            if reading.raw is not None and reading.raw != value
        )

    def _best(self) -> Floats:
        """(K,) the best value that any symbol has; NaN where nobody has one."""
        sign = np.array([factor.orientation for factor in self.spec.factors], np.float64)
        return np.asarray(sign * np.fmax.reduce(sign[:, None] * self.raw, axis=1), np.float64)

    def _levers(self, have: Floats, best: Floats) -> list[int]:
        """Factors that count and could be better, the heaviest first."""
        weight = np.array([factor.weight for factor in self.spec.factors])
        movable = np.isfinite(have) & (best != have) & (weight > 0.0)
        return [one for one in np.argsort(-weight, kind="stable").tolist() if movable[one]]

    def _together(
        self, have: Floats, best: Floats, levers: Sequence[int], top: int
    ) -> list[Sequence[int]]:
        """As many of the heaviest as it takes; nothing where all of them do not suffice."""
        for count in range(2, len(levers) + 1):
            if self.rank(_moved(have, best, levers[:count], 1.0)) <= top:
                return [levers[:count]]
        return []

    def _least(self, have: Floats, best: Floats, way: Sequence[int], top: int) -> Floats:
        """As far towards the best as it takes: half of it is too little, or it would be taken."""
        short, enough = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (short + enough) / 2.0
            if self.rank(_moved(have, best, way, middle)) <= top:
                enough = middle
            else:
                short = middle
        return _moved(have, best, way, enough)

    def _overtaken(self, have: Floats, needed: Floats) -> int:
        """How many values of others lie on the way: what makes a change great or small."""
        low, high = np.fmin(have, needed)[:, None], np.fmax(have, needed)[:, None]
        return int(((self.raw > low) & (self.raw < high)).sum())


def _moved(have: Floats, best: Floats, way: Sequence[int], share: float) -> Floats:
    out = have.copy()
    out[way] = best[way] if share == 1.0 else have[way] + share * (best[way] - have[way])
    return out


def _spec(board: Board, card: Card, table: Mapping[str, Factor]) -> AlgorithmSpec:
    """The weights and moments that the board was made with, as it says them."""
    factors = tuple(replace(table[one.name], weight=one.weight) for one in card.factors)
    weights = {
        family: sum(one.weight for one in card.factors if one.family is family) for family in Family
    }
    total = sum(weights.values())
    shares = {family: weight / total for family, weight in weights.items()}
    return AlgorithmSpec("supposed", shares, factors, board.moments)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
