"""Event bus inside one process: bounded queues, where slow subscribers lose the oldest events."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Bus:
    """Bounded fan-out to subscribers; `dropped` counts events that slow subscribers lost."""

    capacity: int = 1_000
    dropped: int = 0
    _queues: set[asyncio.Queue[object]] = field(default_factory=set)

    def publish(self, event: object) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
                self.dropped += 1
            queue.put_nowait(event)

    def longest_queue(self) -> int:
        """Returns the number of events that wait for the slowest subscriber."""
        return max((queue.qsize() for queue in self._queues), default=0)

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[object]]:
        queue: asyncio.Queue[object] = asyncio.Queue(self.capacity)
        self._queues.add(queue)
        try:
            yield _Subscription(queue)
        finally:
            self._queues.discard(queue)


@dataclass(frozen=True, slots=True)
class _Subscription:
    """Iterator, not a generator: a generator would end with the first wait that times out."""

    queue: asyncio.Queue[object]

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        return await self.queue.get()
