"""Event stream over WebSocket and server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Final

import structlog
from fastapi import Header, Query, Request, WebSocket
from fastapi.sse import format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import RequestError, invalid, problems
from app.foundation.http.routing import api_router
from app.foundation.http.server import ENDLESS, TRY_AGAIN_LATER
from app.market.services.symbol_registry import Registry
from app.operations.api.stream_session import (
    HEARTBEAT_S,
    MAX_TOPICS,
    NAMES,
    SocketSession,
    asked,
    topic_names,
)
from app.operations.services.event_messages import Frame, notice, pieces
from app.operations.services.event_stream import EventStream
from app.operations.services.event_subscription import EventReader

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
