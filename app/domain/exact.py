"""Exact arithmetic: sums of stored amounts, and the integers that decisions compare."""

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Final

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
    return round(value * 1_000_000)
