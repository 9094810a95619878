"""Events inside one process: publish after the commit, the slow reader loses and is counted."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Bus:
    """Bounded fan-out; `dropped` counts what slow readers lost."""

    capacity: int = 1_000
    dropped: int = 0
    _readers: set[asyncio.Queue[object]] = field(default_factory=set)

    def publish(self, event: object) -> None:
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
                self.dropped += 1
            queue.put_nowait(event)

    def fullest(self) -> int:
        """How much waits for the reader that is furthest behind."""
        return max((queue.qsize() for queue in self._readers), default=0)

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[object]]:
        queue: asyncio.Queue[object] = asyncio.Queue(self.capacity)
        self._readers.add(queue)
        try:
            yield _Reader(queue)
        finally:
            self._readers.discard(queue)


@dataclass(frozen=True, slots=True)
class _Reader:
    """No generator: that would end with the first wait that is given up."""

    queue: asyncio.Queue[object]

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        return await self.queue.get()
