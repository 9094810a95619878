"""What the portfolio was worth at one moment, as it was noted then."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class PerformanceMark:
    """One for each slot of the schedule; closes that change later do not change it.

    `equity` is that of the notional index, None with the reason where a price was not known;
    `prices` are the marks of the members that had one.
    """

    slot: datetime
    at: datetime
    version: int
    equity: Decimal | None
    reason: str | None
    prices: Mapping[str, Decimal]
