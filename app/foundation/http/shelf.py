"""Room for answers, bounded in number and in bytes."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

MOST: Final = 256  # answers
BUDGET: Final = 32 * 1024 * 1024  # bytes of all bodies

T = TypeVar("T")


@dataclass(slots=True)
class Shelf(Generic[T]):
    """The answers that were made last; the one that was made first gives way."""

    size_of: Callable[[T], int]  # bytes
    most: int = MOST
    budget: int = BUDGET
    _kept: dict[Hashable, T] = field(default_factory=dict, init=False)
    _size: int = field(default=0, init=False)

    def get(self, key: Hashable) -> T | None:
        return self._kept.get(key)

    def put(self, key: Hashable, answer: T) -> None:
        """What is larger than all the room there is, is not kept."""
        self.drop(key)
        size = self.size_of(answer)
        if size > self.budget:
            return
        self._kept[key] = answer
        self._size += size
        while self._size > self.budget or len(self._kept) > self.most:
            self.drop(next(iter(self._kept)))

    def drop(self, key: Hashable) -> None:
        answer = self._kept.pop(key, None)
        if answer is not None:
            self._size -= self.size_of(answer)
