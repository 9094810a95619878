"""HTTP/1.1 by llhttp, and the refusals that it leaves to us.

What has two readings is refused, since somebody in front of us may read it the other way: then
part of one request could pass as another.
"""

import asyncio
import socket
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, BaseTransport
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

MAX_HEAD_BYTES: Final = 256 * 1024  # above our own limits (middleware.py), which say more
_MOST_WAITING: Final = 16  # requests behind the one that is answered; they are read ahead
_LARGE: Final = 64 * 1024
_VERSIONS: Final = frozenset({"1.0", "1.1"})
BAD_REQUEST, TOO_LARGE = 400, 431


class OneAnswer:
    """The transport of one answer: its head goes out with what comes right behind it.

    Sent by itself it costs as much as everything else about a short answer. It waits for no more
    than the next turn of the loop, for the body may be long in coming.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._has_begun = False

    def write(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._head = data
            self._loop.call_soon(self._flush)
            return
        if self._head is None or len(data) > _LARGE:  # copying it would cost more than it saves
            self._flush()
            self._transport.write(data)
            return
        head, self._head = self._head, None
        self._transport.write(head + data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            self._transport.write(head)


class UnsoundRequestError(ValueError):
    """Well formed for the parser, but not for us."""


class StrictHttp(HttpToolsProtocol, ABC):
    """uvicorn's protocol, but nothing is read into what is not sound.

    The refusal comes behind the answers to all that was sound before it, and ends the connection.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_in_head = False
        self._began = False  # with the bytes that are being read
        self._head_bytes = 0
        self._is_deaf = False  # whatever comes on this connection is not for us any more
        self._owed: int | None = None  # a refusal that comes behind the answers before it

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_deaf:
            return
        self._began = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            self._refuse(BAD_REQUEST)
        else:
            if self._is_in_head and not self._began:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        self._is_in_head = self._began = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # what follows a body is no header of the request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_sound():
            raise UnsoundRequestError
        self._is_in_head = False
        # The other parser, that of addresses, knows no long ones; ours is not in need of it.
        asked, self.url, before = self.url, b"/", self.cycle
        super().on_headers_complete()
        self.url = asked
        if self.cycle is not before:
            joined: Any = OneAnswer(self.transport, self.loop)
            self.cycle.transport = joined
        raw, _, query = asked.partition(b"?")
        path = unquote(raw.decode("ascii"))
        self.scope.update({"path": path, "raw_path": raw, "query_string": query})

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._owed is not None and not self.transport.is_closing():
            self.refuse(self._owed)

    @abstractmethod
    def refuse(self, status: int) -> None:
        """Says what was wrong, and ends the connection."""

    def _is_sound(self) -> bool:
        version, hosts = self.parser.get_http_version(), 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (value != b"chunked" or version != "1.1"):
                return False
        is_named = hosts == 1 or (hosts == 0 and version == "1.0")
        is_ours = self.url.startswith(b"/") and b"#" not in self.url
        return is_named and is_ours and version in _VERSIONS and len(self.pipeline) < _MOST_WAITING

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # We stay with HTTP, but the parser does not: this is its last request.
            self._is_deaf = True
            self.cycle.keep_alive = False
        elif self._is_answering():
            self._refuse(BAD_REQUEST)
        else:
            self.handle_websocket_upgrade()

    def _refuse(self, status: int) -> None:
        self._is_deaf = True
        if self._is_in_head:
            has_to_wait = self._is_answering()
        elif self.pipeline:
            self.pipeline.popleft()  # its body is what is wrong, and nobody has begun with it
            has_to_wait = True
        elif self.cycle.response_started:
            self.transport.close()  # who is told something already cannot be told otherwise
            return
        else:
            has_to_wait = False
        if has_to_wait:
            self._owed = status
        else:
            self.refuse(status)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and (bool(self.pipeline) or not cycle.response_complete)


STUCK_S: Final = 5.0
MAX_MESSAGE_BYTES: Final = 64 * 1024
TRY_AGAIN_LATER: Final = 1013
ENDLESS: Final = "endless"  # set in a request's state: its answer ends when somebody leaves
# An extension of ASGI: under this name "websocket.send" takes text frames as they go over the wire.
WIRE: Final = "my_symbols.wire"
_TICKS: Final = 10
_KERNEL_BYTES: Final = 256 * 1024  # of a connection's send buffer, which else grows to megabytes


def _ignore(transport: str) -> None:
    """Nobody wants to know."""


def text_frame(text: str) -> bytes:
    """A whole message as a server sends it: neither masked nor compressed."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


class Timer(Protocol):
    def cancel(self) -> None: ...


@dataclass(slots=True)
class Patience:
    """Counts the time in which a client takes nothing, and then calls `end`.

    In ten steps, each counted once however late it comes: a time in which we did not run
    ourselves is not the client's.
    """

    later: Callable[[float, Callable[[], None]], Timer]
    step_s: float
    end: Callable[[], None]
    left: int = _TICKS
    timer: Timer | None = None

    def begin(self) -> None:
        self.timer = self.later(self.step_s, self._step)

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _step(self) -> None:
        self.left -= 1
        if self.left > 0:
            self.begin()
        else:
            self.end()


def _patience(loop: AbstractEventLoop, total_s: float, end: Callable[[], None]) -> Patience:
    begun = Patience(loop.call_later, total_s / _TICKS, end)
    begun.begin()
    return begun


class _Patient(asyncio.Protocol, ABC):
    """Counts how long the client takes nothing, and cuts it off after `stuck_s`."""

    stuck_s: ClassVar[float] = STUCK_S
    on_stuck: ClassVar[Callable[[str], None]] = staticmethod(_ignore)
    loop: AbstractEventLoop
    _cut: Patience | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cut = _patience(self.loop, self.stuck_s, self._cut_off)

    def resume_writing(self) -> None:
        self._spare()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._spare()
        super().connection_lost(exc)

    @abstractmethod
    def _cut_off(self) -> None:
        """Ends the connection of a client that takes nothing."""

    def _spare(self) -> None:
        if self._cut is not None:
            self._cut.stop()
            self._cut = None


class PatientHttp(_Patient, StrictHttp):
    """Cuts off who takes nothing for `stuck_s`, and endless answers when the server stops."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # it is one of a socket
        bound = transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):  # it is gone already, or none of TCP
            # asyncio does so only for sockets that name their protocol, as ours does not: what is
            # sent in two pieces would wait 40 ms for the other side to confirm the first.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def shutdown(self) -> None:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if cycle is not None and not cycle.response_complete and cycle.scope["state"].get(ENDLESS):
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.close()
        super().shutdown()

    def _cut_off(self) -> None:
        type(self).on_stuck("http")
        self.transport.abort()


class EvictingSocket(_Patient, WebSocketsSansIOProtocol):
    """Tells who takes nothing for `stuck_s` to try again later, and ends the connection."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        bound = transport.get_extra_info("socket")
        with suppress(OSError):  # it is gone already
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)

    async def run_asgi(self) -> None:
        self.scope["extensions"] = {**(self.scope["extensions"] or {}), WIRE: {}}
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        wire: bytes | None = message.get(WIRE)
        if wire is not None:
            await self._send_wire(wire)
            return
        if message["type"] == "websocket.close" and self.handshake_complete:
            # It goes behind what is waiting, and nobody waits for that; then comes the end.
            self.writable.set()
            self.loop.call_later(self.close_timeout, self.transport.abort)
            if self.close_sent:
                return
        await super().send(message)

    async def _send_wire(self, wire: bytes) -> None:
        await self.writable.wait()
        if self.disconnected or self.close_sent or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        self.transport.write(wire)

    def _cut_off(self) -> None:
        self._cut = None
        if self.close_sent:
            self.transport.abort()
            return
        type(self).on_stuck("websocket")
        # The reason stands behind what was not taken: who wakes up in time reads it.
        self.conn.send_close(TRY_AGAIN_LATER, "too slow")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.stuck_s, self.transport.abort)
        self.disconnected = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TRY_AGAIN_LATER})
        self.writable.set()


def socket_protocol(stuck_s: float, on_stuck: Callable[[str], None]) -> type[EvictingSocket]:
    """The class of connections that wait so long and tell `on_stuck` of whom they cut off."""
    bound = {"stuck_s": stuck_s, "on_stuck": staticmethod(on_stuck)}
    return type("BoundSocket", (EvictingSocket,), bound)
