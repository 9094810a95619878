"""Single flight: callers at the same time share one run, which began after each of them asked."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.foundation.errors import ServiceError

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
