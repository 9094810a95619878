"""Single flight: callers at the same time share one run, which began after each of them asked."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.foundation.errors import Code, ServiceError, UnavailableError

T = TypeVar("T")


@dataclass(slots=True)
class SingleFlight(Generic[T]):
    """Runs one after the other; who asks during one shares the next with all others that do.

    So each answer comes of a run that began after it was asked for, and however many ask, no
    more than one run is under way and one is waited for.
    """

    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _begun: int = field(default=0, init=False)
    _told: tuple[int, T | ServiceError] | None = field(default=None, init=False)

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        """Raises what the run raises; a run that is cancelled tells nobody anything."""
        before = self._begun
        async with self._turn:
            if self._told is None or self._told[0] <= before:
                self._begun += 1
                number = self._begun
                try:
                    self._told = (number, await work())
                except ServiceError as error:
                    self._told = (number, error)
            outcome = self._told[1]
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome


# Unanswered requests in a row that are no longer the fault of one symbol; of a short list: all.
OUTAGE_AFTER: Final = 12
OUTAGE_OF_ALL: Final = 3
MAX_WAIT_S: Final = 90.0
PATIENCE: Final = 4  # waits for quota per item
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
        for waits in range(PATIENCE + 1):
            try:
                await self.work(item)
            except ServiceError as error:
                if error.code in _WAIT_FOR_QUOTA and waits < PATIENCE:
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


async def each(
    items: Iterable[T],
    work: Callable[[T], Awaitable[None]],
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[tuple[T, ServiceError]]:
    """Do `work` for every item with at most `workers` at once; the items that failed, and why.

    Raises UnavailableError once so many in a row fail that nothing answers at all.
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
