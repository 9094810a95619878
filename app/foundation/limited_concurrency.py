"""Many requests, a few at a time: one failure does not stop the others, an outage does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.foundation.errors import Code, ServiceError, UnavailableError

T = TypeVar("T")

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
