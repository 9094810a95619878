"""Durable runs: kinds, job store port, engine options and retries of steps."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from app.foundation.errors import UnavailableError
from app.foundation.jobs import Document
from app.foundation.ports import StepJournal

# Raise it when the steps of a run change their order; unfinished runs must end before.
VERSION: Final = "jobs-1"
MAX_ATTEMPTS: Final = 3  # of a step that is unavailable at the moment
MAX_RETRY_AFTER_S: Final = 5.0
_log = structlog.get_logger("jobs")

RunWork = Callable[[StepJournal, Document], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class DurableRun:
    """Kind of run: its steps in order, its work, and the gate that it waits for in this process."""

    kind: str
    steps: tuple[str, ...]
    work: RunWork
    gate: Callable[[], Awaitable[object]] | None = None


class Store(Protocol):
    """Port of the job store, set up by the storage layer."""

    @property
    def url(self) -> str: ...

    @property
    def engine(self) -> Any:
        """SQLAlchemy engine; None to open `url`."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Exceptions of an unavailable store."""
        ...

    @property
    def is_shared(self) -> bool:
        """True if several processes may use the store at once."""
        ...


def executor_id_for(store: Store, process: str) -> str:
    """Returns the executor name of `process`.

    An unshared store always has the same name, so that each process resumes the runs of the last.
    """
    return process if store.is_shared else "local"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of an engine; times in seconds."""

    store: Store
    executor_id: str  # see `executor_id_for`
    works: bool = True  # False: only enqueues and reads; other processes execute
    version: str = VERSION
    poll_s: float = 1.0  # interval at which queued runs are noticed
    drain_s: float = 10.0  # wait for running work at close; shorter than the takeover by others
    answer_s: float = 5.0  # time limit of the store


async def run_with_retries(
    name: str,
    action: Callable[[], Awaitable[Document]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Document:
    """Returns the result of `action` after at most three attempts.

    Retries only an UnavailableError with a `retry_after_s` of at most five seconds; raises any
    other error and the last one, so that the run fails with its cause.
    """
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return await action()
        except UnavailableError as error:
            if error.retry_after_s is None or error.retry_after_s > MAX_RETRY_AFTER_S:
                raise
            _log.info("step_retried", step=name, cause=error.code.value)
            await sleep(error.retry_after_s)
    return await action()
