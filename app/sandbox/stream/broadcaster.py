"""Open connections of the stream, and the task that publishes the market to them."""

import asyncio
import contextlib
from collections import deque

import msgspec

from app.sandbox.market.contracts import ACTIVE
from app.sandbox.stream.connection import Connection
from app.sandbox.stream.frames import RENDERERS, InstantMarket
from app.sandbox.stream.registry import Feed, SubscriptionRegistry
from app.sandbox.stream.session_limits import AccessTokens
from app.sandbox.stream.topics import MarketTopic

# Real seconds between ticks; the market itself moves by quarters of an exchange second.
TICK_S = 0.04
BURST_SLICE_S = 0.01
QUOTES = "/contractMarket/tickerV2"


class Broadcaster:
    """Publishes market changes to the listeners of each topic.

    Its task runs only while a client is connected, and computes only subscribed topics.
    """

    def __init__(self, registry: SubscriptionRegistry) -> None:
        self.registry = registry
        self.exchange = registry.exchange
        self.tokens = AccessTokens(self.exchange.options.seed, registry.limits)
        self.connections: dict[int, Connection] = {}
        self._recent_opens: dict[str, deque[float]] = {}
        self._last_number = 0
        self._task: asyncio.Task[None] | None = None

    def reset(self) -> None:
        """Restore the initial limits and counters; connections stay."""
        self.registry.reset()
        self._recent_opens.clear()

    def next_number(self) -> int:
        """Number for the next connection."""
        self._last_number += 1
        return self._last_number

    def admit(self, address: str) -> str | None:
        """Count a connection attempt; KuCoin's error text when the address exceeds a limit."""
        now, limits = self.registry.monotonic(), self.registry.limits
        recent = self._recent_opens.setdefault(address, deque())
        while recent and now - recent[0] >= limits.new_connections_window_s:
            recent.popleft()
        if len(self.connections) >= limits.connections:
            return f"exceed max session count limitation of {limits.connections}"
        if len(recent) >= limits.new_connections:
            return "exceed max permits per second"
        recent.append(now)
        return None

    def connect(self, connection: Connection) -> None:
        """Register a connection and start the publishing task."""
        self.connections[connection.number] = connection
        self.registry.counters.opened += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())  # noqa: TID251  # owned, awaited at close

    def disconnect(self, connection: Connection) -> None:
        """Remove a connection with its subscriptions."""
        self.connections.pop(connection.number, None)
        for topic in list(connection.topics.values()):
            self.registry.unsubscribe(connection, topic)
        connection.topics.clear()

    def tick(self) -> None:
        """Compute the market once and publish the changes."""
        exchange, registry = self.exchange, self.registry
        now_ms = exchange.clock.now_ms()
        quote_ms = exchange.market.clamp(now_ms)
        # After the known days nothing moves, and a closed exchange publishes nothing.
        if not registry.feeds or quote_ms == registry.broadcast_ms:
            return
        registry.broadcast_ms = quote_ms
        registry.counters.ticks += 1
        snapshot = InstantMarket(exchange, now_ms)
        for feed in list(registry.feeds.values()):
            row = feed.topic.row
            if row is not None and exchange.contracts.status(row, now_ms) not in ACTIVE:
                continue
            for frame in RENDERERS[feed.topic.channel](snapshot, feed):
                self.broadcast(feed, frame)

    def render_any_quote(self) -> bytes:
        """Quote message of the first active contract."""
        now_ms = self.exchange.clock.now_ms()
        snapshot = InstantMarket(self.exchange, now_ms)
        for symbol, row in self.exchange.contracts.rows.items():
            if self.exchange.contracts.status(row, now_ms) in ACTIVE:
                feed = Feed(MarketTopic(QUOTES, symbol, row), now_ms)
                return RENDERERS[QUOTES](snapshot, feed)[-1]
        raise ValueError("no contract is active")

    def broadcast(self, feed: Feed, frame: bytes) -> None:
        """Queue a message for each listener of a feed."""
        name = feed.topic.name
        self.registry.counters.by_topic[feed.topic.channel] += 1
        for listener in list(feed.listeners.values()):
            listener.push(name, frame)

    async def burst(self, feed: Feed, per_second: int, seconds: float) -> int:
        """Repeat a topic's current message at a rate, each with the next sequence.

        Returns the number of messages; ValueError for a topic without a current message.
        """
        now_ms = self.exchange.clock.now_ms()
        snapshot = InstantMarket(self.exchange, now_ms)
        frames = RENDERERS[feed.topic.channel](snapshot, Feed(feed.topic, now_ms))
        if not frames:
            raise ValueError(f"{feed.topic.name} has no message to repeat")
        pattern = msgspec.json.decode(frames[-1])
        encode = msgspec.json.Encoder().encode
        loop = asyncio.get_running_loop()
        started, sent, target = loop.time(), 0, round(per_second * seconds)
        while sent < target and feed.listeners:
            due = min(target, int((loop.time() - started) * per_second))
            for _ in range(sent, due):
                sent += 1
                for record in (pattern, pattern["data"]):
                    for name in ("sn", "sequence"):
                        if name in record:
                            record[name] += 1
                self.broadcast(feed, encode(pattern))
            await asyncio.sleep(BURST_SLICE_S)
        return sent

    async def shut_down(self) -> None:
        """End all connections, half-open ones too."""
        self.exchange.faults.disarm()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for connection in list(self.connections.values()):
            connection.abort()

    async def close_connections(self, code: int, connect_id: str | None = None) -> int:
        """Close connections with a code; returns their number."""
        closing = [
            connection
            for connection in list(self.connections.values())
            if connect_id is None or connection.connect_id == connect_id
        ]
        for connection in closing:
            # A client reports 1006 for a connection that ends without a close frame.
            if code == 1006:
                connection.abort()
            else:
                await connection.close(code)
        return len(closing)

    async def _run(self) -> None:
        try:
            while self.connections:
                await self._expire()
                self.tick()
                await asyncio.sleep(TICK_S)
        except Exception:
            # A failed stream is cut, not left open and mute; the error surfaces at shut-down.
            for connection in list(self.connections.values()):
                connection.abort()
            raise

    async def _expire(self) -> None:
        """Close connections past their lifetime or without a client frame for a minute."""
        now_ms, now = self.exchange.clock.now_ms(), self.registry.monotonic()
        limits, counters = self.registry.limits, self.registry.counters
        for connection in list(self.connections.values()):
            if connection.is_half_open:
                continue
            if now_ms - connection.opened_ms >= limits.connection_life_ms:
                counters.expired += 1
                await connection.close(1000, "connection expired")
            elif now - connection.last_frame_s >= limits.idle_s:
                counters.idled += 1
                connection.send_control({"type": "error", "code": 400, "data": "ping timeout"})
                await connection.close(1000, "ping timeout")
