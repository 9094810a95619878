"""Exact arithmetic on stored amounts: neither a sum nor a product of two loses a digit."""

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
