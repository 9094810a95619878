"""What an approved signal asks for, and what became of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.configuration.domain.policy import Policy


class Move(StrEnum):
    """A change of the membership."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Step:
    """The change that a signal asks for."""

    move: Move
    symbol: str  # that comes in, or goes
    old_symbol: str | None = None  # that makes room


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of an approved signal; `note` says why it came to no more."""

    signal_id: str
    policy: Policy  # that applied
    step: Step | None
    note: str | None
    at: datetime
    proposal_id: str | None = None
    version: int | None = None  # of the portfolio that it made
