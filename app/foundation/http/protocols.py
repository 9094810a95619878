"""uvicorn's protocols, with an end for clients that stop reading: they would hold memory."""

import asyncio
import socket
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, BaseTransport
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from app.foundation.http.server import StrictHttp

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
