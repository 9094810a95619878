"""Event stream over WebSocket and server-sent events, with the session of each client."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import Header, Query, Request
from fastapi.sse import format_sse_event
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.foundation.errors import (
    Code,
    FieldFault,
    RateLimitedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.events import EventTopic
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import RequestError, faults_of, invalid, problems
from app.foundation.http.field_faults import RequestShape, kind_of, sentence
from app.foundation.http.openapi_fields import REF
from app.foundation.http.permissions import (
    WRONG_PRINCIPAL,
    PrincipalDep,
    note_refusal,
    requires,
    takes_ticket,
    watch_principal,
)
from app.foundation.http.request_body import Body, parse
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out, UtcTime
from app.foundation.http.server import CLIENT, ENDLESS, TRY_AGAIN_LATER, ClientConnection
from app.foundation.http.stream_slots import StreamSlots
from app.foundation.principals import Permission, Principal, Role
from app.market.domain.symbols import SymbolEntry
from app.market.services.symbol_registry import Registry
from app.operations.services.event_messages import (
    GAP,
    TICKER,
    Frame,
    LiveTopic,
    notice,
    pieces,
)
from app.operations.services.event_stream import EventReader, EventStream, ReaderEndedError
from app.security.api.client_address import client_of_request
from app.security.services.tickets import TicketService

TopicText = Annotated[str, Field(min_length=1, max_length=80, examples=["portfolio_change"])]
_PREFIX: Final = f"{TICKER}:"
_SECURITY_TOPIC: Final = Permission(Role.ADMIN)
NAMES: Final = ", ".join(f"`{name}`" for name in (*EventTopic, *LiveTopic, f"{_PREFIX}SYMBOL"))
Topics = tuple[frozenset[EventTopic], frozenset[str], frozenset[LiveTopic]]


def parse_topics(
    names: Iterable[str], resolve: Callable[[str], SymbolEntry], principal: Principal
) -> Topics:
    """Returns stored topics, the symbols of `ticker:SYMBOL` in any spelling, and live topics.

    Raises RequestError for an unknown topic (validation_failed) and for one that the principal
    may not read (forbidden), RefusedError for an unknown symbol.
    """
    topics: set[EventTopic] = set()
    symbols: set[str] = set()
    live: set[LiveTopic] = set()
    for at, name in enumerate(names):
        if name.startswith(_PREFIX):
            symbols.add(resolve(name.removeprefix(_PREFIX)).symbol)
        elif name in set(EventTopic):
            topics.add(EventTopic(name))
        elif name in set(LiveTopic):
            live.add(LiveTopic(name))
        else:
            detail = f"The topics are {NAMES}."
            allowed = (
                *(topic.value for topic in (*EventTopic, *LiveTopic)),
                f"{_PREFIX}SYMBOL",
            )
            fault = FieldFault(("body", "topics", at), "enum", detail, "string", allowed)
            raise RequestError(Code.VALIDATION_FAILED, detail, errors=[fault])
    if EventTopic.SECURITY in topics and not _SECURITY_TOPIC.allows(principal):
        raise RequestError(
            Code.FORBIDDEN, f"The topic security needs {_SECURITY_TOPIC.describe()}."
        )
    return frozenset(topics), frozenset(symbols), frozenset(live)


def topic_names(reader: EventReader) -> list[str]:
    """Subscriptions of a reader in standard spelling."""
    quotes = (_PREFIX + symbol for symbol in reader.symbols)
    return sorted([*reader.topics, *quotes, *reader.live])


HEARTBEAT_S: Final = 15.0
MAX_TOPICS: Final = 100
MESSAGES_PER_S: Final = 20
NOT_JSON: Final = 1003
TOO_MANY: Final = 4429  # messages, or streams of one principal


class Subscribe(Body):
    """Command to subscribe; `resume_from` is the newest sequence that the client has."""

    type: Literal["subscribe"] = Field(description="Kind of the command.")
    topics: Annotated[list[TopicText], Field(min_length=1, max_length=MAX_TOPICS)] = Field(
        description="Topics to add."
    )
    resume_from: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Newest sequence number that the client has; later events are sent again."
    )


class Unsubscribe(Body):
    type: Literal["unsubscribe"] = Field(description="Kind of the command.")
    topics: Annotated[list[TopicText], Field(min_length=1, max_length=MAX_TOPICS)] = Field(
        description="Topics to remove."
    )


class Ping(Body):
    type: Literal["ping"] = Field(description="Kind of the command.")


_MESSAGES: Final[TypeAdapter[Subscribe | Unsubscribe | Ping]] = TypeAdapter(
    Annotated[Subscribe | Unsubscribe | Ping, Field(discriminator="type")]
)
_COMMANDS: Final = ("subscribe", "unsubscribe", "ping")


class _CloseError(Exception):
    """Close of the connection by the server, with a WebSocket close code."""

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
    principal: Principal
    heartbeat_s: float = HEARTBEAT_S
    sent: int = 0
    _sent_at: float = 0.0  # loop time of the last frame
    _pulse: asyncio.TimerHandle | None = None
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=MESSAGES_PER_S))

    async def run(self) -> None:
        """Serve until the client leaves or the server closes."""
        head = self.stream.head
        self.reader.note(notice("hello", head, heartbeat_s=self.heartbeat_s))
        close: _CloseError | None = None
        try:
            await self.socket.accept()
            self._schedule_heartbeat()
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                await self._read()
                writing.cancel()
        except* WebSocketDisconnect:
            pass  # disconnected during a write
        except* _CloseError as group:
            close = next(one for one in group.exceptions if isinstance(one, _CloseError))
        finally:
            if self._pulse is not None:
                self._pulse.cancel()
        if close is not None:
            await self._close(close)

    async def _close(self, close: _CloseError) -> None:
        """Sends the close frame after pending data; aborts if the client reads nothing."""
        client: ClientConnection | None = getattr(self.socket.state, CLIENT, None)
        try:
            async with asyncio.timeout(_write_timeout_s(client)):
                await self.socket.close(close.code, close.reason)
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
                raise _CloseError(TRY_AGAIN_LATER, "too slow") from None
            self.sent += len(frames)
            await asyncio.sleep(0)  # a long replay must not block the event loop

    def _schedule_heartbeat(self) -> None:
        """Sends heartbeats in idle times with a single timer."""
        loop = asyncio.get_running_loop()
        if self._pulse is None:
            self._sent_at = loop.time()
        elif loop.time() >= self._sent_at + self.heartbeat_s:
            self.reader.note(notice("heartbeat", self.stream.head))
            self._sent_at = loop.time()
        self._pulse = loop.call_at(self._sent_at + self.heartbeat_s, self._schedule_heartbeat)

    async def _next(self) -> Sequence[Frame]:
        try:
            return await self.reader.next()
        except ReaderEndedError:
            raise _CloseError(WRONG_PRINCIPAL, Code.UNAUTHENTICATED.value) from None
        except ServiceError as error:  # replay unavailable now; the client may resume later
            raise _CloseError(TRY_AGAIN_LATER, error.code.value) from error

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] != "websocket.receive":
                return
            if self._is_flood():
                raise _CloseError(TOO_MANY, "too many messages")
            text = message.get("text")
            if text is None:
                raise _CloseError(NOT_JSON, "send text")
            await self._answer(text)

    async def _answer(self, text: str) -> None:
        command = None
        try:
            command = _parse_command(text)
            self.reader.note(await self._execute(command))
        except ServiceError as error:
            faults = error.errors if isinstance(error, RequestError) else _topic(error, command)
            errors = [_command_shape().explain(fault) for fault in faults]
            for entry in errors:
                entry["loc"] = entry["loc"][1:]  # a message has no other part than its body
            self._refuse(error, errors=errors)

    async def _execute(self, message: Subscribe | Unsubscribe | Ping) -> Frame:
        reader = self.reader
        if isinstance(message, Ping):
            return notice("pong", self.stream.head)
        topics, symbols, live = parse_topics(message.topics, self.resolve, self.principal)
        if isinstance(message, Unsubscribe):
            reader.subscribe(reader.topics - topics, reader.symbols - symbols, reader.live - live)
            return notice("unsubscribed", topics=topic_names(reader))
        wanted = (reader.topics | topics, reader.symbols | symbols, reader.live | live)
        if sum(map(len, wanted)) > MAX_TOPICS:
            detail = f"At most {MAX_TOPICS} topics at a time."
            fault = FieldFault(("body", "topics"), "too_long", detail, "array")
            raise RequestError(Code.VALIDATION_FAILED, detail, errors=[fault])
        if message.resume_from is not None:
            await reader.resume(message.resume_from)
        # The resume position is settled before a new topic delivers its first event.
        reader.subscribe(*wanted)
        return notice("subscribed", reader.position, topics=topic_names(reader))

    def _refuse(self, error: ServiceError, **more: Any) -> None:
        if error.code is Code.FORBIDDEN:
            note_refusal(self.socket.scope, error.code)
        self.reader.note(notice("error", code=error.code.value, detail=error.detail, **more))

    def _is_flood(self) -> bool:
        now = asyncio.get_running_loop().time()
        is_flood = len(self._times) == MESSAGES_PER_S and now - self._times[0] < 1.0
        self._times.append(now)
        return is_flood


def _write_timeout_s(client: ClientConnection | None) -> float | None:
    return None if client is None else client.write_timeout_s


def _parse_command(text: str) -> Subscribe | Unsubscribe | Ping:
    """Parses a command. Raises RequestError, which never echoes the input."""
    document = parse(text.encode("utf-8", "surrogatepass"))
    try:
        return _MESSAGES.validate_python(document)
    except ValidationError as error:
        items = error.errors()
    named = document.get("type") if isinstance(document, dict) else None
    if named in _COMMANDS:
        # The first part of a location is the type of the command, by which its schema was chosen.
        faults = faults_of({**one, "loc": ("body", *one["loc"][1:])} for one in items)
    else:
        faults = (FieldFault(("body", "type"), "enum", "", kind_of(named), _COMMANDS),)
    entries = [_command_shape().explain(fault) for fault in faults]
    raise RequestError(Code.VALIDATION_FAILED, sentence(entries), errors=faults)


def _topic(error: ServiceError, command: Subscribe | Unsubscribe | Ping | None) -> list[FieldFault]:
    """Returns the fault of the topic whose symbol was refused; none for any other refusal."""
    topics = command.topics if isinstance(command, Subscribe | Unsubscribe) else []
    name = f"{_PREFIX}{error.subject}"
    if name not in topics:
        return []
    loc = ("body", "topics", topics.index(name))
    return [FieldFault(loc, error.code.value, error.detail, "string")]


@cache
def _command_shape() -> RequestShape:
    """Returns the schemas of all commands, as of the body of a request."""
    document = _MESSAGES.json_schema(ref_template=REF + "{model}")
    return RequestShape({}, document, document.get("$defs", {}))


router = api_router("stream")
_RETRY_MS: Final = 2_000
_DIGITS: Final = 18
# A reconnect resumes after the last id, so only a frame that settles all numbers up to its own has
# one: a stored event, and a gap, which reports everything before it as missing.
_RESUMABLE: Final = frozenset({*EventTopic, GAP})
_log = structlog.get_logger(component="stream")


class TicketOut(Out):
    """One-time ticket for an event stream."""

    ticket: str = Field(
        description="Value of the parameter `ticket`, shown this once.",
        examples=["0123456789abcdef" * 6],
    )
    expires_at: UtcTime = Field(description="30 seconds after its issue.")


TicketText = Annotated[
    str | None,
    Query(max_length=200, description="One-time ticket in place of a key; from /stream/tickets."),
]


@router.post(
    "/stream/tickets",
    summary="Ticket for a stream",
    status_code=201,
    responses=problems(Code.SECRETS_KEY_MISSING),
)
@requires(Role.VIEWER)
async def issue_stream_ticket(
    request: Request, tickets: Provided[TicketService], principal: PrincipalDep
) -> TicketOut:
    """Issue a ticket that opens one stream of this caller, for clients that cannot send a header.

    Pass it within 30 seconds as `ticket` to `/stream` or `/events`, from the same address. It is
    used up by the first attempt. `Idempotency-Key` is not used.
    """
    issued = await tickets.issue(principal, client_of_request(request.scope))
    return TicketOut(ticket=issued.ticket, expires_at=issued.expires_at)


@router.websocket("/stream")
@takes_ticket
@requires(Role.VIEWER)
async def stream(
    websocket: WebSocket,
    stream: Provided[EventStream],
    registry: Provided[Registry],
    principal: PrincipalDep,
) -> None:
    """Subscribe, unsubscribe and resume over one connection; docs/streaming.md has the messages."""
    try:
        with (
            stream_slots(websocket).take(principal),
            stream.reader("websocket") as reader,
            watch_principal(websocket.scope, reader.end),
        ):
            session = SocketSession(websocket, stream, registry.resolve, reader, principal)
            await session.run()
            stream.metrics.stream_frames.labels("websocket").inc(session.sent)
            _log.info("stream_ended", transport="websocket", frames=session.sent)
    except (UnavailableError, RateLimitedError) as error:
        is_capped = isinstance(error, RateLimitedError)
        await websocket.accept()
        await websocket.close(TOO_MANY if is_capped else TRY_AGAIN_LATER, error.code.value)


def stream_slots(connection: HTTPConnection) -> StreamSlots:
    """Slots of the application that serves the connection."""
    slots: StreamSlots = connection.app.state.stream_slots
    return slots


class _EventResponse(StreamingResponse):
    """Streaming response that releases its reader even if it never starts."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], resources: ExitStack) -> None:
        super().__init__(content)
        self.resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.resources:
            await super().__call__(scope, receive, send)


@router.get(
    "/events",
    summary="Events as they happen",
    status_code=200,
    response_class=_EventResponse,
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
@takes_ticket
@requires(Role.VIEWER)
async def stream_events(
    request: Request,
    registry: Provided[Registry],
    stream: Provided[EventStream],
    principal: PrincipalDep,
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
            description="Newest sequence that the client has seen; later events are sent.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            description="As `resume_from`; sent by browsers at a reconnect, and takes precedence.",
            json_schema_extra={"pattern": f"^[0-9]{{1,{_DIGITS}}}$"},
        ),
    ] = None,
    ticket: TicketText = None,
) -> StreamingResponse:
    """Events of the WebSocket `stream` for clients that only listen.

    Each event is one JSON object `{type, topic, sequence, timestamp, data}`. `sequence` counts all
    committed events without a gap; a reader of some topics sees some of the numbers, rising. Quotes
    (`ticker:SYMBOL`) are not stored and have no number. A `gap` reports
    that events can no longer be replayed, or that a failover lost the last ones
    (`sequence_went_back`): read the state anew. A slow client gets only the newest score and
    quote of each symbol; a client that reads nothing for five seconds is disconnected.
    """
    del ticket  # the authentication has used it up
    names = topics.split(",")
    if len(names) > MAX_TOPICS:
        raise invalid("query", "topics", "too_long", f"At most {MAX_TOPICS} topics.")
    try:
        wanted = parse_topics(names, registry.resolve, principal)
    except RequestError as error:
        if error.code is Code.FORBIDDEN:
            raise
        raise invalid("query", "topics", "enum", error.detail) from None
    after = _position(last_event_id if last_event_id is not None else resume_from)
    with ExitStack() as stack:
        stack.enter_context(stream_slots(request).take(principal))
        reader = stack.enter_context(stream.reader("sse"))
        stack.enter_context(watch_principal(request.scope, reader.end))
        if after is not None:
            await reader.resume(after)
        reader.subscribe(*wanted)
        resources = stack.pop_all()
    hello = notice("hello", reader.position, topics=topic_names(reader))
    request.scope["state"][ENDLESS] = True
    return _EventResponse(_frames(stream, reader, hello), resources)


def _position(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise invalid("header", "Last-Event-ID", "int_parsing", "An event id is a number.")
    return int(text)


async def _frames(stream: EventStream, reader: EventReader, hello: Frame) -> AsyncIterator[bytes]:
    """Yields frames of one reader until the client disconnects."""
    count = stream.metrics.stream_frames.labels("sse").inc
    waiting = [hello]
    while True:
        for piece in pieces(frame.encoded(_encode) for frame in waiting):
            yield piece
        count(len(waiting))
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                waiting = await reader.next()
        except TimeoutError:
            waiting = [notice("heartbeat", stream.head)]
        except ReaderEndedError:
            return  # its key is no longer valid
        except ServiceError as error:
            _log.warning("stream_interrupted", cause=error.code.value)
            return  # the client reconnects and resumes from the last id


def _encode(frame: Frame) -> bytes:
    return format_sse_event(
        data_str=frame.text,
        event=frame.kind.partition(":")[0],
        id=str(frame.sequence) if frame.kind in _RESUMABLE else None,
        retry=_RETRY_MS if frame.kind == "hello" else None,
    )
