"""Paced load over real sockets: each connection sends on its own schedule, late or not."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PATIENCE = 2.0  # times the length of a row; what was not sent until then is not sent
Make = Callable[[int, int], bytes]  # connection, turn -> the bytes of a request


@dataclass
class Taken:
    """What one row measured; times are from when a request was due, so that queues count."""

    ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    size: int = 0  # bytes of the last body
    seconds: float = 0.0
    unsent: int = 0  # of requests that were due, when the service had fallen too far behind

    def add(self, took_ms: float, status: int, size: int) -> None:
        self.ms.append(took_ms)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.size = size

    def share(self, part: float) -> float:
        """The time within which `part` of the requests were answered, ms."""
        ordered = sorted(self.ms)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def rate(self) -> float:
        return len(self.ms) / self.seconds


def request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """One HTTP/1.1 request on a connection that is kept."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def paced(
    url: str, make: Make, *, connections: int, per_second: float, seconds: float
) -> Taken:
    """`connections` connections, each with `per_second` requests a second, evenly staggered."""
    taken = Taken()
    begin = time.perf_counter() + 0.2
    every, last = 1.0 / per_second, begin + _PATIENCE * seconds
    starts = [begin + every * number / connections for number in range(connections)]
    turns = round(seconds * per_second)
    async with asyncio.TaskGroup() as group:
        for number, start in enumerate(starts):
            group.create_task(_connection(url, make, number, start, every, turns, last, taken))
    taken.seconds = time.perf_counter() - begin
    return taken


async def _connection(
    url: str,
    make: Make,
    number: int,
    start: float,
    every: float,
    turns: int,
    last: float,
    taken: Taken,
) -> None:
    reader, writer = await _opened(url)
    for turn in range(turns):
        due = start + turn * every
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if time.perf_counter() > last:
            taken.unsent += turns - turn
            break
        writer.write(make(number, turn))
        status, size = await _answer(reader)
        taken.add((time.perf_counter() - due) * 1e3, status, size)
    writer.close()
    await writer.wait_closed()


async def once(url: str, message: bytes) -> tuple[int, bytes, Mapping[str, str]]:
    """One request on a connection of its own: status, body, headers."""
    reader, writer = await _opened(url)
    writer.write(message)
    status, headers = await _head(reader)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    writer.close()
    await writer.wait_closed()
    return status, body, headers


async def _opened(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = urlsplit(url)
    return await asyncio.open_connection(place.hostname, place.port, limit=2**22)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    status, headers = await _head(reader)
    size = int(headers.get("content-length", "0"))
    await reader.readexactly(size)
    return status, size


async def _head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    lines: Sequence[bytes] = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    pairs = (line.decode("latin-1").split(":", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in pairs}
