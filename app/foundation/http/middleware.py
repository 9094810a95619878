"""Around every request, in pure ASGI: id, limits, path hygiene, headers, log line, metrics."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.errors import CLIENT_CLOSED, problem_response, template_of
from app.foundation.http.protocol import MODE
from app.foundation.http.request_body import UNSAFE_TEXT
from app.foundation.http.responses import REPLAYED
from app.foundation.http.schemas import ENCODED_SLASH
from app.foundation.metrics import Metrics
from app.foundation.mode import Mode

MAX_HEADER_BYTES: Final = 32 * 1024
MAX_URL_BYTES: Final = 8 * 1024
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_\-]{8,64}")
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_API_CSP: Final = b"default-src 'none'; frame-ancestors 'none'"
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _API_CSP),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
_REPLAYED: Final = REPLAYED.lower().encode()
UNMATCHED: Final = "unmatched"

_log = structlog.get_logger(component="api")


@dataclass(frozen=True, slots=True)
class RequestBorder:
    """The outermost layer: it sees every answer, also those of crashes and of limits."""

    app: ASGIApp
    metrics: Metrics
    new_id: Callable[[], str]
    monotonic: Callable[[], float]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _accepted_id(scope) or self.new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(
            send,
            request_id.encode("ascii", "replace"),
            scope["state"].get("mode"),
            is_head=scope["method"] == "HEAD",
        )
        started = self.monotonic()
        self.metrics.http_requests_in_flight.inc()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if answer.is_head:
                # What can be read can be asked for without its body; routes see only the GET,
                # and nothing is begun for somebody who wants no answer.
                # The server goes by its own scope: there it stays a HEAD.
                kept = [one for one in scope["headers"] if one[0] != b"prefer"]
                scope = {**scope, "method": "GET", "headers": kept}
            await self._guarded(scope, answer.ended(receive), answer)
        finally:
            self.metrics.http_requests_in_flight.dec()
            self._report(scope, answer, self.monotonic() - started)
            structlog.contextvars.unbind_contextvars("request_id")

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, code, detail = refusal
        # The rest of such a request cannot be trusted: the connection ends with it.
        ending = {"Connection": "close"} if status != 404 else None
        response = problem_response(Request(scope), status, code, detail, headers=ending)
        await response(scope, receive, send)

    def _report(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = template_of(scope) or UNMATCHED
        asked = "HEAD" if answer.is_head else scope["method"]
        method = asked if asked in _METHODS else "OTHER"
        self.metrics.http_requests.labels(method, route, str(answer.status)).inc()
        self.metrics.http_request_seconds.labels(method, route).observe(seconds)
        if answer.is_replay:
            self.metrics.idempotent_replays.labels(route).inc()
        code = scope["state"].get("problem_code")
        _log.info(
            "request",
            method=method,
            route=route,
            status=answer.status,
            ms=round(seconds * 1e3, 2),
            **({"code": code} if code else {}),
        )


def _with_defaults(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Response headers with the security headers that the response does not set itself."""
    given = list(headers)
    present = {name.lower() for name, _ in given}
    return [*given, *((name, value) for name, value in _HEADERS if name not in present)]


class _Answer:
    """Passes the answer on, adds our headers, remembers the status; to HEAD without the body."""

    def __init__(
        self,
        send: Send,
        request_id: bytes,
        mode: Callable[[], Mode] | None,
        *,
        is_head: bool,
    ) -> None:
        self._send = send
        self._request_id = request_id
        self._mode = mode  # None before the service stands
        self._is_over = False
        self.is_head = is_head
        self.status = CLIENT_CLOSED  # until somebody answers
        self.is_replay = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_replay = any(name.lower() == _REPLAYED for name, _ in message["headers"])
            mode = () if self._mode is None else ((MODE, self._mode().value.encode()),)
            message["headers"] = [
                *_with_defaults(message["headers"]),
                *mode,
                (b"x-request-id", self._request_id),
            ]
        elif self.is_head:
            if self._is_over:
                return
            # The length that was said stays true; of a stream there is nothing to wait for.
            message = {"type": "http.response.body", "body": b""}
            self._is_over = True
        await self._send(message)

    def ended(self, receive: Receive) -> Receive:
        """`receive`, by which a stream learns that nobody listens to what a HEAD would read."""
        if not self.is_head:
            return receive

        async def gone_when_over() -> Message:
            return {"type": "http.disconnect"} if self._is_over else await receive()

        return gone_when_over


def _accepted_id(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(values) == 1 and _REQUEST_ID.fullmatch(values[0]):
        return str(values[0], "ascii")
    return None


def _refusal(scope: Scope) -> tuple[int, Code, str] | None:
    """Limits and path hygiene; also makes `scope['path']` what the raw path says."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(raw) + len(scope["query_string"]) > MAX_URL_BYTES:
        return 414, Code.URI_TOO_LONG, f"An address may have up to {MAX_URL_BYTES} bytes."
    if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return 431, Code.HEADERS_TOO_LARGE, f"Headers may have up to {MAX_HEADER_BYTES} bytes."
    names = {name for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:
        return 400, Code.BAD_REQUEST, "A body has either a length or chunks."
    path = _path(raw.partition(b"?")[0])
    if path is None:
        return 404, Code.NOT_FOUND, "There is nothing at this address."
    scope["path"] = path
    return None


def _path(raw: bytes) -> str | None:
    """Decode each segment by itself, so that %2F stays inside it; None for what cannot be."""
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
