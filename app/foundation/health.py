"""Modes of the service, and health facts of its tasks and processes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Mode(StrEnum):
    """NORMAL decides; DEGRADED decides without stale symbols; FROZEN is read-only.

    HALTED is read-only until an operator has freed disk space or made the database writable.
    """

    NORMAL = "NORMAL"
    DEGRADED = "DEGRADED"
    FROZEN = "FROZEN"
    HALTED = "HALTED"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """State of one background task: last success and errors since.

    `silent_s` is the time since the last heartbeat, `limit_s` its limit; None while the task still
    waits for its start condition. `failed_until` is set while the task counts as failed, after
    `crashes` unexpected errors.
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
        """True once silence exceeds half of the limit."""
        return self.limit_s is not None and self.silent_s > self.limit_s / 2


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process on a shared database, as of its last heartbeat."""

    name: str
    role: str | None
    version: str | None
    is_self: bool
    leader_epoch: int | None  # of the feed lease, if this process leads
    configuration_matches: bool  # same code and settings as the answering process
