"""WebSocket session of the event stream: commands of the client and the frames sent."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.foundation.errors import Code, ServiceError
from app.foundation.events import Topic
from app.foundation.http.errors import RequestError
from app.foundation.http.request_body import Body, parse
from app.foundation.http.server import CLIENT, TRY_AGAIN_LATER, ClientConnection
from app.market.domain.symbols import SymbolEntry
from app.operations.services.event_messages import TICKER, Frame, notice
from app.operations.services.event_stream import EventStream
from app.operations.services.event_subscription import EventReader

TopicText = Annotated[str, Field(min_length=1, max_length=80, examples=["portfolio_change"])]
_PREFIX: Final = f"{TICKER}:"
NAMES: Final = ", ".join(f"`{topic.value}`" for topic in Topic) + f", `{_PREFIX}SYMBOL`"


def asked(
    names: Iterable[str], resolve: Callable[[str], SymbolEntry]
) -> tuple[frozenset[Topic], frozenset[str]]:
    """Parse topics and the symbols of `ticker:SYMBOL`, in any spelling.

    Raises RequestError (validation_failed) for an unknown topic, RefusedError for an
    unknown symbol.
    """
    topics: set[Topic] = set()
    symbols: set[str] = set()
    for at, name in enumerate(names):
        if name.startswith(_PREFIX):
            symbols.add(resolve(name.removeprefix(_PREFIX)).symbol)
        elif name in set(Topic):
            topics.add(Topic(name))
        else:
            errors = [(("topics", at), "enum")]
            raise RequestError(Code.VALIDATION_FAILED, f"The topics are {NAMES}.", errors=errors)
    return frozenset(topics), frozenset(symbols)


def topic_names(reader: EventReader) -> list[str]:
    """Subscriptions of a reader in standard spelling."""
    return sorted([*reader.topics, *(_PREFIX + symbol for symbol in reader.symbols)])


HEARTBEAT_S: Final = 15.0
MAX_TOPICS: Final = 100
MESSAGES_PER_S: Final = 20
NOT_JSON: Final = 1003
TOO_MANY_MESSAGES: Final = 4429


class Subscribe(Body):
    """Command to subscribe; `resume_from` is the newest sequence that the client has."""

    type: Literal["subscribe"]
    topics: Annotated[list[TopicText], Field(min_length=1, max_length=MAX_TOPICS)]
    resume_from: Annotated[int, Field(ge=0)] | None = None


class Unsubscribe(Body):
    type: Literal["unsubscribe"]
    topics: Annotated[list[TopicText], Field(min_length=1, max_length=MAX_TOPICS)]


class Ping(Body):
    type: Literal["ping"]


_MESSAGES: Final[TypeAdapter[Subscribe | Unsubscribe | Ping]] = TypeAdapter(
    Annotated[Subscribe | Unsubscribe | Ping, Field(discriminator="type")]
)


class _SentAwayError(Exception):
    """Closes the connection with a code from the server side."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class SocketSession:
    """Session that reads and writes concurrently until either side ends."""

    socket: WebSocket
    stream: EventStream
    resolve: Callable[[str], SymbolEntry]
    reader: EventReader
    heartbeat_s: float = HEARTBEAT_S
    sent: int = 0
    _sent_at: float = 0.0  # loop time of the last frame
    _pulse: asyncio.TimerHandle | None = None
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=MESSAGES_PER_S))

    async def run(self) -> None:
        """Serve until the client leaves or the server closes."""
        head = self.stream.head
        self.reader.note(notice("hello", head, heartbeat_s=self.heartbeat_s))
        farewell: _SentAwayError | None = None
        try:
            await self.socket.accept()
            self._live()
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                await self._read()
                writing.cancel()
        except* WebSocketDisconnect:
            pass  # disconnected during a write
        except* _SentAwayError as away:
            farewell = next(one for one in away.exceptions if isinstance(one, _SentAwayError))
        finally:
            if self._pulse is not None:
                self._pulse.cancel()
        if farewell is not None:
            await self._close(farewell)

    async def _close(self, farewell: _SentAwayError) -> None:
        """Send the close frame after pending data; abort if the client reads nothing."""
        client: ClientConnection | None = getattr(self.socket.state, CLIENT, None)
        try:
            async with asyncio.timeout(_write_timeout_s(client)):
                await self.socket.close(farewell.code, farewell.reason)
        except TimeoutError:
            if client is not None:
                client.abort()
        except WebSocketDisconnect:
            pass  # already disconnected

    async def _write(self) -> None:
        """Single writer of the connection, which keeps the order of frames."""
        while True:
            frames = await self._next()
            self._sent_at = asyncio.get_running_loop().time()
            client: ClientConnection | None = getattr(self.socket.state, CLIENT, None)
            try:
                for frame in frames:
                    async with asyncio.timeout(_write_timeout_s(client)):
                        await self.socket.send_text(frame.text)
            except TimeoutError:
                if client is not None:
                    client.on_stalled("websocket")
                raise _SentAwayError(TRY_AGAIN_LATER, "too slow") from None
            self.sent += len(frames)
            await asyncio.sleep(0)  # a long replay must not block the event loop

    def _live(self) -> None:
        """Send heartbeats in idle times with a single timer."""
        loop = asyncio.get_running_loop()
        if self._pulse is None:
            self._sent_at = loop.time()
        elif loop.time() >= self._sent_at + self.heartbeat_s:
            self.reader.note(notice("heartbeat", self.stream.head))
            self._sent_at = loop.time()
        self._pulse = loop.call_at(self._sent_at + self.heartbeat_s, self._live)

    async def _next(self) -> Sequence[Frame]:
        try:
            return await self.reader.next()
        except ServiceError as error:  # replay unavailable now; the client may resume later
            raise _SentAwayError(TRY_AGAIN_LATER, error.code.value) from error

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] != "websocket.receive":
                return
            if self._is_flood():
                raise _SentAwayError(TOO_MANY_MESSAGES, "too many messages")
            text = message.get("text")
            if text is None:
                raise _SentAwayError(NOT_JSON, "send text")
            await self._answer(text)

    async def _answer(self, text: str) -> None:
        try:
            self.reader.note(await self._carried_out(_understood(text)))
        except RequestError as error:
            errors = [{"loc": list(loc), "type": kind} for loc, kind in error.errors]
            self._refuse(error, errors=errors)
        except ServiceError as error:
            self._refuse(error)

    async def _carried_out(self, message: Subscribe | Unsubscribe | Ping) -> Frame:
        reader = self.reader
        if isinstance(message, Ping):
            return notice("pong", self.stream.head)
        topics, symbols = asked(message.topics, self.resolve)
        if isinstance(message, Unsubscribe):
            reader.ask(reader.topics - topics, reader.symbols - symbols)
            return notice("unsubscribed", topics=topic_names(reader))
        if len(reader.topics | topics) + len(reader.symbols | symbols) > MAX_TOPICS:
            errors = [(("topics",), "too_long")]
            raise RequestError(
                Code.VALIDATION_FAILED, f"At most {MAX_TOPICS} topics at a time.", errors=errors
            )
        if message.resume_from is not None:
            await reader.resume(message.resume_from)
        # The resume position is settled before a new topic delivers its first event.
        reader.ask(reader.topics | topics, reader.symbols | symbols)
        return notice("subscribed", reader.position, topics=topic_names(reader))

    def _refuse(self, error: ServiceError, **more: Any) -> None:
        self.reader.note(notice("error", code=error.code.value, detail=error.detail, **more))

    def _is_flood(self) -> bool:
        now = asyncio.get_running_loop().time()
        is_flood = len(self._times) == MESSAGES_PER_S and now - self._times[0] < 1.0
        self._times.append(now)
        return is_flood


def _write_timeout_s(client: ClientConnection | None) -> float | None:
    return None if client is None else client.write_timeout_s


def _understood(text: str) -> Subscribe | Unsubscribe | Ping:
    """Parse a command. Raises RequestError, which never echoes the input."""
    document = parse(text.encode("utf-8", "surrogatepass"))
    try:
        return _MESSAGES.validate_python(document)
    except ValidationError as error:
        errors = [(tuple(one["loc"]), one["type"]) for one in error.errors(include_input=False)]
    raise RequestError(Code.VALIDATION_FAILED, "The message is not as it should be.", errors=errors)
