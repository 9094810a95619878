"""Load at a fixed rate over real sockets: each connection sends by its own schedule."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PATIENCE = 2.0  # times the length of a run; what was not sent until then is not sent


@dataclass(frozen=True)
class Ask:
    """One request and the name under which it is counted."""

    name: str
    message: bytes


Make = Callable[[int, int], Ask]  # connection, turn -> what it asks


@dataclass(frozen=True)
class Pace:
    """A number of connections with a number of requests a second each, evenly staggered."""

    connections: int
    per_second: float
    seconds: float


@dataclass
class Taken:
    """Latencies under one name, from when a request was due: queueing counts."""

    ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    size: int = 0  # bytes of the last body

    def add(self, took_ms: float, status: int, size: int) -> None:
        self.ms.append(took_ms)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.size = size

    def share(self, part: float) -> float:
        """Latency in ms within which `part` of the requests were answered (nearest rank)."""
        ordered = sorted(self.ms)
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


@dataclass
class Run:
    """Result of one run."""

    named: dict[str, Taken] = field(default_factory=dict)
    seconds: float = 0.0
    unsent: int = 0  # of requests that were due, when the service had fallen too far behind
    own_s: float = 0.0  # processor time that asking took

    def add(self, name: str, took_ms: float, status: int, size: int) -> None:
        self.named.setdefault(name, Taken()).add(took_ms, status, size)

    @property
    def answers(self) -> int:
        return sum(len(taken.ms) for taken in self.named.values())

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    @property
    def own_share(self) -> float:
        """Share of one processor that the load itself took."""
        return self.own_s / self.seconds

    def of(self, names: Sequence[str]) -> Taken:
        """Several names as one."""
        whole = Taken()
        for name in names:
            taken = self.named.get(name, Taken())
            whole.ms += taken.ms
            for status, count in taken.statuses.items():
                whole.statuses[status] = whole.statuses.get(status, 0) + count
        return whole


def request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """One HTTP/1.1 request on a kept connection."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def paced(url: str, *loads: tuple[Make, Pace]) -> Run:
    """All loads at their own rates, at the same time."""
    run = Run()
    begin, spent = time.perf_counter() + 0.2, time.process_time()
    async with asyncio.TaskGroup() as group:
        for make, pace in loads:
            every = 1.0 / pace.per_second
            for number in range(pace.connections):
                start = begin + every * number / pace.connections
                group.create_task(_connection(url, make, pace, number, start, run))
    run.seconds, run.own_s = time.perf_counter() - begin, time.process_time() - spent
    return run


async def _connection(
    url: str, make: Make, pace: Pace, number: int, start: float, run: Run
) -> None:
    turns, every = round(pace.seconds * pace.per_second), 1.0 / pace.per_second
    last = start + _PATIENCE * pace.seconds
    reader, writer = await _opened(url)
    for turn in range(turns):
        due = start + turn * every
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if time.perf_counter() > last:
            run.unsent += turns - turn
            break
        ask = make(number, turn)
        writer.write(ask.message)
        status, size = await _answer(reader)
        run.add(ask.name, (time.perf_counter() - due) * 1e3, status, size)
    writer.close()
    await writer.wait_closed()


async def flat_out(url: str, make: Make, connections: int, seconds: float) -> Run:
    """Each connection asks again as soon as it has its answer."""
    run = Run()
    begin = time.perf_counter()

    async def ask_on(number: int) -> None:
        reader, writer = await _opened(url)
        turn = 0
        while (sent := time.perf_counter()) < begin + seconds:
            ask = make(number, turn)
            writer.write(ask.message)
            status, size = await _answer(reader)
            run.add(ask.name, (time.perf_counter() - sent) * 1e3, status, size)
            turn += 1
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(ask_on(number))
    run.seconds = time.perf_counter() - begin
    return run


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
    return await asyncio.open_connection(place.hostname, place.port, limit=2**22)  # noqa: TID251  # a benchmark of our own server


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    status, headers = await _head(reader)
    size = int(headers.get("content-length", "0"))
    await reader.readexactly(size)
    return status, size


async def _head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    lines: Sequence[bytes] = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    pairs = (line.decode("latin-1").split(":", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in pairs}
