"""Weights become whole lots together: the exact choice within the budget for up to ten symbols."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from app.domain.market import Floats

EXACT: Final = 10  # so many symbols are chosen for by looking at every case
ACCURACY: Final = 0.01  # one percentage point of equity
_ROUNDING: Final = 1e-12  # of floating point, never of money


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps of the lot size by symbol, in the order asked for; errors are fractions of equity."""

    steps: tuple[int, ...]
    errors: tuple[float, ...]  # realised minus wanted

    @property
    def is_accurate(self) -> bool:
        """Whether every weight is within one percentage point of its target."""
        return all(abs(error) <= ACCURACY + _ROUNDING for error in self.errors)


def choose_lots(weights: Sequence[float], sizes: Sequence[float]) -> Choice:
    """Whole steps whose values come closest to `weights`, together at most the whole equity.

    `sizes` is the value of one step of each symbol, as a fraction of equity and above zero.
    First that every weight is within one percentage point of its target, if any choice of whole
    steps is; then the least sum of squared errors. Up to ten symbols every combination of
    rounding down, rounding up and the least that is accurate is looked at, so that the result is
    never worse than rounding; more symbols are rounded up by largest gain.
    """
    if not weights:
        return Choice((), ())
    wanted, lot = np.array(weights, np.float64), np.array(sizes, np.float64)
    steps = _exact(wanted, lot) if len(wanted) <= EXACT else _greedy(wanted, lot)
    steps = _filled(steps, wanted, lot)
    errors = steps * lot - wanted
    return Choice(tuple(int(one) for one in steps), tuple(float(one) for one in errors))


def minimum_capital(values: Sequence[float]) -> float:
    """Equity from which on rounding costs no symbol more than one percentage point.

    `values` is what one step of each symbol is worth; an error is at most half a step.
    """
    return max(values, default=0.0) / (2.0 * ACCURACY)


def _down(wanted: Floats, lot: Floats) -> Floats:
    return np.asarray(np.floor(wanted / lot + _ROUNDING), np.float64)


def _options(weight: float, size: float) -> tuple[int, ...]:
    down = math.floor(weight / size + _ROUNDING)
    least = max(math.ceil((weight - ACCURACY) / size - _ROUNDING), 0)
    near = {down, down + 1}
    if least < down:  # the least that is accurate: what it leaves may pay for a dear symbol
        near.add(least)
    return tuple(sorted(near))


def _exact(wanted: Floats, lot: Floats) -> Floats:
    choices = [_options(float(w), float(size)) for w, size in zip(wanted, lot, strict=True)]
    cases = np.array(list(product(*choices)), np.float64)  # (up to 3^10, N)
    values = cases * lot
    errors = np.abs(values - wanted)
    affordable = values.sum(axis=1) <= max(1.0, float(_down(wanted, lot) @ lot)) + _ROUNDING
    rough = (errors > ACCURACY + _ROUNDING).any(axis=1)
    squares = (errors**2).sum(axis=1)
    order = np.lexsort((squares, rough, ~affordable))
    return np.asarray(cases[order[0]], np.float64)


def _greedy(wanted: Floats, lot: Floats) -> Floats:
    steps = _down(wanted, lot)
    left = 1.0 - float(steps @ lot)
    gains = (wanted - steps * lot) ** 2 - (wanted - (steps + 1.0) * lot) ** 2
    for at in np.argsort(-gains, kind="stable"):
        if gains[at] > 0.0 and lot[at] <= left + _ROUNDING:
            steps[at] += 1.0
            left -= float(lot[at])
    return steps


def _filled(steps: Floats, wanted: Floats, lot: Floats) -> Floats:
    """What is left of the budget goes to those that stand below their rounded-down weight."""
    filled, floors = steps.copy(), _down(wanted, lot)
    left = 1.0 - float(filled @ lot)
    for at in np.argsort(filled * lot - wanted, kind="stable"):
        room = min(floors[at] - filled[at], math.floor(max(left, 0.0) / float(lot[at]) + _ROUNDING))
        if room > 0.0:
            filled[at] += room
            left -= room * float(lot[at])
    return filled
