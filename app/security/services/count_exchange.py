"""Exchanges the counts of rate limits between processes, beside the requests."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from app.foundation.sql.database import Database
from app.security.services.rate_limiter import RateLimiter

EXCHANGE_S: Final = 0.25  # between two announcements of one process
CHANNEL: Final = "my_symbols_rate_counts"  # of PostgreSQL's NOTIFY
MAX_MESSAGES: Final = 8  # of one announcement; requests of further counters stay unknown elsewhere
_MAX_BYTES: Final = 7_900  # PostgreSQL takes up to 8,000


@dataclass(slots=True)
class CountExchange:
    """Announces the requests that this process has admitted, and counts those of the others.

    `process` is the unique id of this process. Nothing is stored: a message reaches the processes
    that run. Without the database each process counts by itself.
    """

    database: Database
    process: str
    _limiter: RateLimiter | None = field(default=None, init=False)

    def attach(self, limiter: RateLimiter) -> None:
        """Exchanges the counts of `limiter` from now on."""
        if limiter is not self._limiter:
            limiter.announce()
            self._limiter = limiter

    def open(self) -> None:
        """Receives the announcements of other processes while `Database.listen` runs."""
        self.database.subscribe(CHANNEL, self._receive)

    async def follow(self, beat: Callable[[], None]) -> None:
        """Announces four times a second until cancelled. Raises UnavailableError."""
        while True:
            await asyncio.sleep(EXCHANGE_S)
            await self.announce()
            beat()

    async def announce(self) -> None:
        """Sends one statement, or nothing if no counter is busy. Raises UnavailableError."""
        if self._limiter is None:
            return
        messages = pack_counts(self.process, self._limiter.take_announcements())
        if messages:
            await self.database.notify(CHANNEL, messages)

    def _receive(self, message: str) -> None:
        if self._limiter is None:
            return
        for key, amount in unpack_counts(self.process, message):
            self._limiter.count_elsewhere(key, amount)


def pack_counts(process: str, counts: list[tuple[str, int]]) -> list[str]:
    """JSON messages of up to 8,000 bytes; counts beyond MAX_MESSAGES are left out."""
    messages: list[str] = []
    pending: list[tuple[str, int]] = []
    size = head = len(json.dumps([process, []]))
    for key, amount in counts:
        added = len(json.dumps([key, amount])) + len(", ")
        if pending and size + added > _MAX_BYTES:
            messages.append(json.dumps([process, pending]))
            pending, size = [], head
        pending.append((key, amount))
        size += added
    if pending:
        messages.append(json.dumps([process, pending]))
    return messages[:MAX_MESSAGES]


def unpack_counts(process: str, message: str) -> list[tuple[str, int]]:
    """Counts of a message; none of an own message and of one in another form."""
    try:
        document: Any = json.loads(message)
        sender, counts = document
        pairs = [(str(key), int(amount)) for key, amount in counts]
    except (ValueError, TypeError):  # another version of the service has sent it
        return []
    return [] if sender == process else [one for one in pairs if one[1] > 0]
