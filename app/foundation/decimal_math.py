"""Exact arithmetic: sums of stored amounts, and the integers that decisions compare.

Decisions compare integers, Fractions, or floats rounded by one of three functions: `to_millionths`
(one value), `all_to_millionths` (an array), `to_significant` (a value without a scale of its own).
Ties have a stated order.
"""

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

ONE: Final = 1_000_000  # in millionths
EXACT: Final = Context(prec=76)  # twice the 38 digits that are stored


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Returns the sum without rounding; 0 for no amounts."""
    result = Decimal(0)
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result


def net(pnl: Decimal, funding: Decimal, fees: Decimal) -> Decimal:
    """Returns price result plus funding received minus fees paid, without rounding.

    The result has no trailing zeros, so that equal amounts have equal text.
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
    """Returns True if `value` exceeds `limit` by at least a millionth, both rounded."""
    return to_millionths(value) > to_millionths(limit)


def all_to_millionths(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounds an array to whole millionths; NaN stays NaN, infinity stays infinity."""
    return np.asarray(np.rint(values * ONE), np.float64)


def to_significant(value: float) -> Decimal:
    """Rounds a finite number without a scale of its own to nine significant digits."""
    return Decimal(f"{value:.8e}")
