"""One client of the stream: its commands, its bounded queue and its end."""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import WSMsgType, web

from app.sandbox.stream.faults import BUSY, Blob, altered, meeting
from app.sandbox.stream.topics import StreamError, Topic, topics

if TYPE_CHECKING:
    from app.sandbox.stream.hub import Hub

Json = dict[str, Any]


class Connection:
    """A client; `born_ms` is exchange time, `heard_s` the monotonic second of its last frame."""

    def __init__(
        self, hub: "Hub", ws: web.WebSocketResponse, number: int, connect_id: str, transport: Any
    ) -> None:
        self.hub = hub
        self.number = number
        self.connect_id = connect_id
        self.born_ms = hub.exchange.clock.now_ms()
        self.heard_s = hub.monotonic()
        self.topics: dict[str, Topic] = {}
        self.sent = 0
        self.queue: deque[bytes] = deque()
        self._ws = ws
        self._transport = transport
        self._wake = asyncio.Event()
        self._arrivals: deque[float] = deque()
        self._held: dict[str, bytes] = {}
        self._cut = False

    def put(self, frame: bytes) -> None:
        """Queue one frame; a client that does not read its queue empty is cut off."""
        if self._cut or self.hub.half_open(self):
            return
        if len(self.queue) >= self.hub.terms.queue:
            self._cut = True
            self.queue.clear()
            self.hub.tally.cut_off += 1
            self.abort()
            return
        self.queue.append(frame)
        self._wake.set()

    def tell(self, frame: Json) -> None:
        """Queue a control frame."""
        self.put(msgspec.json.encode(frame))

    def push(self, topic: str, frame: bytes) -> None:
        """Queue one message, as the faults have it."""
        board = self.hub.exchange.faults
        if not board.streaming:
            self.put(frame)
            return
        for one in altered(board, topic, self.connect_id, frame, self._held):
            self.put(one)

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Send what is queued until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self.queue:
                    frame = self.queue.popleft()
                    binary = isinstance(frame, Blob)
                    kind = WSMsgType.BINARY if binary else WSMsgType.TEXT
                    await self._ws.send_frame(bytes(frame), kind)
                    self.sent += 1
                    self.hub.tally.sent += 1

    async def read(self) -> None:
        """Obey commands until the client leaves."""
        while True:
            received = await self._ws.receive()
            while (fault := self.hub.half_open_by(self)) is not None:
                await fault.released.wait()
            if received.type is WSMsgType.PING:
                await self._ws.pong(received.data)
            elif received.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.heard_s = self.hub.monotonic()
                self.hub.tally.received += 1
                self._obey(received.data)
            elif received.type is not WSMsgType.PONG:
                return

    async def close(self, code: int = 1000, text: str = "") -> None:
        """Say goodbye as WebSockets do, after what is queued."""
        for _ in range(20):
            if not self.queue:
                break
            await asyncio.sleep(0.01)
        await self._ws.close(code=code, message=text.encode())

    def _obey(self, text: str | bytes) -> None:
        number: str | None = None
        try:
            command = _command(text)
            # The id comes back as text, whatever it was sent as.
            number = str(command["id"]) if "id" in command else None
            self._count()
            self._do(command, number)
        except StreamError as error:
            self.hub.tally.errors[str(error.code)] += 1
            head: Json = {} if number is None else {"id": number}
            self.tell(head | {"type": "error", "code": error.code, "data": error.text})

    def _count(self) -> None:
        """A client that sends too much too fast is not obeyed."""
        terms, now = self.hub.terms, self.hub.monotonic()
        while self._arrivals and now - self._arrivals[0] >= terms.messages_window_s:
            self._arrivals.popleft()
        self._arrivals.append(now)
        if len(self._arrivals) > terms.messages:
            raise StreamError(509, BUSY)

    def _do(self, command: Json, number: str | None) -> None:
        match command.get("type"):
            case "ping":
                self.tell({"id": number or "", "type": "pong"})
                return
            case "subscribe":
                self._subscribe(command)
            case "unsubscribe":
                for topic in topics(command.get("topic"), self.hub.known):
                    if self.topics.pop(topic.name, None) is not None:
                        self.hub.leave(self, topic)
            case _:
                raise StreamError(415, "type is not supported")
        faults = self.hub.exchange.faults
        silent = meeting(faults, "stream_no_ack", str(command.get("topic")), self.connect_id)
        if command.get("response") is True and silent is None:
            self.tell({"id": number or "", "type": "ack"})

    def _subscribe(self, command: Json) -> None:
        hub, terms = self.hub, self.hub.terms
        if command.get("privateChannel") is True:
            raise StreamError(403, "login is required")
        wanted = topics(command.get("topic"), hub.listed)
        refusal = meeting(
            hub.exchange.faults, "stream_refuse", str(command.get("topic")), self.connect_id
        )
        if refusal is not None:
            code, text = refusal.params.get("code", 509), refusal.params.get("text", BUSY)
            raise StreamError(int(code), str(text))
        if len(wanted) > terms.topics_per_message:
            limit = terms.topics_per_message
            raise StreamError(509, f"exceed max subscription count limitation of {limit} per time")
        new = [topic for topic in wanted if topic.name not in self.topics]
        if len(self.topics) + len(new) > terms.topics_per_connection:
            limit = terms.topics_per_connection
            raise StreamError(
                509, f"exceed max subscription count limitation of {limit} per session"
            )
        for topic in new:
            self.topics[topic.name] = topic
            hub.join(self, topic)


def _command(text: str | bytes) -> Json:
    """A client's frame as a command; StreamError when it is none."""
    try:
        command = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise StreamError(415, "type is not supported") from error
    if not isinstance(command, dict):
        raise StreamError(415, "type is not supported")
    return command
