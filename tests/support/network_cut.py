"""A way to PostgreSQL that can be cut: in the middle of a transaction, or just after its COMMIT.

It stands between service and server as a socket of its own and reads the messages that pass, so
that the cut comes exactly where a test wants it, as a broken network would do it.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

SOCKET = ".s.PGSQL.5432"
_COMMIT = b"COMMIT;\x00"
_READY, _QUERY = b"Z", b"Q"


class Cut(Enum):
    """Where the way is cut: the server never hears COMMIT, or its answer is lost.

    Or nothing is cut, and the server waits for the COMMIT until it has had enough.
    """

    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    SILENT = "silent"


@dataclass
class Way:
    """The way in `room`; `arm` it, then look at `cuts`."""

    room: Path
    server: Path
    cuts: int = 0
    refuses: bool = False  # nobody gets through at all
    stays_down: bool = False  # after the cut nobody gets through
    _left: int = 0
    _cut: Cut = Cut.AFTER_COMMIT
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@/{database}?host={self.room}"

    def arm(self, cut: Cut, commits: int, *, stays_down: bool = False) -> None:
        """Cut at the commit number `commits` from now on."""
        self._cut, self._left, self.stays_down = cut, commits, stays_down

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection, until one side ends it or the way is cut."""
        if self.refuses:
            back.close()
            return
        server, forth = await asyncio.open_unix_connection(str(self.server / SOCKET))
        self._ends |= {back, forth}
        try:
            answers = asyncio.Event()  # the next answers are not handed on: a COMMIT is under way
            await _first_to_end(self._forth(client, forth, answers), _back(server, back, answers))
        finally:
            self._ends -= {back, forth}
            for end in (back, forth):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _forth(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        server.write(await _startup(client))
        while (message := await _message(client)) is not None:
            if message[:1] == _QUERY and message[5:] == _COMMIT and self._is_the_one():
                if self._cut is Cut.BEFORE_COMMIT:
                    return
                if self._cut is Cut.SILENT:
                    await asyncio.Event().wait()
                lost.set()
            server.write(message)
            await server.drain()

    def _is_the_one(self) -> bool:
        self._left -= 1
        if self._left != 0:
            return False
        self.cuts += 1
        self.refuses = self.stays_down
        return True

    def close(self) -> None:
        for end in list(self._ends):
            end.close()


async def _back(
    server: asyncio.StreamReader, client: asyncio.StreamWriter, lost: asyncio.Event
) -> None:
    while (message := await _message(server)) is not None:
        if not lost.is_set():
            client.write(message)
            await client.drain()
        elif message[:1] == _READY:
            return  # the server has committed and said so, but nobody hears it


async def _startup(client: asyncio.StreamReader) -> bytes:
    """The first message has no letter."""
    head = await client.readexactly(4)
    return head + await client.readexactly(int.from_bytes(head) - 4)


async def _message(end: asyncio.StreamReader) -> bytes | None:
    """A letter, a length that counts itself, and the rest; None at the end."""
    try:
        head = await end.readexactly(5)
        return head + await end.readexactly(int.from_bytes(head[1:]) - 4)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def _first_to_end(*halves: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(half) for half in halves]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def cutting(server: Path) -> AsyncIterator[Way]:
    """A way to the server whose socket is in `server`."""
    with tempfile.TemporaryDirectory(prefix="way-") as room:
        way = Way(Path(room), server)
        listener = await asyncio.start_unix_server(way.serve, str(way.room / SOCKET))
        try:
            yield way
        finally:
            listener.close()
            way.close()
