"""What holds a position back: each cap with what was wanted, what it allows and who says so."""

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import Final


class CapName(StrEnum):
    """In the order in which they are applied."""

    WEIGHT = "weight"  # the largest weight of one symbol
    LEVERAGE = "leverage"  # the contract's
    GROSS_LEVERAGE = "gross_leverage"  # value of all members over equity
    VOLATILITY_TARGET = "volatility_target"  # of the portfolio
    LIQUIDATION_DISTANCE = "liquidation_distance"
    PORTFOLIO_VAR = "portfolio_var"
    CONFIDENCE = "confidence"
    KELLY = "kelly"
    TURNOVER = "turnover"
    DEPTH = "depth"


@dataclass(frozen=True, slots=True)
class Cap:
    """`value` is what the position would have had when the cap was looked at.

    It is a maximum, except the distance of liquidation, which is a minimum.
    """

    name: CapName
    value: Decimal
    limit: Decimal
    unit: str  # percent, times (equity), fraction, or quote (currency)
    source: str
    is_applied: bool


_ANY: Final = Decimal(10) ** 9  # more leverage than any contract has


@dataclass(frozen=True, slots=True)
class Lever:
    """A cap of leverage on something that grows in proportion to it."""

    name: CapName
    per_unit: Decimal  # what a leverage of 1 brings
    limit: Decimal
    unit: str
    source: str

    @property
    def most(self) -> Decimal:
        """The largest leverage within the limit."""
        return _leverage(self.limit / self.per_unit) if self.per_unit > 0 else _ANY

    def cap(self, leverage: Decimal) -> Cap:
        """What `leverage` would bring, against the limit."""
        value, applied = leverage * self.per_unit, leverage > self.most
        return Cap(self.name, value, self.limit, self.unit, self.source, applied)


@dataclass(frozen=True, slots=True)
class Distance:
    """A long may not be closed by force before its price has lost `least`, a fraction.

    Its margin is value / leverage, and nothing else stands by it. Of a linear contract 1/L less
    the maintenance margin counts (QUANT section 8). An inverse one loses coins the faster the
    deeper it falls: (1/L - m) / (1 + 1/L) is the exact distance.
    """

    least: Decimal
    maintenance_margin: Decimal
    is_inverse: bool

    @property
    def most(self) -> Decimal:
        """The largest leverage that keeps the distance; 0 where none does."""
        needed = self.least + self.maintenance_margin
        room = max(1 - self.least, Decimal(0)) if self.is_inverse else Decimal(1)
        return _leverage(room / needed) if needed > 0 else _ANY

    def cap(self, leverage: Decimal) -> Cap:
        """How far away `leverage` would leave it, against the least."""
        value = 1 / leverage - self.maintenance_margin
        if self.is_inverse:
            value /= 1 + 1 / leverage
        name, applied = CapName.LIQUIDATION_DISTANCE, leverage > self.most
        return Cap(name, value, self.least, "fraction", "daily_candles", applied)


def amount(name: CapName, wanted: Decimal, limit: Decimal, source: str) -> Cap:
    """A cap of the value in quote currency."""
    return Cap(name, wanted, limit, "quote", source, limit < wanted)


def _leverage(exact: Decimal) -> Decimal:
    """Six decimals, never more than exact."""
    return min(exact, _ANY).quantize(Decimal("0.000001"), ROUND_DOWN)
