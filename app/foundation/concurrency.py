"""Single flight: callers at the same time share one run, which began after each of them asked."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.foundation.errors import Code, RateLimitedError, ServiceError, UnavailableError
from app.foundation.sql.shielded import shielded

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


P = TypeVar("P")
R = TypeVar("R")
RETRY_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Place(Generic[P, R]):
    item: P
    answers: list[R | Exception] = field(default_factory=list)  # one, once there is one


@dataclass(slots=True)
class GroupCommit(Generic[P, R]):
    """One group at a time, led by who has waited longest; the leader carries out for all of it.

    `carry_out` gives, for each item, a result or the error that its own caller gets; where it
    raises, and the service is there, each item is tried alone. Items for which `apart` says the
    same, other than None, are never in one group. What waits is bounded.
    """

    carry_out: Callable[[Sequence[P]], Awaitable[Sequence[R | Exception]]]
    apart: Callable[[P], Hashable | None]
    most: int  # in one group
    most_waiting: int
    _waiting: deque[_Place[P, R]] = field(default_factory=deque, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def join(self, item: P) -> R:
        """What came of the item, whoever has carried it out.

        Raises what came of it, and RateLimitedError where too many wait already. Who is cancelled
        before its group has begun leaves nothing behind; after that the group goes on.
        """
        if len(self._waiting) >= self.most_waiting:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{len(self._waiting)} wait to be taken in.",
                retry_after_s=RETRY_S,
            )
        place: _Place[P, R] = _Place(item)
        self._waiting.append(place)
        try:
            async with self._turn:
                if not place.answers:
                    await shielded(self._one_group())
        finally:
            if not place.answers and place in self._waiting:
                self._waiting.remove(place)
        answer = place.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _one_group(self) -> None:
        group = self._taken()
        answers: Sequence[R | Exception] = [_ended() for _ in group]  # unless there are others
        try:
            answers = await self._answers([place.item for place in group])
        finally:
            for place, answer in zip(group, answers, strict=True):
                place.answers.append(answer)

    async def _answers(self, items: Sequence[P]) -> Sequence[R | Exception]:
        try:
            return await self.carry_out(items)
        except UnavailableError as error:
            return [error for _ in items]  # that is nobody's fault
        except Exception as error:  # noqa: BLE001  # the fault of one is not to be that of all
            if len(items) == 1:
                return [error]
            return [(await self._answers([one]))[0] for one in items]

    def _taken(self) -> list[_Place[P, R]]:
        """The oldest that may be together; who waits longest, and so leads, is one of them."""
        group: list[_Place[P, R]] = []
        later: deque[_Place[P, R]] = deque()
        seen: set[Hashable] = set()
        while self._waiting and len(group) < self.most:
            place = self._waiting.popleft()
            mark = self.apart(place.item)
            if mark is not None and mark in seen:
                later.append(place)
                continue
            seen.add(mark)
            group.append(place)
        self._waiting.extendleft(reversed(later))
        return group


def _ended() -> UnavailableError:
    return UnavailableError(Code.SHUTTING_DOWN, "the service ends", retry_after_s=RETRY_S)


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
