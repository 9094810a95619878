"""Who listens to what, and the beat at which the market is told to them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import asdict

from app.sandbox.contracts import ACTIVE
from app.sandbox.exchange import Exchange
from app.sandbox.faults import Fault
from app.sandbox.stream.connection import Connection
from app.sandbox.stream.faults import meant
from app.sandbox.stream.feed import Feed
from app.sandbox.stream.frames import RENDERERS
from app.sandbox.stream.glance import Glance
from app.sandbox.stream.terms import StreamTally, Terms
from app.sandbox.stream.tokens import Tokens
from app.sandbox.stream.topics import Topic

# Real seconds between looks; the market itself moves by quarters of an exchange second.
BEAT_S = 0.04
LEVEL2 = "/contractMarket/level2"
QUOTES = "/contractMarket/tickerV2"


class Hub:
    """The connections, the feeds they listen to, and the task that looks after both.

    It beats only while somebody is connected, and looks at the market only for topics that
    somebody subscribed.
    """

    def __init__(self, exchange: Exchange, monotonic: Callable[[], float]) -> None:
        self.exchange = exchange
        self.monotonic = monotonic
        self.terms = Terms()
        self.tally = StreamTally()
        self.tokens = Tokens(exchange.options.seed, self.terms)
        self.feeds: dict[str, Feed] = {}
        self.connections: dict[int, Connection] = {}
        self._opened: dict[str, deque[float]] = {}
        self._numbers = 0
        self._beat: asyncio.Task[None] | None = None
        self.looked_at_ms: int | None = None  # the market that listeners were told of last

    def fresh(self) -> None:
        """Terms and counters as at the start; connections stay."""
        self.terms.change(asdict(Terms()))
        self.tally = StreamTally()
        self._opened.clear()

    def number(self) -> int:
        """The number of the next connection."""
        self._numbers += 1
        return self._numbers

    def listed(self, symbol: str) -> int | None:
        """The row of a contract that can be subscribed; None when it is not listed."""
        row = self.exchange.contracts.rows.get(symbol)
        if row is None:
            return None
        status = self.exchange.contracts.status(row, self.exchange.clock.now_ms())
        return row if status in ACTIVE else None

    def known(self, symbol: str) -> int | None:
        """The row of a contract, listed or not: what has gone can still be unsubscribed."""
        return self.exchange.contracts.rows.get(symbol)

    def refusal(self, address: str) -> str | None:
        """Why an address may not connect once more, in KuCoin's words; counts the attempt."""
        now, terms = self.monotonic(), self.terms
        recent = self._opened.setdefault(address, deque())
        while recent and now - recent[0] >= terms.new_connections_window_s:
            recent.popleft()
        if len(self.connections) >= terms.connections:
            return f"exceed max session count limitation of {terms.connections}"
        if len(recent) >= terms.new_connections:
            return "exceed max permits per second"
        recent.append(now)
        return None

    def enter(self, connection: Connection) -> None:
        """A client has come."""
        self.connections[connection.number] = connection
        self.tally.opened += 1
        if self._beat is None or self._beat.done():
            self._beat = asyncio.create_task(self._run())  # noqa: TID251  # owned, awaited at close

    def quit(self, connection: Connection) -> None:
        """A client has gone, with all that it listened to."""
        self.connections.pop(connection.number, None)
        for topic in list(connection.topics.values()):
            self.leave(connection, topic)
        connection.topics.clear()

    def join(self, connection: Connection, topic: Topic) -> None:
        """Let a client listen to a topic."""
        feed = self.feeds.get(topic.name)
        if feed is None:
            now_ms = self.exchange.clock.now_ms()
            feed = self.feeds[topic.name] = Feed(topic, now_ms)
            if topic.channel == LEVEL2:
                self.exchange.books.follow(feed.row, now_ms)
        feed.listeners[connection.number] = connection
        self.looked_at_ms = None

    def leave(self, connection: Connection, topic: Topic) -> None:
        """Let a client listen no more; a topic without listeners is forgotten."""
        feed = self.feeds.get(topic.name)
        if feed is None:
            return
        feed.listeners.pop(connection.number, None)
        if not feed.listeners:
            del self.feeds[topic.name]
            if topic.channel == LEVEL2:
                self.exchange.books.unfollow(feed.row, self.exchange.clock.now_ms())

    def half_open(self, connection: Connection) -> bool:
        """Whether a connection has been left for dead with its socket open."""
        return self.half_open_by(connection) is not None

    def half_open_by(self, connection: Connection) -> Fault | None:
        """The fault that holds a connection."""
        board = self.exchange.faults
        if board.streaming:
            for fault in board.listed():
                if fault.kind == "stream_half_open" and meant(fault, connection.connect_id):
                    return fault
        return None

    def tick(self) -> None:
        """Look at the market once and tell the listeners what is new."""
        exchange = self.exchange
        now_ms = exchange.clock.now_ms()
        quote_ms = exchange.market.clamp(now_ms)
        # After the known days nothing moves, and an exchange that is closed says nothing.
        if not self.feeds or quote_ms == self.looked_at_ms:
            return
        self.looked_at_ms = quote_ms
        self.tally.ticks += 1
        glance = Glance(exchange, now_ms)
        for feed in list(self.feeds.values()):
            row = feed.topic.row
            if row is not None and exchange.contracts.status(row, now_ms) not in ACTIVE:
                continue
            frames = RENDERERS[feed.topic.channel](glance, feed)
            for frame in frames:
                self.tell(feed, frame)

    def quote(self) -> bytes:
        """What is quoted now of the first contract that is open."""
        now_ms = self.exchange.clock.now_ms()
        rows, glance = self.exchange.contracts.rows.items(), Glance(self.exchange, now_ms)
        for symbol, row in rows:
            if self.exchange.contracts.status(row, now_ms) in ACTIVE:
                feed = Feed(Topic(QUOTES, symbol, row), now_ms)
                return RENDERERS[QUOTES](glance, feed)[-1]
        raise ValueError("nothing is open")

    def tell(self, feed: Feed, frame: bytes) -> None:
        """Queue a message for each listener of a feed."""
        name = feed.topic.name
        self.tally.by_topic[feed.topic.channel] += 1
        for connection in list(feed.listeners.values()):
            connection.push(name, frame)

    async def close(self) -> None:
        """End all connections, half-open ones too."""
        self.exchange.faults.disarm()
        if self._beat is not None:
            self._beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beat
        for connection in list(self.connections.values()):
            connection.abort()

    async def end(self, code: int, connect_id: str | None = None) -> int:
        """Close connections with a code; how many they were."""
        ended = [
            connection
            for connection in list(self.connections.values())
            if connect_id is None or connection.connect_id == connect_id
        ]
        for connection in ended:
            # 1006 is what is seen of a connection that ends without a close frame.
            if code == 1006:
                connection.abort()
            else:
                await connection.close(code)
        return len(ended)

    async def _run(self) -> None:
        try:
            while self.connections:
                await self._expire()
                self.tick()
                await asyncio.sleep(BEAT_S)
        except Exception:
            # A stream that has failed is cut, not left open and mute; the error is told at close.
            for connection in list(self.connections.values()):
                connection.abort()
            raise

    async def _expire(self) -> None:
        """End what has lived its day, and what has not been heard of for a minute."""
        now_ms, now = self.exchange.clock.now_ms(), self.monotonic()
        for connection in list(self.connections.values()):
            if self.half_open(connection):
                continue
            if now_ms - connection.born_ms >= self.terms.connection_life_ms:
                self.tally.expired += 1
                await connection.close(1000, "connection expired")
            elif now - connection.heard_s >= self.terms.idle_s:
                self.tally.idled += 1
                connection.tell({"type": "error", "code": 400, "data": "ping timeout"})
                await connection.close(1000, "ping timeout")
