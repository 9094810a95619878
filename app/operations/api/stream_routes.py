"""Event stream over WebSocket and server-sent events, with the session of each client."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import Header, Query, Request
from fastapi.sse import format_sse_event
from pydantic import Field, TypeAdapter, ValidationError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.events import Topic
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import RequestError, invalid, problems
from app.foundation.http.request_body import Body, parse
from app.foundation.http.routing import api_router
from app.foundation.http.server import CLIENT, ENDLESS, TRY_AGAIN_LATER, ClientConnection
from app.market.domain.symbols import SymbolEntry
from app.market.services.symbol_registry import Registry
from app.operations.services.event_messages import TICKER, Frame, notice, pieces
from app.operations.services.event_stream import EventReader, EventStream

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


router = api_router("stream")
_RETRY_MS: Final = 2_000
_DIGITS: Final = 18
_ABOUT: Final = frozenset(
    {"hello", "heartbeat"}
)  # their number is the position of the stream, not an event id
_log = structlog.get_logger(component="stream")


@router.websocket("/stream")
async def stream(
    websocket: WebSocket, stream: Provided[EventStream], registry: Provided[Registry]
) -> None:
    """Subscribe, unsubscribe and resume over one connection; README and /docs say how."""
    try:
        with stream.reader("websocket") as reader:
            session = SocketSession(websocket, stream, registry.resolve, reader)
            await session.run()
            stream.metrics.stream_frames.labels("websocket").inc(session.sent)
            _log.info("stream_ended", transport="websocket", frames=session.sent)
    except UnavailableError as error:
        await websocket.accept()
        await websocket.close(TRY_AGAIN_LATER, error.code.value)


class _HeldEvents(StreamingResponse):
    """Streaming response that releases its reader even if it never starts."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], held: ExitStack) -> None:
        super().__init__(content)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.held:
            await super().__call__(scope, receive, send)


@router.get(
    "/events",
    summary="Events as they happen",
    status_code=200,
    response_class=_HeldEvents,
    responses={
        **problems(Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.OVERLOADED),
        200: {
            "description": "Server-sent events until the client disconnects.",
            "content": {
                "text/event-stream": {
                    "example": "event: portfolio_change\nid: 17\n"
                    'data: {"type":"event","topic":"portfolio_change","sequence":17, ...}\n\n'
                }
            },
        },
    },
)
async def events(
    request: Request,
    registry: Provided[Registry],
    stream: Provided[EventStream],
    topics: Annotated[
        str,
        Query(
            min_length=1,
            max_length=2_000,
            description=f"Comma-separated, at most {MAX_TOPICS}: {NAMES}.",
            examples=["portfolio_change,score_update"],
        ),
    ],
    resume_from: Annotated[
        str | None,
        Query(
            pattern=f"^[0-9]{{1,{_DIGITS}}}$",
            description="The newest sequence that the client has seen; what came after it is sent.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            description="The same, as browsers send it when they connect again; it wins.",
            json_schema_extra={"pattern": f"^[0-9]{{1,{_DIGITS}}}$"},
        ),
    ] = None,
) -> StreamingResponse:
    """Events of the WebSocket `stream` for clients that only listen.

    Each event is one JSON object `{type, topic, sequence, timestamp, data}`. `sequence` counts all
    committed events without a gap; a reader of some topics sees some of the numbers, rising. Quotes
    (`ticker:SYMBOL`) are not stored and have no number. A `gap` reports
    that events can no longer be replayed, or that a failover lost the last ones
    (`sequence_went_back`): read the state anew. A slow client gets only the newest score and
    quote of each symbol; a client that reads nothing for five seconds is disconnected.
    """
    names = topics.split(",")
    if len(names) > MAX_TOPICS:
        raise invalid("query", "topics", "too_long", f"At most {MAX_TOPICS} topics.")
    try:
        wanted = asked(names, registry.resolve)
    except RequestError as error:
        raise invalid("query", "topics", "enum", error.detail) from None
    after = _position(last_event_id if last_event_id is not None else resume_from)
    with ExitStack() as stack:
        reader = stack.enter_context(stream.reader("sse"))
        if after is not None:
            await reader.resume(after)
        reader.ask(*wanted)
        held = stack.pop_all()
    hello = notice("hello", reader.position, topics=topic_names(reader))
    request.scope["state"][ENDLESS] = True
    return _HeldEvents(_sent(stream, reader, hello), held)


def _position(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise invalid("header", "Last-Event-ID", "int_parsing", "An event has a number as its id.")
    return int(text)


async def _sent(stream: EventStream, reader: EventReader, hello: Frame) -> AsyncIterator[bytes]:
    """Frames of one reader until the client disconnects."""
    count = stream.metrics.stream_frames.labels("sse").inc
    waiting = [hello]
    while True:
        for piece in pieces(frame.written(_written) for frame in waiting):
            yield piece
        count(len(waiting))
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                waiting = await reader.next()
        except TimeoutError:
            waiting = [notice("heartbeat", stream.head)]
        except ServiceError as error:
            _log.warning("stream_interrupted", cause=error.code.value)
            return  # the client reconnects and resumes from the last id


def _written(frame: Frame) -> bytes:
    is_stored = frame.sequence is not None and frame.kind not in _ABOUT
    return format_sse_event(
        data_str=frame.text,
        event=frame.kind.partition(":")[0],
        id=str(frame.sequence) if is_stored else None,
        retry=_RETRY_MS if frame.kind == "hello" else None,
    )
