"""The stream on a tape: frames as they came, and which topics had missed nothing when.

What a connection does is the recording's; what is made of its frames is the same in both.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from app.adapters.kucoin.limits import RandomSource
from app.adapters.kucoin.recording.entries import FrameReceived, FramesApplied, LiveTopicsChanged
from app.adapters.kucoin.recording.sessions import SessionPlayer, SessionRecorder
from app.adapters.kucoin.stream.frames import StreamFrame, parse_frame, topic_name
from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.message_buffer import MessageBuffer
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.adapters.kucoin.stream.socket import Message
from app.foundation.errors import ServiceError
from app.market.domain.stream import NO_STREAM, Listener, StreamFacts, Told, Topic

MOST_FRAMES: Final = 500_000  # that wait while something is asked for; further ones are lost
_Frame = tuple[float, int, bytes]  # when, on which connection, what


class ReplayedStream:
    """The `MarketStream` port over entries; pure: equal entries, equal news."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._inbox = MessageBuffer()
        self._live: dict[Topic, float] = {}
        self.listener: Listener | None = None

    def want(self, topics: Collection[Topic]) -> None:
        self._topics = {topic_name(topic): topic for topic in topics}

    def live(self) -> Mapping[Topic, float]:
        return self._live

    def deaf(self, topics: Collection[Topic]) -> None:
        """What that brings about stands on the tape."""

    def facts(self) -> StreamFacts:
        return NO_STREAM

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Nothing runs by itself here."""
        del listener, beat

    def apply(self, entry: FrameReceived | LiveTopicsChanged | FramesApplied) -> None:
        """The next thing that happened."""
        match entry:
            case FrameReceived():
                self._heard(entry.text, entry.at)
            case LiveTopicsChanged():
                gone = set(entry.lost)
                kept = {one: since for one, since in self._live.items() if one not in gone}
                self._live = kept | dict(entry.gained)
            case FramesApplied():
                if (listener := self.listener) is None:
                    return
                if told := self._inbox.take(self._live, listener.exchange_ms()):
                    listener.told(told)

    def _heard(self, text: bytes, at: float) -> None:
        frame = parse_frame(text)
        topic, listener = self._topics.get(frame.topic), self.listener
        if topic is None or listener is None:
            return
        self._inbox.put(topic, frame, text, at, listener.exchange_ms())
        for one in self._inbox.doubtful:
            listener.doubted(one)
        self._inbox.doubtful.clear()


class _PassThroughBuffer(MessageBuffer):
    """Keeps nothing: every message goes on as it came."""

    def __init__(self, passed: Callable[[float, bytes], None]) -> None:
        super().__init__()
        self._passed = passed

    def put(
        self, topic: Topic, frame: StreamFrame, text: bytes, now: float, exchange_ms: int
    ) -> None:
        del topic, frame, exchange_ms
        self.messages += 1
        self.last = now
        self._passed(now, text)


class FrameStream(KucoinStream):
    """The connections of a recording; their frames wait in `frames` until they are taken."""

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
        self._arriving = 0  # the connection
        self._inbox = _PassThroughBuffer(self._passed)

    def _received(self, serial: int, now: float, messages: Sequence[Message]) -> None:
        self._arriving = serial
        super()._received(serial, now, messages)

    def _passed(self, now: float, text: bytes) -> None:
        if len(self.frames) >= MOST_FRAMES:
            self.lost += 1
        else:
            self.frames.append((now, self._arriving, text))


class RecordedStream(ReplayedStream):
    """The same port over real connections: everything is on the tape before it is used.

    It is used only where nothing else goes on, in `drain`; what comes in between waits.
    """

    def __init__(self, stream: FrameStream, tape: SessionRecorder) -> None:
        super().__init__()
        self._stream = stream
        self._tape = tape
        self._behind: list[asyncio.Future[None]] = []
        self._served: list[asyncio.Future[None]] = []

    def want(self, topics: Collection[Topic]) -> None:
        super().want(topics)
        self._stream.want(topics)

    def deaf(self, topics: Collection[Topic]) -> None:
        self._stream.deaf(topics)

    def facts(self) -> StreamFacts:
        return self._stream.facts()

    async def run(self, listener: Listener, beat: Callable[[], None]) -> None:
        """Until it is cancelled. What is told goes to who listens here, not to `listener`."""
        del listener
        await self._stream.run(self, beat)

    @property
    def lost(self) -> int:
        """Frames that came faster than they could be kept."""
        return self._stream.lost

    def drain(self) -> None:
        """Everything that has come in since the last time."""
        frames, before, now = self._stream.frames, self._live, dict(self._stream.live())
        waiting = len(frames)
        for _ in range(waiting):
            self.apply(self._tape.heard(*frames.popleft()))
        if now != before:
            gained = {one: since for one, since in now.items() if before.get(one) != since}
            lost = [one for one in before if one not in now]
            self.apply(self._tape.live(gained, lost))
        if waiting or now != before:
            self.apply(self._tape.flushed())

    # --- catching up: asked for by a connection, done as a step of its own

    @property
    def is_behind(self) -> bool:
        return bool(self._behind)

    def catching_up(self) -> None:
        """It is being done now; who asks from now on has it done again."""
        self._served, self._behind = self._behind, []

    def caught_up(self, error: ServiceError | None) -> None:
        for one in self._served:
            if one.done():
                continue  # its connection is gone
            if error is None:
                one.set_result(None)
            else:
                one.set_exception(error)
        self._served = []

    async def catch_up(self) -> None:
        """The connections' own request. Raises UnavailableError."""
        asked = asyncio.get_running_loop().create_future()
        self._behind.append(asked)
        await asked

    def told(self, news: Sequence[Told]) -> None:
        """The connections tell nothing by themselves: their frames are taken."""

    def doubted(self, topic: Topic) -> None:
        """As `told`."""

    def exchange_ms(self) -> int:
        return 0  # nobody judges there


def connect_player(stream: ReplayedStream, player: SessionPlayer) -> None:
    """From now on what was told is told again, in its place between the steps."""
    player.stream = stream.apply
