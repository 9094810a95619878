"""I/O of the stream: sockets, frames and timers around the connection pool."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import structlog
from yarl import URL

from app.adapters.kucoin.fields import UnreadableError
from app.adapters.kucoin.limiter import RandomSource
from app.adapters.kucoin.stream.connection_pool import ConnectionPool
from app.adapters.kucoin.stream.frames import (
    CONTROL,
    encode_command,
    parse_control,
    parse_frame,
    topic_name,
)
from app.adapters.kucoin.stream.message_buffer import MessageBuffer
from app.adapters.kucoin.stream.protocol import (
    Action,
    AskTicket,
    Backfill,
    Close,
    Open,
    Send,
    StreamLimits,
    StreamTicket,
)
from app.adapters.kucoin.stream.socket import Message, StreamSocket, UnreachableError, open_socket
from app.foundation.errors import ServiceError
from app.market.domain.stream import (
    ConnectionStatus,
    Listener,
    MarketUpdate,
    StreamStatus,
    StreamTopic,
)

PORTION: Final = 150  # messages read in one turn of the event loop
_log = structlog.get_logger("stream")


@dataclass(slots=True, eq=False)
class _Socket:
    """Connection that is open or opening."""

    task: asyncio.Task[None]
    opened: StreamSocket | None = None


class KucoinStream:
    """The `MarketStream` port over KuCoin's WebSocket; counters start with the process."""

    def __init__(
        self,
        ticket: Callable[[], Awaitable[StreamTicket]],
        *,
        terms: StreamLimits,
        monotonic: Callable[[], float],
        dice: RandomSource,
    ) -> None:
        self._ticket = ticket
        self._terms = terms
        self._monotonic = monotonic
        self._dice = dice
        self._topics: dict[str, StreamTopic] = {}
        self._pool = ConnectionPool(terms, dice)
        self._buffer = MessageBuffer()
        self._sockets: dict[int, _Socket] = {}
        self._failures: Counter[str] = Counter()
        self._rotations = 0
        self._group: asyncio.TaskGroup | None = None
        self._listener: Listener | None = None

    # --- the port

    def want(self, topics: Collection[StreamTopic]) -> None:
        """Replace the requested topics."""
        known = self._topics
        named = {topic_name(topic): topic for topic in topics}
        # Reuse the earlier objects: each message looks them up.
        self._topics = {name: known.get(name, topic) for name, topic in named.items()}
        self._do(self._pool.want(self._topics.values(), self._monotonic()))

    def live(self) -> Mapping[StreamTopic, float]:
        return self._pool.live()

    def resubscribe(self, topics: Collection[StreamTopic]) -> None:
        self._do(self._pool.resubscribe(topics, self._monotonic()))

    def facts(self) -> StreamStatus:
        now = self._monotonic()
        connections = tuple(
            ConnectionStatus(
                phase=connection.phase.value,
                since_s=max(0.0, now - connection.since),
                topics=len(connection.topics.wanted),
                active_topics=len(connection.topics.acked) if connection.is_live else 0,
                seconds_since_last_message=now - connection.last_frame
                if connection.is_open
                else None,
            )
            for connection in self._pool.connections
        )
        return StreamStatus(
            connections=connections,
            topics=len(self._pool.wanted()),
            active_topics=len(self._pool.live()),
            seconds_since_last_message=None
            if self._buffer.last is None
            else now - self._buffer.last,
            messages=self._buffer.messages,
            dropped=MappingProxyType(dict(self._buffer.dropped)),
            failures=MappingProxyType(dict(self._failures + self._pool.failures)),
            reconnects_planned=self._rotations + self._pool.rotations,
        )

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Serve the stream until cancelled; every connection is closed on exit."""
        self._listener, ticked = listener, float("-inf")
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                while True:
                    now = self._monotonic()
                    if now - ticked >= self._terms.tick_s:
                        ticked = now
                        self._do(self._pool.tick(now))
                        beat()
                    await self._flush()
                    await asyncio.sleep(self._terms.flush_s)
        finally:
            self._group = None
            self._reset_connections()

    def _reset_connections(self) -> None:
        """Drop all connections; requested topics and counters stay."""
        self._failures += self._pool.failures
        self._rotations += self._pool.rotations
        self._pool = ConnectionPool(self._terms, self._dice)
        self._pool.want(self._topics.values(), self._monotonic())
        self._sockets.clear()
        self._buffer.clear()

    # --- actions of the pool

    def _do(self, actions: list[Action]) -> None:
        group = self._group
        for action in actions:
            if group is None:
                continue  # no task runs yet
            match action:
                case AskTicket(serial):
                    group.create_task(self._get_ticket(serial))
                case Open():
                    self._sockets[action.connection] = _Socket(
                        group.create_task(self._connect(action))
                    )
                case Send():
                    self._send(action)
                case Close(serial, reason):
                    _log.info("stream_closed", connection=serial, reason=reason)
                    if (socket := self._sockets.pop(serial, None)) is not None:
                        socket.task.cancel()
                case Backfill(serial):
                    group.create_task(self._catch_up(serial))

    def _send(self, action: Send) -> None:
        socket = self._sockets.get(action.connection)
        if socket is not None and socket.opened is not None:
            socket.opened.send(encode_command(action))

    async def _get_ticket(self, serial: int) -> None:
        try:
            ticket = await self._ticket()
        except ServiceError as error:
            self._do(self._pool.ended(serial, str(error.code), self._monotonic()))
        else:
            self._do(self._pool.ticket(serial, ticket, self._monotonic()))

    async def _catch_up(self, serial: int) -> None:
        while self._listener is not None:
            try:
                await self._listener.catch_up()
            except ServiceError as error:
                _log.warning("stream_backfill_failed", connection=serial, cause=str(error.code))
                await asyncio.sleep(self._terms.again_s)
            else:
                self._do(self._pool.caught_up(serial, self._monotonic()))
                return

    async def _connect(self, action: Open) -> None:
        """Serve one connection from its opening to its end."""
        serial, ticket = action.connection, action.ticket
        try:
            url = URL(ticket.endpoint).update_query(token=ticket.token, connectId=action.name)
            async with open_socket(str(url), self._terms, self._monotonic) as socket:
                if (known := self._sockets.get(serial)) is not None:
                    known.opened = socket
                self._do(self._pool.opened(serial, self._monotonic()))
                at, messages = await socket.read()
                while messages:
                    self._received(serial, at, messages)
                    at, messages = await socket.read()
                reason = socket.end
        except UnreachableError:
            reason = "unreachable"
        self._do(self._pool.ended(serial, reason, self._monotonic()))

    # --- incoming messages

    def _received(self, serial: int, now: float, messages: Sequence[Message]) -> None:
        """Handle messages of one connection, in their order."""
        topics, inbox, listener = self._topics, self._buffer, self._listener
        exchange_ms = 0 if listener is None else listener.exchange_ms()
        subscriptions = self._pool.open_subscriptions(serial, now)
        if subscriptions is not None and listener is not None:
            most = self._terms.frame_bytes
            messages = inbox.sift(messages, subscriptions, now, exchange_ms, most)
        subscriptions = None  # topics allowed there; read again after each other frame
        for text in messages:
            if text is None or len(text) > self._terms.frame_bytes:
                self._drop(serial, "binary" if text is None else "too_long")
                subscriptions = None
                continue
            try:
                frame = parse_frame(text)
                if frame.type in CONTROL:
                    self._do(self._pool.control(serial, parse_control(frame), now))
                    subscriptions = None
                    continue
            except UnreadableError:
                self._drop(serial, "garbage")
                subscriptions = None
                continue
            subscriptions = subscriptions or self._pool.expect_messages(serial, now)
            if subscriptions is None:
                inbox.dropped["early"] += 1
                continue
            topic = topics.get(frame.topic)
            if topic is None or not subscriptions.on_message(topic):
                inbox.dropped["strange"] += 1
            elif listener is not None:
                inbox.put(topic, frame, text, now, exchange_ms)

    def _drop(self, serial: int, reason: str) -> None:
        self._buffer.dropped[reason] += 1
        self._pool.garbage(serial, self._monotonic())

    async def _flush(self) -> None:
        """Pass live updates to the listener; the rest waits, the newest of each kind.

        Reading hundreds of messages blocks the loop, so other tasks run in between.
        """
        inbox, listener = self._buffer, self._listener
        if inbox.is_empty or listener is None:
            return
        live, updates = self._pool.live(), list[MarketUpdate]()
        for begun in range(0, inbox.waiting, PORTION):
            if begun:
                await asyncio.sleep(0)
            updates += inbox.take(self._pool.live(), listener.exchange_ms(), PORTION)
        now_live = self._pool.live()
        if now_live is not live:  # a topic of a connection that ended meanwhile may have a gap
            updates = [one for one in updates if one.topic in now_live]
        for topic in inbox.restarted:
            listener.on_sequence_restart(topic)
        inbox.restarted.clear()
        if updates:
            listener.on_updates(updates)
