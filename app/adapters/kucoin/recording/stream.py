"""Recorded and replayed market stream: frames, and the topics without a gap.

Connections exist during the recording only; both sides process frames alike.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from app.adapters.kucoin.limiter import RandomSource
from app.adapters.kucoin.recording.entries import FrameReceived, FramesApplied, LiveTopicsChanged
from app.adapters.kucoin.recording.sessions import SessionPlayer, SessionRecorder
from app.adapters.kucoin.stream.frames import StreamFrame, parse_frame, topic_name
from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.message_buffer import MessageBuffer
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.adapters.kucoin.stream.socket import Message
from app.foundation.errors import ServiceError
from app.market.domain.stream import NO_STREAM, Listener, MarketUpdate, StreamStatus, StreamTopic

MAX_FRAMES: Final = 500_000  # most frames that wait during a request; further ones are lost
_Frame = tuple[float, int, bytes]  # arrival, connection, text


class ReplayedStream:
    """The `MarketStream` port over recorded entries; equal entries give equal updates."""

    def __init__(self) -> None:
        self._topics: dict[str, StreamTopic] = {}
        self._buffer = MessageBuffer()
        self._live: dict[StreamTopic, float] = {}
        self.listener: Listener | None = None

    def want(self, topics: Collection[StreamTopic]) -> None:
        self._topics = {topic_name(topic): topic for topic in topics}

    def live(self) -> Mapping[StreamTopic, float]:
        return self._live

    def resubscribe(self, topics: Collection[StreamTopic]) -> None:
        """Does nothing: the recording holds the effects."""

    def facts(self) -> StreamStatus:
        return NO_STREAM

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Does nothing: entries drive the stream."""
        del listener, beat

    def apply(self, entry: FrameReceived | LiveTopicsChanged | FramesApplied) -> None:
        """Apply the next recorded entry."""
        match entry:
            case FrameReceived():
                self._on_frame(entry.text, entry.at)
            case LiveTopicsChanged():
                gone = set(entry.lost)
                remaining = {one: since for one, since in self._live.items() if one not in gone}
                self._live = remaining | dict(entry.gained)
            case FramesApplied():
                if (listener := self.listener) is None:
                    return
                if updates := self._buffer.take(self._live, listener.exchange_ms()):
                    listener.on_updates(updates)

    def _on_frame(self, text: bytes, at: float) -> None:
        frame = parse_frame(text)
        topic, listener = self._topics.get(frame.topic), self.listener
        if topic is None or listener is None:
            return
        self._buffer.put(topic, frame, text, at, listener.exchange_ms())
        for one in self._buffer.restarted:
            listener.on_sequence_restart(one)
        self._buffer.restarted.clear()


class _PassThroughBuffer(MessageBuffer):
    """Buffer that passes every message on at once."""

    def __init__(self, passed: Callable[[float, bytes], None]) -> None:
        super().__init__()
        self._passed = passed

    def put(
        self, topic: StreamTopic, frame: StreamFrame, text: bytes, now: float, exchange_ms: int
    ) -> None:
        del topic, frame, exchange_ms
        self.messages += 1
        self.last = now
        self._passed(now, text)


class FrameStream(KucoinStream):
    """Connections of a recording; their frames wait in `frames` until taken."""

    def __init__(
        self,
        ticket: Callable[[], Awaitable[StreamTicket]],
        *,
        terms: StreamLimits,
        monotonic: Callable[[], float],
        dice: RandomSource,
    ) -> None:
        super().__init__(ticket, terms=terms, monotonic=monotonic, dice=dice)
        self.frames: deque[_Frame] = deque()
        self.lost = 0
        self._current_serial = 0  # number of the connection being read
        self._buffer = _PassThroughBuffer(self._passed)

    def _received(self, serial: int, now: float, messages: Sequence[Message]) -> None:
        self._current_serial = serial
        super()._received(serial, now, messages)

    def _passed(self, now: float, text: bytes) -> None:
        if len(self.frames) >= MAX_FRAMES:
            self.lost += 1
        else:
            self.frames.append((now, self._current_serial, text))


class RecordedStream(ReplayedStream):
    """The port over real connections: each frame is recorded before it is used.

    Frames are used only in `drain`, between other work; until then they wait.
    """

    def __init__(self, stream: FrameStream, tape: SessionRecorder) -> None:
        super().__init__()
        self._stream = stream
        self._tape = tape
        self._backfill_requests: list[asyncio.Future[None]] = []
        self._running_backfills: list[asyncio.Future[None]] = []

    def want(self, topics: Collection[StreamTopic]) -> None:
        super().want(topics)
        self._stream.want(topics)

    def resubscribe(self, topics: Collection[StreamTopic]) -> None:
        self._stream.resubscribe(topics)

    def facts(self) -> StreamStatus:
        return self._stream.facts()

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Run the connections until cancelled; updates go to this object's own listener."""
        del listener
        await self._stream.run(self, beat)

    @property
    def lost(self) -> int:
        """Frames dropped because too many waited."""
        return self._stream.lost

    def drain(self) -> None:
        """Record and apply all frames received since the last call."""
        frames, before, now = self._stream.frames, self._live, dict(self._stream.live())
        waiting = len(frames)
        for _ in range(waiting):
            self.apply(self._tape.record_frame(*frames.popleft()))
        if now != before:
            gained = {one: since for one, since in now.items() if before.get(one) != since}
            lost = [one for one in before if one not in now]
            self.apply(self._tape.record_live_topics(gained, lost))
        if waiting or now != before:
            self.apply(self._tape.record_application())

    # --- backfill: requested by a connection, carried out as a step of its own

    @property
    def is_behind(self) -> bool:
        return bool(self._backfill_requests)

    def begin_catch_up(self) -> None:
        """Start a backfill; later requests get another one."""
        self._running_backfills, self._backfill_requests = self._backfill_requests, []

    def end_catch_up(self, error: ServiceError | None) -> None:
        for one in self._running_backfills:
            if one.done():
                continue  # its connection ended
            if error is None:
                one.set_result(None)
            else:
                one.set_exception(error)
        self._running_backfills = []

    async def catch_up(self) -> None:
        """Request a backfill and wait for its end. Raises UnavailableError."""
        request = asyncio.get_running_loop().create_future()
        self._backfill_requests.append(request)
        await request

    def on_updates(self, updates: Sequence[MarketUpdate]) -> None:
        """Does nothing: `drain` takes the frames."""

    def on_sequence_restart(self, topic: StreamTopic) -> None:
        """Does nothing, like `on_updates`."""

    def exchange_ms(self) -> int:
        return 0  # no message is compared there


def connect_player(stream: ReplayedStream, player: SessionPlayer) -> None:
    """Replay the recorded stream entries between the steps."""
    player.stream = stream.apply
