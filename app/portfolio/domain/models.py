"""The portfolio as a value: members, ranks, weights and cash that always add up."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

FULL: Final = 100_000_000  # micro-percent: 100 % exactly


@dataclass(frozen=True, slots=True)
class Member:
    """A symbol in the portfolio; weights are integer micro-percent of equity.

    A member is traded while its target weight is above zero. The target weight is the state of the
    hysteresis between the enter and leave thresholds; only committed changes modify it.
    """

    symbol_id: str
    symbol: str
    contract: str
    rank: int
    included_at: datetime
    inclusion_reason: str
    inclusion_price: Decimal | None  # mark price at inclusion; None if unknown
    inclusion_score: float | None
    weight_u: int
    target_weight_u: int


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Portfolio with its members in rank order; invariants P1-P4 of the design always hold."""

    version: int
    configuration_version: int
    members: tuple[Member, ...]
    cash_u: int
    weighted_at: datetime | None = None  # when these members were last weighted

    def member(self, symbol: str) -> Member | None:
        return next((member for member in self.members if member.symbol == symbol), None)


EMPTY: Final = Portfolio(version=0, configuration_version=1, members=(), cash_u=FULL)


def faults(portfolio: Portfolio, most: int) -> tuple[str, ...]:
    """Describe every broken invariant; empty for a valid portfolio.

    `most` is the largest number of members that the configuration in force allows.
    """
    weights = tuple(member.weight_u for member in portfolio.members)
    targets = tuple(member.target_weight_u for member in portfolio.members)
    ranks = tuple(member.rank for member in portfolio.members)
    names = {member.symbol_id for member in portfolio.members}
    total = sum(weights) + portfolio.cash_u
    checks = (
        (len(ranks) > most, f"{len(ranks)} members, {most} are allowed"),
        (ranks != tuple(range(1, len(ranks) + 1)), f"ranks are {list(ranks)}"),
        (len(names) != len(ranks), "a symbol is a member twice"),
        (total != FULL, f"weights and cash add up to {total} of {FULL}"),
        (min((*weights, *targets, portfolio.cash_u)) < 0, "a weight or the cash is negative"),
    )
    return tuple(message for broken, message in checks if broken)
