"""One WebSocket: whole messages in order of arrival, and the reason for its end."""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import picows
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from app.adapters.kucoin.stream.protocol import StreamLimits

SLICE: Final = 500  # messages processed before other tasks run
MOST: Final = 10_000  # waiting messages; beyond that, reading from the socket pauses
_HANDSHAKE_GRACE_S: Final = 1.0
_CALM_S: Final = 0.05  # after a wait of so long for a message there is nothing to gather
_ABNORMAL: Final = 1006  # code of an end without a close frame
_NO_CODE: Final = 1005
_NEVER: Final = float("-inf")
_TEXT, _CLOSE, _MORE = WSMsgType.TEXT, WSMsgType.CLOSE, WSMsgType.CONTINUATION
# The opener logs events of a connection.
_SILENT: Final = logging.getLogger("picows.stream")
_SILENT.setLevel(logging.CRITICAL + 1)

Message = bytes | None  # None: not a text message


class UnreachableError(Exception):
    """Failed attempt to connect."""


@dataclass(slots=True)
class _ReceiveQueue:
    """Waiting messages, and the monotonic arrival time of the first one."""

    messages: deque[Message] = field(default_factory=deque)
    since: float = 0.0
    rested: float = _NEVER  # end of the last read
    grew: asyncio.Event = field(default_factory=asyncio.Event)
    ended: int | None = None  # the code with which the connection was closed

    def taken(self) -> list[Message]:
        """Take the next messages, in their order."""
        take = self.messages.popleft
        part = [take() for _ in range(min(SLICE, len(self.messages)))]
        if not self.messages and self.ended is None:
            self.grew.clear()
        return part


class _SocketListener(WSListener):
    """Puts whole messages into the queue."""

    def __init__(
        self, queue: _ReceiveQueue, terms: StreamLimits, monotonic: Callable[[], float]
    ) -> None:
        self._queue = queue
        self._terms = terms
        self._monotonic = monotonic
        self._parts: list[bytes] = []
        self._is_text = True
        self._code = _ABNORMAL

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is _TEXT and frame.fin:
            self._put(transport, frame.get_payload_as_bytes())
        elif kind == _CLOSE:
            payload = frame.get_payload_as_bytes()
            self._code = int.from_bytes(payload[:2]) if payload else _NO_CODE
            transport.send_close()
            transport.disconnect(graceful=False)
        elif kind in (_TEXT, _MORE, WSMsgType.BINARY):
            self._part(transport, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        del transport
        self._queue.ended = self._code
        self._queue.grew.set()

    def _put(self, transport: WSTransport, message: Message) -> None:
        queue, messages = self._queue, self._queue.messages
        if not messages:
            # It may have arrived since the last read: take the earliest possible time.
            queue.since = max(queue.rested, self._monotonic() - self._terms.rest_s)
            queue.grew.set()
        messages.append(message)
        if len(messages) == MOST:
            transport.underlying_transport.pause_reading()

    def _part(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle a fragment, or a message that is not text."""
        if frame.msg_type != _MORE:
            self._parts, self._is_text = [], frame.msg_type == _TEXT
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > self._terms.message_bytes:
            self._code = int(WSCloseCode.MESSAGE_TOO_BIG.value)
            transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
            transport.disconnect(graceful=False)
        elif frame.fin:
            text, self._parts = b"".join(self._parts), []
            self._put(transport, text if self._is_text else None)


@dataclass(slots=True)
class StreamSocket:
    """Open connection."""

    _transport: WSTransport
    _queue: _ReceiveQueue
    _monotonic: Callable[[], float]
    _rest_s: float
    _keeps_up: bool = False

    def send(self, text: bytes) -> None:
        """Send a text; does nothing after the end."""
        if self._queue.ended is None:
            self._transport.send(_TEXT, text)

    async def read(self) -> tuple[float, list[Message]]:
        """Arrival time and messages, some hundred at most; empty at the end."""
        queue, read_at = self._queue, self._monotonic()
        if self._keeps_up:
            await self._rest()
        if queue.grew.is_set():
            await asyncio.sleep(0)  # other tasks run under any load
        else:
            await queue.grew.wait()
        was_full = len(queue.messages) >= MOST
        part = queue.taken()
        if was_full and len(queue.messages) < MOST and queue.ended is None:
            self._transport.underlying_transport.resume_reading()
        is_calm = self._monotonic() - read_at > _CALM_S
        self._keeps_up = bool(part) and not queue.grew.is_set() and not is_calm
        return queue.since, part

    async def _rest(self) -> None:
        """Pause reading: messages wait in the socket, because each wake-up costs most."""
        transport = self._transport.underlying_transport
        transport.pause_reading()
        self._queue.rested = self._monotonic()
        await asyncio.sleep(self._rest_s)
        if self._queue.ended is None:
            transport.resume_reading()

    @property
    def end(self) -> str:
        return f"closed_{self._queue.ended}"


@asynccontextmanager
async def open_socket(
    url: str, terms: StreamLimits, monotonic: Callable[[], float]
) -> AsyncIterator[StreamSocket]:
    """Open a connection and close it on exit. Raises UnreachableError."""
    queue = _ReceiveQueue()
    connecting = picows.ws_connect(
        lambda: _SocketListener(queue, terms, monotonic),
        url,
        ssl_context=_default_tls() if url.startswith("wss:") else None,
        websocket_handshake_timeout=terms.open_s,
        logger_name=_SILENT,
        max_frame_size=terms.message_bytes,
        max_redirects=0,
        use_aiofastnet=False,  # asyncio's own transports are fast enough
    )
    try:
        transport = await _finish_handshake(connecting)
    except (OSError, TimeoutError, ValueError, picows.WSError) as error:
        raise UnreachableError from error
    try:
        yield StreamSocket(transport, queue, monotonic, terms.rest_s)
    finally:
        if queue.ended is None:
            transport.send_close(WSCloseCode.OK)
        await _disconnect(transport)


async def _finish_handshake(
    connecting: Coroutine[Any, Any, tuple[WSTransport, WSListener]],
) -> WSTransport:
    """Wait briefly on cancellation: a socket cannot be closed within its handshake."""
    task = asyncio.get_running_loop().create_task(connecting)
    try:
        transport, listener = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_HANDSHAKE_GRACE_S)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        elif task.exception() is None:
            await _disconnect(task.result()[0])
        raise
    if not isinstance(listener, _SocketListener):
        raise ConnectionResetError("closed within the handshake")
    return transport


async def _disconnect(transport: WSTransport) -> None:
    transport.disconnect(graceful=False)
    with suppress(picows.WSProtocolError):  # the connection ended with the protocol error
        await transport.wait_disconnected()


@cache
def _default_tls() -> ssl.SSLContext:
    """TLS context, cached: reading all certificates is slow."""
    return ssl.create_default_context()
