"""Exact arithmetic: sums of stored amounts, and the integers that decisions compare.

The rule of all decisions: they compare integers, Fractions, or what `to_millionths` (a figure),
`all_to_millionths` (an array) or `to_significant` (a figure without a scale of its own) makes of a
float. Equal ones have a stated order.
"""

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

ONE: Final = 1_000_000  # in millionths
EXACT: Final = Context(prec=76)  # twice the 38 digits that are stored


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum without rounding; 0 of nothing."""
    out = Decimal(0)
    for one in amounts:
        out = EXACT.add(out, one)
    return out


def net(pnl: Decimal, funding: Decimal, fees: Decimal) -> Decimal:
    """What is left of a result of prices after funding received and fees paid, to the last digit.

    Written without trailing zeros, so that equal amounts read the same.
    """
    return EXACT.normalize(EXACT.subtract(EXACT.add(pnl, funding), fees))


def to_millionths(value: float) -> int:
    """Rounds a z-value, score, correlation or share to integer millionths, half to even.

    Decisions compare and order these integers instead of raw floats, so that the last bits of a
    floating-point result, which differ between processors, change no decision.
    Raises ValueError for NaN and OverflowError for infinities.
    """
    return round(value * ONE)


def is_above(value: float, limit: float) -> bool:
    """Whether one is more than the other by at least a millionth, both rounded."""
    return to_millionths(value) > to_millionths(limit)


def all_to_millionths(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same for arrays: whole numbers, NaN where a value is missing, infinity stays."""
    return np.asarray(np.rint(values * ONE), np.float64)


def to_significant(value: float) -> Decimal:
    """Rounds a finite number without a scale of its own to nine significant digits."""
    return Decimal(f"{value:.8e}")
