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
    waits for its start condition. `rest_s` is its usual wait between two runs. `since_success_s`
    counts from `last_success_at` by monotonic time, so that no step of the wall clock moves it.
    `failed_until` is set while the task counts as failed, after `crashes` unexpected errors.
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
    since_success_s: float | None = None
    rest_s: float = 0.0

    @property
    def is_silent(self) -> bool:
        """True once silence beyond the usual wait exceeds half of what the limit leaves."""
        return self.limit_s is not None and self.silent_s > (self.limit_s + self.rest_s) / 2


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process on a shared database, as of its last heartbeat."""

    name: str
    role: str | None
    version: str | None
    is_self: bool
    leader_epoch: int | None  # of the feed lease, if this process leads
    configuration_matches: bool  # same code and settings as the answering process


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """Connection pool as it is used; None where a figure does not apply to the database."""

    database: str  # sqlite or postgresql
    size: int
    in_use: int
    recycle_s: int | None
    is_pre_pinged: bool | None
