"""What a durable run is made of, and what its engine has to be told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import structlog

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.events import JobChange, JobChanged
from app.foundation.job_service import JobNews
from app.foundation.jobs import Document, JobState
from app.foundation.ports import Clock, Journal

# Raised by hand when the steps of a run change their order; what is unfinished must end before.
VERSION: Final = "jobs-1"
TRIES: Final = 3  # of a step that cannot be done just now
SOON_S: Final = 5.0
_log = structlog.get_logger("jobs")

Work = Callable[[Journal, Document], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class Run:
    """A kind of run: its steps in order, what it does, and what it waits for in this process."""

    kind: str
    steps: tuple[str, ...]
    work: Work
    gate: Callable[[], Awaitable[object]] | None = None


class Store(Protocol):
    """Where runs are kept, as the storage layer sets it up."""

    @property
    def url(self) -> str: ...

    @property
    def engine(self) -> Any:
        """An SQLAlchemy engine, or None to open `url`."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What is raised when it is away."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether several processes may use it at once."""
        ...


def executor_of(store: Store, process: str) -> str:
    """The name under which `process` works: where only one can have the store it is always the
    same, so that each takes up what the last one left.
    """
    return process if store.is_shared else "local"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine has to be told; times in seconds."""

    store: Store
    executor_id: str  # see `executor_of`
    works: bool = True  # False: it asks and looks, the runs are carried out by others
    version: str = VERSION
    poll_s: float = 1.0  # how soon a queued run is noticed
    drain_s: float = 10.0  # patience with what runs when it closes; less than peers have with us
    answer_s: float = 5.0  # patience with the store


async def tried(
    name: str,
    action: Callable[[], Awaitable[Document]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Document:
    """What `action` gives, at the third try at the latest.

    Only an error that names an end within five seconds is waited for; any other, and that of the
    last try, is raised: the run fails and says why.
    """
    for _ in range(TRIES - 1):
        try:
            return await action()
        except UnavailableError as error:
            if error.retry_after_s is None or error.retry_after_s > SOON_S:
                raise
            _log.info("step_again", step=name, cause=error.code.value)
            await sleep(error.retry_after_s)
    return await action()


STEP_S: Final = 1.0
_LEAST: Final = 0.01  # of the whole: less is no news


def telling(
    run: Run,
    news: JobNews,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Run:
    """The same run, heard of.

    Taken up again by another process it is told to have begun again. One that is cut off because
    its process stops has not ended; who cancels one tells of it.
    """

    async def work(journal: Journal, payload: Document) -> Document:
        told = _Told(journal, run, news, clock, sleep)
        await told.tell(JobChange.STARTED, JobState.RUNNING)
        try:
            result = await run.work(told, payload)
        except Exception as error:
            code = error.code if isinstance(error, ServiceError) else Code.INTERNAL_ERROR
            await told.tell(JobChange.ENDED, JobState.FAILED, code.value)
            raise
        told.share(1, 1)
        await told.tell(JobChange.ENDED, JobState.DONE)
        return result

    return replace(run, work=work)


@dataclass(slots=True)
class _Told:
    """A journal that is looked at while a step goes on."""

    journal: Journal
    run: Run
    news: JobNews
    clock: Clock
    sleep: Callable[[float], Awaitable[None]]
    _step: str | None = None
    _part: float = 0.0
    _told: float = field(default=0.0)

    @property
    def run_id(self) -> str:
        return self.journal.run_id

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        self._step, self._part = name, 0.0
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch())
                try:
                    return await self.journal.step(name, action)
                finally:
                    watching.cancel()
        except ExceptionGroup as several:
            # The step's own: the group has no other member that fails.
            raise several.exceptions[0] from None

    def share(self, done: int, total: int) -> None:
        self._part = done / total if total else 0.0
        self.journal.share(done, total)

    async def tell(self, change: JobChange, state: JobState, error: str | None = None) -> None:
        self._told = self._whole()
        progress = 1.0 if state is JobState.DONE else round(min(self._told, 0.99), 4)
        job = (self.run_id, self.run.kind, change, state)
        await self.news.tell(JobChanged(*job, self._step, progress, error, self.clock()))

    def _whole(self) -> float:
        if self._step is None:
            return 0.0
        return (self.run.steps.index(self._step) + self._part) / len(self.run.steps)

    async def _watch(self) -> None:
        while True:
            await self.sleep(STEP_S)
            if self._whole() - self._told >= _LEAST:
                await self.tell(JobChange.PROGRESS, JobState.RUNNING)
