"""Durable runs: their steps, their store and the options of the engine."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from app.foundation.errors import UnavailableError
from app.foundation.jobs import Document
from app.foundation.ports import StepJournal

# Raised by hand when the steps of a run change their order; what is unfinished must end before.
VERSION: Final = "jobs-1"
TRIES: Final = 3  # of a step that cannot be done just now
SOON_S: Final = 5.0
_log = structlog.get_logger("jobs")

Work = Callable[[StepJournal, Document], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class DurableRun:
    """A kind of run: its steps in order, what it does, and what it waits for in this process."""

    kind: str
    steps: tuple[str, ...]
    work: Work
    gate: Callable[[], Awaitable[object]] | None = None


class Store(Protocol):
    """Store of runs, set up by the storage layer."""

    @property
    def url(self) -> str: ...

    @property
    def engine(self) -> Any:
        """An SQLAlchemy engine, or None to open `url`."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Exceptions of a store that does not answer."""
        ...

    @property
    def is_shared(self) -> bool:
        """True if several processes may use it at once."""
        ...


def executor_of(store: Store, process: str) -> str:
    """The name under which `process` works: where only one can have the store it is always the
    same, so that each takes up what the last one left.
    """
    return process if store.is_shared else "local"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of an engine; times in seconds."""

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
    """Result of `action`, at the third try at the latest.

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
