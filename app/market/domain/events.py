"""Events that market data publishes."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """The service decides more or less than before; `cause` is a stable word."""

    was: str
    mode: str
    cause: str
    stale_symbols: int
    occurred_at: datetime
