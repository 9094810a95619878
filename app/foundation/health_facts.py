"""Health facts of background tasks and of the service's processes."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One background task: when it last succeeded and what went wrong since.

    `silent_s` is how long it has given no sign of life, `limit_s` how long it may; None: it waits
    for what its first sign needs. `rest_s` is how long it waits between two turns as a rule.
    `since_success_s` counts from `last_success_at` by monotonic time, which no step of the wall
    clock moves. `failed_until` is set while it counts as failed, after so many `crashes` by errors
    that nobody foresaw.
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
        """For so long beyond its rest that it is likely to be ended soon."""
        return self.limit_s is not None and self.silent_s > (self.limit_s + self.rest_s) / 2


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process on the database that several share, as it was last heard of."""

    name: str
    role: str | None
    version: str | None
    is_self: bool
    leader_epoch: int | None  # of the feed that it owns
    configuration_matches: bool  # it runs with the same code and settings as this one
