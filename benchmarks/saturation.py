"""Saturating load from one process: each connection asks again as soon as it has its answer.

It reads sockets without asyncio and parses only status and length, so that a core of its own is
enough for it while the server is busy.
"""

import selectors
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

_END, _LENGTH = b"\r\n\r\n", b"\r\ncontent-length:"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Saturation:
    """Answers of one run; `own_s` is the processor time of the load process."""

    answers: int
    seconds: float
    own_s: float
    statuses: list[int]
    size: int  # bytes of the last body

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


class _Connection:
    """One kept connection with one request under way."""

    def __init__(self, host: str, port: int, message: bytes) -> None:
        self.socket = socket.create_connection((host, port))  # noqa: TID251  # a benchmark of our own server
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.message = message
        self.head = b""  # of an answer whose head is not complete
        self.missing = 0  # bytes of the body that are still to come

    def ask(self) -> None:
        self.socket.sendall(self.message)

    def receive(self) -> tuple[int, int] | None:
        """Status and length of an answer whose head ends here, or None."""
        data = self.socket.recv(_CHUNK_BYTES)
        if not data:
            raise ConnectionError("the server has closed a kept connection")
        if self.missing:
            self.missing -= len(data)
            return None
        data = self.head + data
        end = data.find(_END)
        if end < 0:
            self.head = data
            return None
        self.head = b""
        status = int(data[9:12])
        start = data.lower().find(_LENGTH, 0, end) + len(_LENGTH) if end else 0
        size = 0
        if start >= len(_LENGTH):
            stop = data.find(b"\r\n", start)
            size = int(data[start:stop])
        if status == 304:
            size = 0
        self.missing = size - (len(data) - end - len(_END))
        return status, size


def saturate(url: str, message: bytes, connections: int, seconds: float) -> Saturation:
    """Blocks for `seconds`. Raises ConnectionError if the server closes a connection."""
    place = urlsplit(url)
    opened = [
        _Connection(str(place.hostname), int(place.port or 80), message) for _ in range(connections)
    ]
    selector = selectors.DefaultSelector()
    for one in opened:
        selector.register(one.socket, selectors.EVENT_READ, one)
    answers, size, statuses = 0, 0, set[int]()
    spent, begin = time.process_time(), time.perf_counter()
    end = begin + seconds
    for one in opened:
        one.ask()
    while (now := time.perf_counter()) < end:
        for key, _ in selector.select(end - now):
            one = key.data
            head = one.receive()
            if head is not None:
                status, size = head
                statuses.add(status)
            if not one.missing and not one.head:
                answers += 1
                one.ask()
    took, own_s = time.perf_counter() - begin, time.process_time() - spent
    for one in opened:
        one.socket.close()
    return Saturation(answers, took, own_s, sorted(statuses), size)
