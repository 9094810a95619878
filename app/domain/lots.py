"""Weights become whole lots together: the exact choice within the budget for up to ten symbols."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from app.domain.market import Floats

EXACT: Final = 10  # for so many symbols no choice of whole steps is better
ACCURACY: Final = 0.01  # one percentage point of equity
_ROUNDING: Final = 1e-12  # of floating point, never of money
_ALIKE: Final = 1e-10  # sums of squares no further apart are equal: a thousandth of a point
_PATIENCE: Final = 20_000  # cases looked at: where that is not enough, many are nearly alike


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps of the lot size by symbol, in the order asked for; errors are fractions of equity."""

    steps: tuple[int, ...]
    errors: tuple[float, ...]  # realised minus wanted

    @property
    def is_accurate(self) -> bool:
        """Whether every weight is within one percentage point of its target."""
        return all(abs(error) <= ACCURACY + _ROUNDING for error in self.errors)


def choose_lots(weights: Sequence[float], sizes: Sequence[float], minimum: float = 0.0) -> Choice:
    """Whole steps whose values come closest to `weights`, together at most the whole equity.

    `sizes` is the value of one step of each symbol, as a fraction of equity and above zero.
    First that every weight is within one percentage point of its target, if any choice of whole
    steps is; then that no weight that should be at least `minimum` is a step or more below it;
    then the least sum of squared errors. With more than ten symbols that sum is near the least.
    """
    if not weights:
        return Choice((), ())
    wanted, lot = np.array(weights, np.float64), np.array(sizes, np.float64)
    nearest = np.maximum(np.ceil(wanted / lot - 0.5 - _ROUNDING), 0.0)
    budget = max(1.0, float(np.floor(wanted / lot + _ROUNDING) @ lot))
    errors, excess = nearest * lot - wanted, float(nearest @ lot) - budget
    steps = nearest
    if excess > _ROUNDING:
        spare = nearest - _least(wanted, lot, minimum, budget)
        steps = nearest - _given_up(errors, lot, spare, excess)
    return Choice(
        tuple(int(one) for one in steps), tuple(float(one) for one in steps * lot - wanted)
    )


def minimum_capital(values: Sequence[float]) -> float:
    """Equity from which on rounding costs no symbol more than one percentage point.

    `values` is what one step of each symbol is worth; an error is at most half a step.
    """
    return max(values, default=0.0) / (2.0 * ACCURACY)


def _least(wanted: Floats, lot: Floats, minimum: float, budget: float) -> Floats:
    """The fewest steps of each symbol under the strictest demands that the budget can meet."""
    accurate = np.maximum(np.ceil((wanted - ACCURACY) / lot - _ROUNDING), 0.0)
    bounded = np.maximum(np.floor(minimum / lot + _ROUNDING), 0.0)
    bounded[wanted < minimum - _ROUNDING] = 0.0
    for demand in (np.maximum(accurate, bounded), accurate):
        is_met = (demand * lot - wanted) <= ACCURACY + _ROUNDING
        if bool(is_met.all()) and float(demand @ lot) <= budget + _ROUNDING:
            return np.asarray(demand, np.float64)
    return bounded  # no more than the weights rounded down, which are affordable


def _given_up(errors: Floats, lot: Floats, spare: Floats, excess: float) -> Floats:
    """How many of its nearest number of steps each symbol gives up, `excess` together.

    More than the nearest number would be further from the target and cost more, so that this is
    all that there is to choose. The dearest steps are decided on first: the others fill up.
    """
    order = np.argsort(-lot, kind="stable")
    search = _Search(
        errors[order].tolist(),
        lot[order].tolist(),
        [int(one) for one in spare[order]],
        _PATIENCE if len(lot) <= EXACT else 0,
    )
    search.look(0, excess, 0.0)
    out = np.zeros(len(lot))
    out[order] = search.found
    return out


@dataclass(slots=True)
class _Search:
    """Branch and bound over the steps given up, symbol by symbol."""

    errors: list[float]  # of the nearest steps
    lot: list[float]
    spare: list[int]  # steps that may be given up
    patience: int
    best: float = math.inf
    found: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)

    def look(self, at: int, excess: float, cost: float) -> None:
        """The ways of the symbols from `at` on to give up `excess` that may be better."""
        self.patience -= 1
        if at == len(self.lot):
            self.best, self.found = cost, list(self.path)
            return
        lot, error = self.lot[at], self.errors[at]
        others = sum(
            n * one for n, one in zip(self.spare[at + 1 :], self.lot[at + 1 :], strict=True)
        )
        fewest = min(max(math.ceil((excess - others) / lot - _ROUNDING), 0), self.spare[at])
        most = max(min(math.ceil(excess / lot - _ROUNDING), self.spare[at]), fewest)

        def rated(steps: int) -> tuple[float, int]:
            if not fewest <= steps <= most:
                return math.inf, steps
            left = excess - steps * lot
            return cost + (error - steps * lot) ** 2 + self._least_of(at + 1, left), steps

        # What it costs is convex in the steps: on either side of the cheapest it only rises.
        middle = (error - _level(sorted(self.errors[at:]), excess)[0]) / lot
        start = min(max(math.floor(middle), fewest), most)
        down, up = rated(start), rated(start + 1)
        while True:
            bound, steps = min(down, up)
            if bound >= self.best - _ALIKE or (self.found and self.patience < 0):
                return
            self.path.append(steps)
            self.look(at + 1, excess - steps * lot, cost + (error - steps * lot) ** 2)
            self.path.pop()
            if steps == down[1]:
                down = rated(steps - 1)
            else:
                up = rated(steps + 1)

    def _least_of(self, at: int, excess: float) -> float:
        """What those from `at` on cost at least when they give up `excess`."""
        errors = sorted(self.errors[at:])
        alone = sum(one**2 for one in errors)  # nobody gets nearer than by its nearest steps
        if excess <= _ROUNDING or not errors:
            return alone
        level, count = _level(errors, excess)
        shared = sum(one**2 for one in errors[: len(errors) - count]) + count * level**2
        return max(alone, shared) if level < 0.0 else alone


def _level(errors: list[float], excess: float) -> tuple[float, int]:
    """Where the `errors`, which rise, end that give up `excess` in parts, and how many give."""
    total, count = sum(errors) - excess, len(errors)
    for error in errors[:-1]:
        if error * count >= total:
            break
        total, count = total - error, count - 1
    return total / count, count
