"""One client of the stream: its commands, its bounded send queue and its end."""

import asyncio
import contextlib
from collections import deque
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from app.sandbox.stream.faults import BUSY, BinaryFrame, apply_faults, match_fault
from app.sandbox.stream.registry import SubscriptionRegistry
from app.sandbox.stream.topics import MarketTopic, StreamError, parse_topics

Json = dict[str, Any]


class Connection:
    """A client; `opened_ms` is exchange time, `last_frame_s` the monotonic second of its frame."""

    def __init__(
        self,
        registry: SubscriptionRegistry,
        ws: web.WebSocketResponse,
        number: int,
        connect_id: str,
        transport: Any,
    ) -> None:
        self.number = number
        self.connect_id = connect_id
        self.opened_ms = registry.exchange.clock.now_ms()
        self.last_frame_s = registry.monotonic()
        self.topics: dict[str, MarketTopic] = {}
        self.sent = 0
        self.queue: deque[bytes] = deque()
        self._registry = registry
        self._ws = ws
        self._transport = transport
        self._wake = asyncio.Event()
        self._arrivals: deque[float] = deque()
        self._delayed: dict[str, bytes] = {}
        self._is_cut = False

    @property
    def is_half_open(self) -> bool:
        """True if a fault leaves the socket open but dead."""
        return self._registry.find_half_open_fault(self.connect_id) is not None

    def enqueue(self, frame: bytes) -> None:
        """Queue one frame; a client that lets its queue fill up is cut off."""
        if self._is_cut or self.is_half_open:
            return
        if len(self.queue) >= self._registry.limits.queue:
            self._is_cut = True
            self.queue.clear()
            self._registry.counters.cut_off += 1
            self.abort()
            return
        self.queue.append(frame)
        self._wake.set()

    def send_control(self, frame: Json) -> None:
        """Queue a control frame."""
        self.enqueue(msgspec.json.encode(frame))

    def push(self, topic: str, frame: bytes) -> None:
        """Queue one message after the armed faults have changed it."""
        board = self._registry.exchange.faults
        if not board.streaming:
            self.enqueue(frame)
            return
        for changed in apply_faults(board, topic, self.connect_id, frame, self._delayed):
            self.enqueue(changed)

    def abort(self) -> None:
        """Cut the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Send queued frames until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self.queue:
                    frame = self.queue.popleft()
                    is_binary = isinstance(frame, BinaryFrame)
                    kind = WSMsgType.BINARY if is_binary else WSMsgType.TEXT
                    await self._ws.send_frame(bytes(frame), kind)
                    self.sent += 1
                    self._registry.counters.sent += 1

    async def read(self) -> None:
        """Carry out commands until the client leaves."""
        while True:
            received = await self._ws.receive()
            while (fault := self._registry.find_half_open_fault(self.connect_id)) is not None:
                await fault.released.wait()
            if received.type is WSMsgType.PING:
                await self._ws.pong(received.data)
            elif received.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.last_frame_s = self._registry.monotonic()
                self._registry.counters.received += 1
                self._handle(received.data)
            elif received.type is not WSMsgType.PONG:
                return

    async def close(self, code: int = 1000, text: str = "") -> None:
        """Send the queued frames, then the close frame."""
        for _ in range(20):
            if not self.queue:
                break
            await asyncio.sleep(0.01)
        await self._ws.close(code=code, message=text.encode())

    def _handle(self, text: str | bytes) -> None:
        number: str | None = None
        try:
            command = _parse_command(text)
            # The id comes back as text, whatever its type was.
            number = str(command["id"]) if "id" in command else None
            self._limit_rate()
            self._execute(command, number)
        except StreamError as error:
            self._registry.counters.errors[str(error.code)] += 1
            head: Json = {} if number is None else {"id": number}
            self.send_control(head | {"type": "error", "code": error.code, "data": error.text})

    def _limit_rate(self) -> None:
        """Count a command; StreamError 509 above the message rate."""
        limits, now = self._registry.limits, self._registry.monotonic()
        while self._arrivals and now - self._arrivals[0] >= limits.messages_window_s:
            self._arrivals.popleft()
        self._arrivals.append(now)
        if len(self._arrivals) > limits.messages:
            raise StreamError(509, BUSY)

    def _execute(self, command: Json, number: str | None) -> None:
        match command.get("type"):
            case "ping":
                self.send_control({"id": number or "", "type": "pong"})
                return
            case "subscribe":
                self._subscribe(command)
            case "unsubscribe":
                for topic in parse_topics(command.get("topic"), self._registry.find_known):
                    if self.topics.pop(topic.name, None) is not None:
                        self._registry.unsubscribe(self, topic)
            case _:
                raise StreamError(415, "type is not supported")
        faults = self._registry.exchange.faults
        silence = match_fault(faults, "stream_no_ack", str(command.get("topic")), self.connect_id)
        if command.get("response") is True and silence is None:
            self.send_control({"id": number or "", "type": "ack"})

    def _subscribe(self, command: Json) -> None:
        registry, limits = self._registry, self._registry.limits
        if command.get("privateChannel") is True:
            raise StreamError(403, "login is required")
        requested = parse_topics(command.get("topic"), registry.find_active)
        refusal = match_fault(
            registry.exchange.faults, "stream_refuse", str(command.get("topic")), self.connect_id
        )
        if refusal is not None:
            code, text = refusal.params.get("code", 509), refusal.params.get("text", BUSY)
            raise StreamError(int(code), str(text))
        if len(requested) > limits.topics_per_message:
            limit = limits.topics_per_message
            raise StreamError(509, f"exceed max subscription count limitation of {limit} per time")
        new = [topic for topic in requested if topic.name not in self.topics]
        if len(self.topics) + len(new) > limits.topics_per_connection:
            limit = limits.topics_per_connection
            raise StreamError(
                509, f"exceed max subscription count limitation of {limit} per session"
            )
        for topic in new:
            self.topics[topic.name] = topic
            registry.subscribe(self, topic)


def _parse_command(text: str | bytes) -> Json:
    """Decode a client's frame; StreamError 415 for anything but an object."""
    try:
        command = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise StreamError(415, "type is not supported") from error
    if not isinstance(command, dict):
        raise StreamError(415, "type is not supported")
    return command
