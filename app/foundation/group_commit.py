"""Group commit: those who come while a transaction is being carried out share the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.foundation.errors import Code, RateLimitedError, UnavailableError
from app.foundation.sql.shielded import shielded

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
