"""Outermost ASGI middleware: request id, limits, path checks, headers, log line, metrics."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.health import Mode
from app.foundation.http.errors import CLIENT_CLOSED, problem_response, template_of
from app.foundation.http.protocol import ENCODED_SLASH
from app.foundation.http.request_body import UNSAFE_TEXT
from app.foundation.http.responses import (
    MORE_HEADERS,
    REPLAYED,
    TRANSPORT_SECURITY,
    CompleteHeaders,
    Header,
)
from app.foundation.metrics import Metrics

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_URL_BYTES: Final = 8 * 1024
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_\-]{8,64}")
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_REPLAYED: Final = REPLAYED.lower().encode()
_HAS_LENGTH, _HAS_CHUNKS = 1, 2
_REMEMBERED_PATHS: Final = 256
UNMATCHED: Final = "unmatched"
_DENIAL: Final = "websocket.http.response"  # extension of servers that can refuse with a response

_log = structlog.get_logger(component="api")


@dataclass(frozen=True, slots=True)
class _RouteMetrics:
    """Metrics of one combination of route, method and status."""

    count: Callable[[], None]
    observe: Callable[[float], None]


@dataclass(slots=True)
class RequestMiddleware:
    """Outermost layer: processes every response, also those of errors and limits.

    `has_log_line` is False if the log level suppresses request lines.
    """

    app: ASGIApp
    metrics: Metrics
    new_id: Callable[[], str]
    monotonic: Callable[[], float]
    has_log_line: bool = True
    # Looking up labelled metrics takes longer than counting.
    _by_route: dict[tuple[str, str, int], _RouteMetrics] = field(default_factory=dict, init=False)
    _in_flight: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.metrics.http_requests_in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        head = _Head.of(scope["headers"])
        request_id = head.request_id or self.new_id()
        state = scope.setdefault("state", {})
        if scope["type"] == "websocket":
            state["request_id"] = request_id
            await self.app(scope, receive, _Handshake(send, scope))
            return
        state["request_id"] = request_id
        is_head = scope["method"] == "HEAD"
        if scope.get("scheme") == "https":
            state[MORE_HEADERS] = (TRANSPORT_SECURITY,)
        started = self.monotonic()
        answer = _Answer(send, request_id, state, self.monotonic, is_head=is_head)
        self._in_flight += 1
        try:
            if is_head:
                # Every GET route also answers HEAD: routes see a GET, and a HEAD starts no job.
                # The server keeps its own scope, in which the method stays HEAD.
                headers = [pair for pair in scope["headers"] if pair[0] != b"prefer"]
                scope = {**scope, "method": "GET", "headers": headers}
                receive = answer.ended(receive)
            refusal = _refusal(scope, head)
            if refusal is None:
                await self.app(scope, receive, answer)
            else:
                await _refuse(scope, receive, answer, *refusal)
        finally:
            self._in_flight -= 1
            self._report(scope, answer, started, self.monotonic() - started)

    def _report(self, scope: Scope, answer: "_Answer", received_at: float, seconds: float) -> None:
        route = template_of(scope) or UNMATCHED
        asked = "HEAD" if answer.is_head else scope["method"]
        method = asked if asked in _METHODS else "OTHER"
        key = method, route, answer.status
        metrics = self._by_route.get(key)
        if metrics is None:
            count = self.metrics.http_requests.labels(method, route, str(answer.status))
            times = self.metrics.http_request_seconds.labels(method, route)
            metrics = self._by_route[key] = _RouteMetrics(count.inc, times.observe)
        metrics.count()
        metrics.observe(seconds)
        if answer.started_at is not None:
            # Until the response starts, so that an open event stream does not count as slow.
            self.metrics.response_times.add(answer.started_at - received_at)
        if answer.is_replay:
            self.metrics.idempotent_replays.labels(route).inc()
        if not self.has_log_line:
            return
        code = scope["state"].get("problem_code")
        _log.info(
            "request",
            request_id=scope["state"]["request_id"],
            method=method,
            route=route,
            status=answer.status,
            ms=round(seconds * 1e3, 2),
            **({"code": code} if code else {}),
        )


@dataclass(frozen=True, slots=True)
class LogContextMiddleware:
    """Adds the request id to every log line of the request."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with structlog.contextvars.bound_contextvars(request_id=scope["state"]["request_id"]):
            await self.app(scope, receive, send)


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, code: Code, detail: str
) -> None:
    # The rest of such a request cannot be trusted: the connection is closed.
    ending = {"Connection": "close"} if status != 404 else None
    response = problem_response(Request(scope), status, code, detail, headers=ending)
    await response(scope, receive, send)


class _Answer:
    """Sends the response with the common headers, records the status, omits the body of HEAD."""

    def __init__(
        self,
        send: Send,
        request_id: str,
        state: Mapping[str, Any],
        monotonic: Callable[[], float],
        *,
        is_head: bool,
    ) -> None:
        self._send = send
        self._request_id = request_id.encode("ascii", "replace")
        self._state = state
        # None before the service is open
        self._mode: Callable[[], Mode] | None = state.get("mode")
        self._is_over = False
        self._monotonic = monotonic
        self.started_at: float | None = None  # monotonic; None before the response
        self.is_head = is_head
        self.status = CLIENT_CLOSED  # until the response starts
        self.is_replay = False

    def __call__(self, message: Message) -> Awaitable[None]:
        # Not a coroutine itself: a cached response passes here twice, and each one takes time.
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.started_at = self._monotonic()
            headers = message["headers"]
            if not isinstance(headers, CompleteHeaders):
                self.is_replay = any(name.lower() == _REPLAYED for name, _ in headers)
                mode = None if self._mode is None else self._mode()
                headers = CompleteHeaders.of(headers, mode)
            more: Sequence[Header] = self._state.get(MORE_HEADERS, ())
            message["headers"] = [*headers, (b"x-request-id", self._request_id), *more]
        elif self.is_head:
            if self._is_over:
                return asyncio.sleep(0)
            # Content-Length stays valid; a streamed response ends here.
            message = {"type": "http.response.body", "body": b""}
            self._is_over = True
        return self._send(message)

    def ended(self, receive: Receive) -> Receive:
        """Returns a `receive` that reports a disconnect after a HEAD, so that streams end."""
        if not self.is_head:
            return receive

        async def gone_when_over() -> Message:
            return {"type": "http.disconnect"} if self._is_over else await receive()

        return gone_when_over


class _Handshake:
    """Sends a WebSocket's messages; the refusal of its handshake gets the common headers."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self._state: Mapping[str, Any] = scope["state"]
        self._is_encrypted = scope.get("scheme") == "wss"
        self._can_respond = _DENIAL in scope.get("extensions", {})
        self._is_open = False  # or refused with a response

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.http.response.start":
            self._is_open = True
            message = {**message, "headers": self._complete(message.get("headers", ()))}
        elif kind == "websocket.accept":
            self._is_open = True
        elif kind == "websocket.close" and not self._is_open and self._can_respond:
            # As the server answers it, which adds no header.
            headers = self._complete([(b"content-length", b"0")])
            start = {"type": "websocket.http.response.start", "status": 403, "headers": headers}
            await self._send(start)
            message = {"type": "websocket.http.response.body", "body": b""}
        await self._send(message)

    def _complete(self, given: Iterable[Header]) -> list[Header]:
        more = tuple(self._state.get(MORE_HEADERS, ()))
        if self._is_encrypted and TRANSPORT_SECURITY not in more:
            more = (*more, TRANSPORT_SECURITY)
        request_id = (b"x-request-id", self._state["request_id"].encode("ascii", "replace"))
        return [*CompleteHeaders.of(given, None), request_id, *more]


@dataclass(slots=True)
class _Head:
    """Facts about the request headers, from one pass over them."""

    request_id: str | None  # of the client
    size: int  # bytes
    framing: int  # _HAS_LENGTH, _HAS_CHUNKS or both

    @classmethod
    def of(cls, headers: Sequence[Header]) -> "_Head":
        ids: list[bytes] = []
        size = 4 * len(headers)
        framing = 0
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"x-request-id":
                ids.append(value)
            elif name == b"content-length":
                framing |= _HAS_LENGTH
            elif name == b"transfer-encoding":
                framing |= _HAS_CHUNKS
        is_accepted = len(ids) == 1 and _REQUEST_ID.fullmatch(ids[0])
        return cls(str(ids[0], "ascii") if is_accepted else None, size, framing)


def _refusal(scope: Scope, head: _Head) -> tuple[int, Code, str] | None:
    """Returns a violated limit or path rule; sets `scope['path']` from the raw path."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(raw) + len(scope["query_string"]) > MAX_URL_BYTES:
        return 414, Code.URI_TOO_LONG, f"An address may have up to {MAX_URL_BYTES} bytes."
    if head.size > MAX_HEADER_BYTES:
        return 431, Code.HEADERS_TOO_LARGE, f"Headers may have up to {MAX_HEADER_BYTES} bytes."
    if head.framing == _HAS_LENGTH | _HAS_CHUNKS:
        return 400, Code.BAD_REQUEST, "A body has either a length or chunks."
    path = _path(raw.partition(b"?")[0])
    if path is None:
        return 404, Code.NOT_FOUND, "There is nothing at this address."
    scope["path"] = path
    return None


@lru_cache(_REMEMBERED_PATHS)
def _path(raw: bytes) -> str | None:
    """Decodes each segment separately, so that %2F stays inside it; None for an invalid path."""
    segments: list[str] = []
    for part in raw.split(b"/"):
        try:
            segment = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if not {".", ".."}.isdisjoint(segment.split("/")) or "\\" in segment:
            return None
        if UNSAFE_TEXT.search(segment):
            return None
        if any(sign in segment for sign in "\t\r\n"):
            return None
        segments.append(segment.replace("/", ENCODED_SLASH))
    return "/".join(segments)
