"""HTTP server: uvicorn with time limits, unambiguous framing and a bound on open connections."""

import asyncio
import errno
import json
import resource
import socket
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, ClassVar, Final
from urllib.parse import unquote

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.foundation.errors import Code
from app.foundation.http.certificate import ServerCertificate
from app.foundation.http.protocol import PROBLEM_JSON
from app.foundation.http.responses import SECURITY_HEADERS, TRANSPORT_SECURITY

MAX_HEAD_BYTES: Final = 256 * 1024  # above the limits of middleware.py, which name the fault
MAX_MESSAGE_BYTES: Final = 64 * 1024
TRY_AGAIN_LATER: Final = 1013  # close code of a WebSocket
ENDLESS: Final = "endless"  # set in the state of a request whose response never ends by itself
CLIENT: Final = "client_connection"  # in the state of a WebSocket: its ClientConnection

_MAX_PIPELINED: Final = 16  # requests behind the current one
_ACCEPTS_PER_TURN: Final = 256  # of the event loop; also the backlog of the socket
_RESERVED_DESCRIPTORS: Final = 256
_MAX_DESCRIPTORS: Final = 16_384
_KEEP_ALIVE_S: Final = 5
_GRACE_S: Final = 10
_NO_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_REFUSALS: Final = {
    400: (Code.BAD_REQUEST, "Bad Request", "That is not a well-formed request."),
    431: (
        Code.HEADERS_TOO_LARGE,
        "Request Header Fields Too Large",
        "The head of the request is too large.",
    ),
    503: (Code.SHUTTING_DOWN, "Service Unavailable", "The service is stopping; try again."),
}
_OVERLOADED: Final = (
    Code.OVERLOADED,
    "Service Unavailable",
    "There are too many open connections; try again later.",
)


_log = structlog.get_logger("server")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one server: times in seconds, and numbers of open connections."""

    read_timeout_s: float = 10.0  # for first byte and head, and for the body
    write_timeout_s: float = 5.0  # for a client that reads nothing
    connections: int = 4096
    connections_per_address: int = 1024
    trusted_proxies: Collection[IPv4Network | IPv6Network] = ()  # no bound per address

    @classmethod
    def within(
        cls,
        descriptors: int,
        *,
        read_timeout_s: float,
        connections: int,
        connections_per_address: int,
        trusted_proxies: Collection[IPv4Network | IPv6Network],
    ) -> "ServerLimits":
        """Returns limits that leave a reserve of `descriptors` for database, exchange and files."""
        reserve = min(_RESERVED_DESCRIPTORS, descriptors // 2)
        bound = min(connections, descriptors - reserve)
        return cls(
            read_timeout_s=read_timeout_s,
            connections=bound,
            connections_per_address=min(connections_per_address, bound // 2),
            trusted_proxies=tuple(trusted_proxies),
        )

    def bounds_address(self, host: str) -> bool:
        """Returns True if connections of this address are counted separately."""
        try:
            address = ip_address(host)
        except ValueError:
            return True
        # A socket for both versions reports IPv4 peers as ::ffff:192.0.2.1.
        address = getattr(address, "ipv4_mapped", None) or address
        return not any(address in network for network in self.trusted_proxies)


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """Connection below a WebSocket, for the session that has to close it."""

    abort: Callable[[], None]
    write_timeout_s: float
    on_stalled: Callable[[str], None]


def _ignore(transport: str) -> None:
    """Default observer of stalled clients."""


class _Discarded(list[tuple[bytes, bytes]]):
    """List of headers that stays empty."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        del header


_NO_TRAILERS: Final = _Discarded()


class StrictHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 by llhttp, with time limits and framing checks that uvicorn lacks.

    It refuses requests that a proxy in front may parse differently: a part of one request could
    pass as another (request smuggling). A refusal closes the connection.
    """

    limits: ClassVar[ServerLimits] = ServerLimits()
    new_id: ClassVar[Callable[[], str]]
    on_stalled: ClassVar[Callable[[str], None]] = staticmethod(_ignore)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = False
        self._head_bytes = 0
        self._phase = 0  # count of received heads and bodies; odd: a body is due
        self._timed_phase = 0
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # it is one of a socket
        _send_without_delay(transport)
        if _make_room(self):
            self._time_read()
        else:
            _send_refusal(self, 503, *_OVERLOADED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        self._head_bytes += len(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431)
            return
        is_due = self._in_head or self._phase % 2 == 1 or not self._is_answering()
        if self._read_timer is not None and not (is_due and self._phase == self._timed_phase):
            self._read_timer.cancel()
            self._read_timer = None
        if is_due and self._read_timer is None:
            self._time_read()

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not _is_sound(self):
            raise ValueError("ambiguous framing")  # becomes a parser error
        self._in_head = False
        self._phase += 1
        # httptools.parse_url fails for long addresses, which get a 414 later.
        target, self.url = self.url, b"/"
        super().on_headers_complete()
        self.url = target
        raw, _, query = target.partition(b"?")
        path = unquote(raw.decode("ascii"))
        self.scope.update({"path": path, "raw_path": raw, "query_string": query})
        if not self.parser.should_upgrade():
            self.headers = _NO_TRAILERS  # uvicorn appends trailers to the headers of the request
        elif not self._should_upgrade():
            self.cycle.keep_alive = False  # the parser reads nothing after it

    def on_message_complete(self) -> None:
        self._phase += 1
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        if self._is_answering():
            self._refuse(400)
            return
        self._cancel_timers()
        limits, cls = self.limits, type(self)
        client = ClientConnection(self.transport.abort, limits.write_timeout_s, cls.on_stalled)
        self.app_state = {**self.app_state, CLIENT: client}
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400)

    def shutdown(self) -> None:
        if self._is_answering() and not self.pipeline:
            if self.scope["state"].get(ENDLESS):
                self._disconnect()
                self.transport.close()
            elif self._phase % 2 == 1 and not self._in_head:
                self._refuse(503)
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self._end_stalled)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def waits_until(self) -> float | None:
        """Returns the loop time at which the idle connection ends; None if it is in use."""
        timer = self._read_timer or self.timeout_keep_alive_task
        return None if timer is None else timer.when()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, despite its type
        return cycle is not None and (bool(self.pipeline) or not cycle.response_complete)

    def _refuse(self, status: int) -> None:
        """Sends a refusal, unless it could be taken for another response, and closes."""
        if not self._is_answering():
            _send_refusal(self, status, *_REFUSALS[status])
        elif self._in_head:
            self.cycle.keep_alive = False  # close after the responses to earlier valid requests
        elif self.pipeline or self.cycle.response_started:
            self.transport.close()
        else:  # the body of the current request is at fault
            self._disconnect()
            _send_refusal(self, status, *_REFUSALS[status])

    def _disconnect(self) -> None:
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _time_read(self) -> None:
        self._timed_phase = self._phase
        self._read_timer = self.loop.call_later(self.limits.read_timeout_s, self._end_silent)

    def _end_silent(self) -> None:
        if self.flow.read_paused:  # the server is the slow side
            self._time_read()
        else:
            self.transport.close()

    def _end_stalled(self) -> None:
        type(self).on_stalled("http")
        self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._read_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._read_timer = self._write_timer = None


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket whose refusal with a response is a complete handshake, not an error in the log."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True


def _send_without_delay(transport: asyncio.BaseTransport) -> None:
    # asyncio sets it only for sockets that name their protocol. Without it a response in two writes
    # waits up to 40 ms for the client's acknowledgement of the first.
    with suppress(OSError, AttributeError):  # closed already, or not TCP
        bound = transport.get_extra_info("socket")
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _is_sound(protocol: StrictHttpProtocol) -> bool:
    """Returns True if the head has one host, a local target and unambiguous framing."""
    version, hosts = protocol.parser.get_http_version(), 0
    for name, value in protocol.headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and (value != b"chunked" or version != "1.1"):
            return False
    is_named = hosts == 1 or (hosts == 0 and version == "1.0")
    is_local = protocol.url.startswith(b"/") and b"#" not in protocol.url
    is_bounded = len(protocol.pipeline) < _MAX_PIPELINED
    return is_named and is_local and version in _VERSIONS and is_bounded


def _send_refusal(
    protocol: StrictHttpProtocol, status: int, code: Code, title: str, detail: str
) -> None:
    request_id = type(protocol).new_id()
    scheme = protocol.scheme
    protocol.transport.write(_problem(status, code, title, detail, request_id, scheme))
    protocol.transport.close()


def _make_room(new: StrictHttpProtocol) -> bool:
    """Closes the connection that has waited longest if a bound is exceeded; False if none waits.

    An idle client thus never blocks another one.
    """
    limits = new.limits
    open_ones: Collection[Any] = new.connections  # also those of WebSockets
    host = new.client[0] if new.client else ""
    if len(open_ones) > limits.connections_per_address and limits.bounds_address(host):
        same = [one for one in open_ones if one.client and one.client[0] == host]
        if len(same) > limits.connections_per_address:
            return _close_longest_waiting(new, same)
    return len(open_ones) <= limits.connections or _close_longest_waiting(new, open_ones)


def _close_longest_waiting(new: StrictHttpProtocol, candidates: Iterable[Any]) -> bool:
    waiting = [
        (until_s, id(one), one)
        for one in candidates
        if isinstance(one, StrictHttpProtocol)
        and one is not new
        and (until_s := one.waits_until()) is not None
    ]
    if not waiting:
        return False
    _, _, longest = min(waiting)
    new.connections.discard(longest)  # now: connection_lost runs only in the next turn of the loop
    longest.transport.abort()
    return True


def _problem(
    status: int, code: Code, title: str, detail: str, request_id: str, scheme: str | None
) -> bytes:
    body = json.dumps(
        {
            "type": f"urn:my-symbols:problem:{code.value}",
            "title": title,
            "status": status,
            "code": code.value,
            "detail": detail,
            "instance": "about:blank",
            "request_id": request_id,
        }
    ).encode()
    retry = "retry-after: 5\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {title}\r\n"
        f"content-type: {PROBLEM_JSON}\r\n"
        f"content-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\n{retry}"
        "connection: close\r\n"
    )
    secure = SECURITY_HEADERS if scheme == "http" else (*SECURITY_HEADERS, TRANSPORT_SECURITY)
    lines = b"".join(b"%b: %b\r\n" % pair for pair in secure)
    return b"".join((head.encode("ascii", "replace"), lines, b"\r\n", body))


def raise_descriptor_limit(most: int = _MAX_DESCRIPTORS) -> int:
    """Raises the soft limit of open descriptors towards the hard one; returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft == infinite:
        return most
    wanted = max(soft, most if hard == infinite else min(hard, most))
    with suppress(OSError, ValueError):  # refused: the soft limit stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@dataclass(slots=True)
class LoopErrorHandler:
    """Logs failed accepts at most once a second; leaves other errors to the loop's own handler.

    Without descriptors asyncio reports a whole backlog of failures every second.
    """

    monotonic: Callable[[], float] = time.monotonic
    _logged_s: float = float("-inf")
    _suppressed: int = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _NO_RESOURCES):
            loop.default_exception_handler(context)
            return
        now = self.monotonic()
        if now - self._logged_s < 1.0:
            self._suppressed += 1
            return
        _log.error("accept_failed", cause=errno.errorcode[error.errno], suppressed=self._suppressed)
        self._logged_s, self._suppressed = now, 0


class ServerLoop(asyncio.SelectorEventLoop):
    """Event loop that ends a TLS handshake after `handshake_timeout_s`; asyncio waits 60 s.

    uvicorn does not pass the limit on, and a connection counts only after its handshake.
    """

    def __init__(self, handshake_timeout_s: float) -> None:
        super().__init__()
        self._handshake_timeout_s = handshake_timeout_s

    async def create_server(self, *arguments: Any, **named: Any) -> asyncio.Server:
        if named.get("ssl") is not None:
            named.setdefault("ssl_handshake_timeout", self._handshake_timeout_s)
        return await super().create_server(*arguments, **named)


def server_config(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    new_id: Callable[[], str],
    limits: ServerLimits | None = None,
    on_stalled: Callable[[str], None] = _ignore,
    certificate: ServerCertificate | None = None,
) -> uvicorn.Config:
    """Configures uvicorn: own request log, bounded heads and connections, no banner.

    With a certificate it speaks TLS alone.

    `on_stalled` receives "http" or "websocket" for each client that read nothing for too long.
    """
    bound = {
        "limits": ServerLimits() if limits is None else limits,
        "new_id": staticmethod(new_id),
        "on_stalled": staticmethod(on_stalled),
    }
    return uvicorn.Config(
        app,
        interface="asgi3",
        ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        host=host,
        port=port,
        http=type("BoundHttpProtocol", (StrictHttpProtocol,), bound),
        ws=WebSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_ACCEPTS_PER_TURN,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
