"""Modes of the service, and health facts of its tasks and processes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Mode(StrEnum):
    """NORMAL decides; DEGRADED decides without the stale symbols; FROZEN only reads.

    HALTED only reads, too, until somebody has made room or the database writable again.
    """

    NORMAL = "NORMAL"
    DEGRADED = "DEGRADED"
    FROZEN = "FROZEN"
    HALTED = "HALTED"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One background task: when it last succeeded and what went wrong since.

    `silent_s` is how long it has given no sign of life, `limit_s` how long it may; None: it waits
    for what its first sign needs. `failed_until` is set while it counts as failed, after so many
    `crashes` by errors that nobody foresaw.
    """

    name: str
    running: bool
    last_success_at: datetime | None
    last_error: str | None
    failures: int
    silent_s: float = 0.0
    limit_s: float | None = None
    crashes: int = 0
    failed_until: datetime | None = None

    @property
    def is_silent(self) -> bool:
        """For so long that it is likely to be ended soon."""
        return self.limit_s is not None and self.silent_s > self.limit_s / 2


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process on the database that several share, as it was last heard of."""

    name: str
    role: str | None
    version: str | None
    is_self: bool
    leader_epoch: int | None  # of the feed that it owns
    configuration_matches: bool  # it runs with the same code and settings as this one
