"""Ports of the use cases: clocks, identifiers and durable runs; adapters match structurally."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from app.foundation.jobs import Document, Enqueued, Job, JobState

Clock = Callable[[], datetime]  # aware, UTC
Monotonic = Callable[[], float]  # seconds
NewId = Callable[[], str]  # UUID text


class Jobs(Protocol):
    """Durable runs: started once per run id, and resumed after a crash.

    Kinds must be registered. Every method raises UnavailableError while the job store is
    unreachable.
    """

    async def enqueue(
        self, kind: str, payload: Document, *, run_id: str, key: str | None = None
    ) -> Enqueued:
        """Starts a run once; `run_id` names the request and makes a retry return the same run.

        While a run with this `key` is unfinished, further requests return that run. After
        UnavailableError the run may still start later; a retry must use the same `run_id`.
        """
        ...

    async def job(self, run_id: str) -> Job:
        """Returns one run. Raises NotFoundError for an unknown or deleted one."""
        ...

    async def wait_for_end(self, run_id: str) -> Job:
        """Waits until the run has ended, however it does. Raises NotFoundError."""
        ...

    async def jobs(
        self,
        *,
        kind: str | None = None,
        state: JobState | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> tuple[Job, ...]:
        """Returns runs newest first, without steps; `before` is the last (created_at, run_id)."""
        ...

    async def cancel(self, run_id: str) -> Job:
        """Cancels further steps; a running step may still end. Raises NotFoundError."""
        ...

    async def forget(self, finished_before: datetime) -> int:
        """Deletes runs that finished before that time; returns their number."""
        ...


class StepJournal(Protocol):
    """Records the steps of a durable run, so that a resumed run skips finished steps."""

    @property
    def run_id(self) -> str: ...

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        """Runs `action` once and records its result; a resumed run returns the recorded result.

        A crash between action and record runs the action again, so it must be repeatable.
        """
        ...

    def share(self, done: int, total: int) -> None:
        """Reports progress of the running step; updates that come too fast are dropped."""
        ...
