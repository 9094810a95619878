"""What the use cases ask of the outside; adapters fit these structurally."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from app.foundation.jobs import Document, Enqueued, Job, JobState

Clock = Callable[[], datetime]  # aware, UTC
Monotonic = Callable[[], float]  # seconds
NewId = Callable[[], str]  # UUID text


class Jobs(Protocol):
    """Durable runs: begun once however often they are asked for, and resumed after a crash.

    A run is of a registered kind. Every method raises UnavailableError while the store of the
    runs cannot be reached.
    """

    async def enqueue(
        self, kind: str, payload: Document, *, run_id: str, key: str | None = None
    ) -> Enqueued:
        """Have it run once. `run_id` names the request: the same one again gives the same run.

        While a run with this `key` is not finished, it stands for every further request. After
        UnavailableError it may still begin later: who asks again names the same `run_id`.
        """
        ...

    async def job(self, run_id: str) -> Job:
        """Raises NotFoundError for a run that is not known, or no longer."""
        ...

    async def finished(self, run_id: str) -> Job:
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
        """The newest first, without their steps; `before` is creation and id of the last seen."""
        ...

    async def cancel(self, run_id: str) -> Job:
        """It takes no further step; one that is under way may still end. Raises NotFoundError."""
        ...

    async def forget(self, finished_before: datetime) -> int:
        """Drops runs that ended before that; gives their number."""
        ...


class Journal(Protocol):
    """What a durable run is given: it notes what has been done, so that it is not done again."""

    @property
    def run_id(self) -> str: ...

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        """The result of `action`, which is recorded; after a crash the record answers.

        A crash between action and record makes the action run again: it must bear that.
        """
        ...

    def share(self, done: int, total: int) -> None:
        """How far the step that calls it is; some of it may go untold."""
        ...
