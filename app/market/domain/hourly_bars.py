"""Hourly bars of a symbol and the states in which it has none any more."""

from dataclasses import dataclass
from typing import Final

from app.market.domain.models import ContractStatus

OVER: Final = frozenset(
    {
        ContractStatus.BEING_SETTLED,
        ContractStatus.SETTLED,
        ContractStatus.CLOSED,
        ContractStatus.VANISHED,
    }
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed hourly bar."""

    opened_ms: int
    open: float
    close: float
