"""What a durable run is made of, and what its engine has to be told."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from app.domain.jobs import Document
from app.services.ports import Journal

# Raised by hand when the steps of a run change their order; what is unfinished must end before.
VERSION: Final = "jobs-1"

Work = Callable[[Journal, Document], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class Run:
    """A kind of run: its steps in order, what it does, and what it waits for in this process."""

    kind: str
    steps: tuple[str, ...]
    work: Work
    gate: Callable[[], Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`store` is the engine's own setting: an SQLAlchemy engine, or None to open `url`."""

    url: str
    store: Any
    errors: tuple[type[Exception], ...]  # what the store raises when it is away
    executor_id: str  # of this process alone; a fixed one where only one process has the store
    works: bool = True  # False: it asks and looks, the runs are carried out by others
    version: str = VERSION
    poll_s: float = 1.0  # how soon a queued run is noticed
    drain_s: float = 10.0  # patience with what runs when it closes; less than peers have with us
    answer_s: float = 5.0  # patience with the store
