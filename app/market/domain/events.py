"""Events that market data publishes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.foundation.events import EventKind, EventTopic
from app.market.domain.sectors import SectorChange


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """Change of the service mode; `cause` is a stable word."""

    was: str
    mode: str
    cause: str
    stale_symbols: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class SectorsChanged:
    """The sector table has another version; versions follow each other without a gap."""

    version: int
    changes: tuple[SectorChange, ...]
    reason: str
    actor: str
    occurred_at: datetime


EVENTS: Final = (
    EventKind(ModeChanged, "mode_changed", EventTopic.MODE),
    EventKind(SectorsChanged, "sectors_changed", EventTopic.CONFIGURATION),
)
