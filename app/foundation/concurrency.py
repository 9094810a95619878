"""Concurrency helpers: single flight, and bounded parallel work with outage detection."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.foundation.errors import Code, ServiceError, UnavailableError

T = TypeVar("T")


@dataclass(slots=True)
class SingleFlight(Generic[T]):
    """Runs one call at a time; callers that arrive during a run share the next one.

    Each caller gets the result of a run that started after its call. At most one run is active and
    one is pending, whatever the number of callers.
    """

    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _started: int = field(default=0, init=False)
    _latest: tuple[int, T | ServiceError] | None = field(default=None, init=False)

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        """Returns the result of a run; raises its ServiceError. A cancelled run has no result."""
        before = self._started
        async with self._lock:
            if self._latest is None or self._latest[0] <= before:
                self._started += 1
                number = self._started
                try:
                    self._latest = (number, await work())
                except ServiceError as error:
                    self._latest = (number, error)
            outcome = self._latest[1]
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome


# Unanswered requests in a row that count as an outage; in a list of 3 or more items, all of them.
OUTAGE_AFTER: Final = 12
OUTAGE_OF_ALL: Final = 3
MAX_WAIT_S: Final = 90.0
MAX_QUOTA_WAITS: Final = 4  # per item
_WAIT_FOR_QUOTA: Final = frozenset({Code.EXCHANGE_RATE_LIMITED, Code.EXCHANGE_BANNED})


@dataclass(slots=True)
class _Run(Generic[T]):
    items: Iterator[T]
    work: Callable[[T], Awaitable[None]]
    done: Callable[[], None]
    sleep: Callable[[float], Awaitable[None]]
    failures: list[tuple[T, ServiceError]] = field(default_factory=list)
    unanswered: int = 0

    async def worker(self) -> None:
        for item in self.items:
            await self._attempt(item)
            self.done()

    async def _attempt(self, item: T) -> None:
        for waits in range(MAX_QUOTA_WAITS + 1):
            try:
                await self.work(item)
            except ServiceError as error:
                if error.code in _WAIT_FOR_QUOTA and waits < MAX_QUOTA_WAITS:
                    await self.sleep(min(error.retry_after_s or 1.0, MAX_WAIT_S))
                    continue
                self.failures.append((item, error))
                if isinstance(error, UnavailableError):
                    self.unanswered += 1
                    if self.unanswered >= OUTAGE_AFTER:
                        raise
                return
            else:
                self.unanswered = 0
                return


async def gather_bounded(
    items: Iterable[T],
    work: Callable[[T], Awaitable[None]],
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[tuple[T, ServiceError]]:
    """Runs `work` for every item with at most `workers` at once; returns failed items with errors.

    Raises UnavailableError once enough consecutive items get no answer to count as an outage.
    """
    listed = list(items)
    run = _Run(iter(listed), work, done, sleep)
    ended = await asyncio.gather(*(run.worker() for _ in range(workers)), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
    if run.unanswered == len(listed) >= OUTAGE_OF_ALL:
        raise run.failures[-1][1]
    return run.failures
