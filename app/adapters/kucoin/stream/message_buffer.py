"""Conflating buffer: the newest message of each kind until it is processed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from app.adapters.kucoin.fields import UnreadableError
from app.adapters.kucoin.stream.connection import Subscriptions
from app.adapters.kucoin.stream.frames import (
    StreamFrame,
    conflation_key,
    message_stamp,
    parse_quote,
    parse_trade_counts,
    parse_update,
    topic_name,
)
from app.adapters.kucoin.stream.socket import Message
from app.market.domain.stream import (
    MAX_AHEAD_MS,
    LatestUpdate,
    MarketUpdate,
    StreamTopic,
    TopicKind,
    TradeCounts,
    TradeUpdate,
    Update,
    UpdateOrder,
)

HEAD: Final = 64  # leading bytes that contain a message's topic
TAIL: Final = 26  # bytes of the time stamp in ns at the end of a quote
_NONE: Final = b"~"  # greater than any tail: no message is newer
_NEWER: Final = UpdateOrder.NEWER
_QUOTE: Final = TopicKind.QUOTE
_TRADE: Final = TopicKind.TRADE
_NO_TRADES: Final = TradeCounts(0, 0, 0)


@dataclass(slots=True, eq=False)
class _ConflatedMessage:
    """Messages that replace each other, and the waiting one of them."""

    topic: StreamTopic
    subject: str
    newest: LatestUpdate = field(default_factory=LatestUpdate)
    waiting: bytes | None = None
    stamped_ms: int = 0
    mono: float = 0.0
    is_compared: bool = True  # whether the waiting message was compared
    tail: bytes = _NONE  # tail of the newest message, where it ends with its stamp
    matched_by: Subscriptions | None = None  # subscriptions that matched last,
    matched_at: int = 0  # and their number of changes then
    is_live: bool = False
    live_by: Mapping[StreamTopic, float] | None = None  # the mapping behind `is_live`
    replaced: TradeCounts | None = _NO_TRADES  # trades of replaced messages


@dataclass(slots=True)
class MessageBuffer:
    """Buffer without a queue: a newer message replaces the waiting one and is counted.

    A quote with a known head and a later stamp in its usual place replaces the waiting one
    unread; any other message is read and compared with the newest of its kind.
    """

    messages: int = 0
    last: float | None = None  # monotonic time of the last accepted message
    dropped: Counter[str] = field(default_factory=Counter)
    restarted: list[StreamTopic] = field(
        default_factory=list
    )  # topics with unreliable earlier messages
    _kinds: dict[object, _ConflatedMessage] = field(default_factory=dict)
    _heads: dict[bytes, _ConflatedMessage] = field(default_factory=dict)
    _waiting: list[_ConflatedMessage] = field(default_factory=list)

    def sift(
        self,
        texts: Sequence[Message],
        subscriptions: Subscriptions,
        now: float,
        exchange_ms: int,
        most: int,
    ) -> list[Message]:
        """Accept messages that need no reading; return the others."""
        left: list[Message] = []
        heads, waiting, taken, replaced = self._heads, self._waiting, 0, 0
        latest = tail_of(exchange_ms + MAX_AHEAD_MS)
        for text in texts:
            if text is None or (kind := heads.get(text[:HEAD])) is None:
                left.append(text)
                continue
            tail = text[-TAIL:]
            # Text between two stamps is a stamp itself, as far as their digits agree.
            if not kind.tail < tail <= latest or len(text) > most:
                left.append(text)
                continue
            if kind.matched_by is not subscriptions or kind.matched_at != subscriptions.changes:
                if not subscriptions.on_message(kind.topic):
                    left.append(text)
                    continue
                kind.matched_by, kind.matched_at = subscriptions, subscriptions.changes
            if kind.waiting is None:
                waiting.append(kind)
            else:
                replaced += 1
            kind.waiting, kind.tail, kind.mono, kind.is_compared = text, tail, now, False
            taken += 1
        if taken:
            self.messages += taken
            self.last = now
        if replaced:
            self.dropped["replaced"] += replaced
        return left

    def put(
        self, topic: StreamTopic, frame: StreamFrame, text: bytes, now: float, exchange_ms: int
    ) -> None:
        """Keep a message if it is newer than the waiting one."""
        try:
            stamped_ms, sequence = message_stamp(frame)
        except UnreadableError:
            self.dropped["unreadable"] += 1
            return
        key = conflation_key(topic, frame)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _ConflatedMessage(topic, frame.subject)
        if not kind.is_compared and self._compare(kind, exchange_ms) is None:
            kind.waiting, kind.is_compared = None, True
            self._waiting.remove(kind)
        if not self._is_newer(kind, stamped_ms, sequence, exchange_ms):
            return
        self.messages += 1
        self.last = now
        if kind.waiting is None:
            self._waiting.append(kind)
        else:
            self.dropped["replaced"] += 1
            if topic.kind is _TRADE:
                kind.replaced = self._with_replaced(kind)
        kind.waiting, kind.stamped_ms, kind.mono = text, stamped_ms, now
        if topic.kind is _QUOTE:
            self._learn_layout(kind, text, frame)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def waiting(self) -> int:
        """Number of waiting messages."""
        return len(self._waiting)

    def take(
        self, live: Mapping[StreamTopic, float], exchange_ms: int, most: int | None = None
    ) -> list[MarketUpdate]:
        """Updates of these topics among the first `most` waiting messages (None: all)."""
        updates: list[MarketUpdate] = []
        kinds = self._waiting[:most]
        del self._waiting[:most]
        for kind in kinds:
            if kind.live_by is not live:
                kind.is_live, kind.live_by = kind.topic in live, live
            if not kind.is_live:
                self._waiting.append(kind)
                continue
            update = self._read(kind, exchange_ms)
            kind.waiting, kind.is_compared = None, True
            if update is not None:
                updates.append(MarketUpdate(kind.topic, update, kind.stamped_ms, kind.mono))
        return updates

    def clear(self) -> None:
        """Drop waiting messages, which may come again; counters stay."""
        self._kinds.clear()
        self._heads.clear()
        self._waiting.clear()

    def _read(self, kind: _ConflatedMessage, exchange_ms: int) -> Update | None:
        """Update of a waiting message; None for one without news."""
        if not kind.is_compared:
            return self._compare(kind, exchange_ms)
        try:
            update = parse_update(kind.topic, kind.subject, kind.waiting or b"")
        except UnreadableError:
            self.dropped["unreadable"] += 1
            kind.replaced = None
            return None
        if not isinstance(update, TradeUpdate):
            return update
        before, kind.replaced = kind.replaced, _NO_TRADES
        if before is None or update.flow is None:
            return replace(update, flow=None)
        return replace(update, flow=before.plus(update.flow))

    def _with_replaced(self, kind: _ConflatedMessage) -> TradeCounts | None:
        """Trades of replaced messages and of the waiting one, which is replaced now."""
        if kind.replaced is None:
            return None
        try:
            counts = parse_trade_counts(kind.waiting or b"")
        except UnreadableError:
            return None
        return None if counts is None else kind.replaced.plus(counts)

    def _compare(self, kind: _ConflatedMessage, exchange_ms: int) -> Update | None:
        """Compare a message accepted unread with the newest one that was read."""
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
        kind.stamped_ms, kind.is_compared = stamped_ms, True
        return update

    def _is_newer(
        self, kind: _ConflatedMessage, stamped_ms: int, sequence: int | None, exchange_ms: int
    ) -> bool:
        order = kind.newest.classify(stamped_ms, sequence, exchange_ms)
        if order is _NEWER:
            return True
        if order is not UpdateOrder.RESTARTED:
            self.dropped[order.name.lower()] += 1
            return False
        self.restarted.append(kind.topic)
        return True

    def _learn_layout(self, kind: _ConflatedMessage, text: bytes, frame: StreamFrame) -> None:
        """Learn head and tail of a kind, to accept its next messages unread."""
        head, tail = text[:HEAD], text[-TAIL:]
        stamp = getattr(frame.data, "ts", None)
        is_plain = head.startswith(b'{"topic":"%s",' % topic_name(kind.topic).encode())
        if is_plain and stamp is not None and tail == b'"ts":%d}}' % stamp:
            kind.tail = tail
            self._heads[head] = kind
        else:
            kind.tail = _NONE


def tail_of(stamped_ms: int) -> bytes:
    """Last possible tail of a millisecond."""
    return b'"ts":%019d}}' % (stamped_ms * 1_000_000 + 999_999)
