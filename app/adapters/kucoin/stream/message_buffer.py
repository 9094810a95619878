"""The newest message of each kind, until it is given on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.adapters.kucoin.fields import UnreadableError
from app.adapters.kucoin.stream.frames import StreamFrame, conflation_key, message_stamp, topic_name
from app.adapters.kucoin.stream.socket import Message
from app.adapters.kucoin.stream.topics import Subscriptions
from app.adapters.kucoin.stream.updates import parse_quote, parse_update
from app.market.domain.stream import AHEAD_MS, MessageOrder, Newest, Told, Topic, TopicKind, Update

HEAD: Final = 64  # bytes that tell a message's topic, where its name ends within them
TAIL: Final = 26  # bytes of a stamp in ns with which a quote ends
_NONE: Final = b"~"  # greater than any tail: nothing is newer
_NEWER: Final = MessageOrder.NEWER
_QUOTE: Final = TopicKind.QUOTE


@dataclass(slots=True, eq=False)
class _ConflatedMessage:
    """Messages that replace each other, and the one of them that waits."""

    topic: Topic
    subject: str
    newest: Newest = field(default_factory=Newest)
    waiting: bytes | None = None
    stamped_ms: int = 0
    mono: float = 0.0
    is_judged: bool = True  # what waits: whether it is the newer
    tail: bytes = _NONE  # of the newest message, where it ends with its stamp
    told_by: Subscriptions | None = None  # who was found to want it,
    told_at: int = 0  # and after how many changes
    is_live: bool = False
    live_by: Mapping[Topic, float] | None = None  # what said so


@dataclass(slots=True)
class MessageBuffer:
    """Nothing is queued: what comes faster than it is given on replaces itself, and is counted.

    A quote with the head of an earlier one, and a later stamp where that had its own, replaces
    it unread; anything else is read, and judged beside the newest of its kind.
    """

    messages: int = 0
    last: float | None = None  # monotonic time of the last message that was taken
    dropped: Counter[str] = field(default_factory=Counter)
    doubtful: list[Topic] = field(default_factory=list)  # nothing before can be relied on
    _kinds: dict[object, _ConflatedMessage] = field(default_factory=dict)
    _heads: dict[bytes, _ConflatedMessage] = field(default_factory=dict)
    _waiting: list[_ConflatedMessage] = field(default_factory=list)

    def sift(
        self, texts: Sequence[Message], held: Subscriptions, now: float, exchange_ms: int, most: int
    ) -> list[Message]:
        """Takes what need not be read, of a connection that may tell; gives the others."""
        left: list[Message] = []
        heads, waiting, taken, replaced = self._heads, self._waiting, 0, 0
        latest = tail_of(exchange_ms + AHEAD_MS)
        for text in texts:
            if text is None or (kind := heads.get(text[:HEAD])) is None:
                left.append(text)
                continue
            tail = text[-TAIL:]
            # What lies between two stamps is one itself, as far as they are alike.
            if not kind.tail < tail <= latest or len(text) > most:
                left.append(text)
                continue
            if kind.told_by is not held or kind.told_at != held.changes:
                if not held.heard(kind.topic):
                    left.append(text)
                    continue
                kind.told_by, kind.told_at = held, held.changes
            if kind.waiting is None:
                waiting.append(kind)
            else:
                replaced += 1
            kind.waiting, kind.tail, kind.mono, kind.is_judged = text, tail, now, False
            taken += 1
        if taken:
            self.messages += taken
            self.last = now
        if replaced:
            self.dropped["replaced"] += replaced
        return left

    def put(
        self, topic: Topic, frame: StreamFrame, text: bytes, now: float, exchange_ms: int
    ) -> None:
        """Keep it if it is the newer."""
        try:
            stamped_ms, sequence = message_stamp(frame)
        except UnreadableError:
            self.dropped["unreadable"] += 1
            return
        key = conflation_key(topic, frame)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _ConflatedMessage(topic, frame.subject)
        if not kind.is_judged and self._judged(kind, exchange_ms) is None:
            kind.waiting, kind.is_judged = None, True
            self._waiting.remove(kind)
        if not self._is_newer(kind, stamped_ms, sequence, exchange_ms):
            return
        self.messages += 1
        self.last = now
        if kind.waiting is None:
            self._waiting.append(kind)
        else:
            self.dropped["replaced"] += 1
        kind.waiting, kind.stamped_ms, kind.mono = text, stamped_ms, now
        if topic.kind is _QUOTE:
            self._learn(kind, text, frame)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def waiting(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    def take(
        self, live: Mapping[Topic, float], exchange_ms: int, most: int | None = None
    ) -> list[Told]:
        """What is of these topics, of the first `most` that wait (None: of all); the rest waits."""
        told: list[Told] = []
        kinds = self._waiting[:most]
        del self._waiting[:most]
        for kind in kinds:
            if kind.live_by is not live:
                kind.is_live, kind.live_by = kind.topic in live, live
            if not kind.is_live:
                self._waiting.append(kind)
                continue
            update = self._read(kind, exchange_ms)
            kind.waiting, kind.is_judged = None, True
            if update is not None:
                told.append(Told(kind.topic, update, kind.stamped_ms, kind.mono))
        return told

    def clear(self) -> None:
        """What was not given on is gone, and may come again; what was counted stays."""
        self._kinds.clear()
        self._heads.clear()
        self._waiting.clear()

    def _read(self, kind: _ConflatedMessage, exchange_ms: int) -> Update | None:
        """What waits says; None where that is nothing, or nothing new."""
        if not kind.is_judged:
            return self._judged(kind, exchange_ms)
        try:
            return parse_update(kind.topic, kind.subject, kind.waiting or b"")
        except UnreadableError:
            self.dropped["unreadable"] += 1
            return None

    def _judged(self, kind: _ConflatedMessage, exchange_ms: int) -> Update | None:
        """What was taken unread, beside what was judged before it."""
        try:
            update, stamped_ms, sequence = parse_quote(kind.waiting or b"")
        except UnreadableError:
            kind.tail = _NONE
            self.dropped["unreadable"] += 1
            return None
        if not self._is_newer(kind, stamped_ms, sequence, exchange_ms):
            kind.tail = _NONE
            self.messages -= 1
            return None
        kind.stamped_ms, kind.is_judged = stamped_ms, True
        return update

    def _is_newer(
        self, kind: _ConflatedMessage, stamped_ms: int, sequence: int | None, exchange_ms: int
    ) -> bool:
        order = kind.newest.judge(stamped_ms, sequence, exchange_ms)
        if order is _NEWER:
            return True
        if order is not MessageOrder.RESTARTED:
            self.dropped[order.name.lower()] += 1
            return False
        self.doubtful.append(kind.topic)
        return True

    def _learn(self, kind: _ConflatedMessage, text: bytes, frame: StreamFrame) -> None:
        """By what the next messages of this kind are told, without reading them."""
        head, tail = text[:HEAD], text[-TAIL:]
        stamp = getattr(frame.data, "ts", None)
        is_plain = head.startswith(b'{"topic":"%s",' % topic_name(kind.topic).encode())
        if is_plain and stamp is not None and tail == b'"ts":%d}}' % stamp:
            kind.tail = tail
            self._heads[head] = kind
        else:
            kind.tail = _NONE


def tail_of(stamped_ms: int) -> bytes:
    """The last of the tails of that millisecond."""
    return b'"ts":%019d}}' % (stamped_ms * 1_000_000 + 999_999)
