"""The newest message of each kind, until it is given on."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from app.adapters.kucoin.fields import UnreadableError
from app.adapters.kucoin.stream_frames import Frame, kind_of, stamp_of
from app.adapters.kucoin.stream_updates import update_of
from app.domain.feed import Newest, Told, Topic, Word

_NEWER: Final = Word.NEWER


@dataclass(slots=True)
class _Kind:
    """Messages that replace each other, and the one of them that waits."""

    topic: Topic
    subject: str
    newest: Newest = field(default_factory=Newest)
    waiting: bytes | None = None
    stamped_ms: int = 0
    mono: float = 0.0


@dataclass(slots=True)
class Inbox:
    """Nothing is queued: what comes faster than it is given on replaces itself, and is counted."""

    messages: int = 0
    last: float | None = None  # monotonic time of the last message that was taken
    dropped: Counter[str] = field(default_factory=Counter)
    _kinds: dict[object, _Kind] = field(default_factory=dict)
    _waiting: list[_Kind] = field(default_factory=list)

    def put(self, topic: Topic, frame: Frame, text: bytes, now: float, exchange_ms: int) -> bool:
        """Keep it if it is the newer word; False when nothing before it can be relied on."""
        try:
            stamped_ms, sequence = stamp_of(frame)
        except UnreadableError:
            self.dropped["unreadable"] += 1
            return True
        key = kind_of(topic, frame)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(topic, frame.subject)
        word = kind.newest.judge(stamped_ms, sequence, exchange_ms)
        if word is not _NEWER and word is not Word.RESTARTED:
            self.dropped[word.name.lower()] += 1
            return True
        self.messages += 1
        self.last = now
        if kind.waiting is None:
            self._waiting.append(kind)
        else:
            self.dropped["replaced"] += 1
        kind.waiting, kind.stamped_ms, kind.mono = text, stamped_ms, now
        return word is _NEWER

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def take(self, live: Collection[Topic]) -> list[Told]:
        """What is of these topics; the rest waits."""
        told: list[Told] = []
        kinds, self._waiting = self._waiting, []
        for kind in kinds:
            if kind.topic not in live:
                self._waiting.append(kind)
                continue
            text, kind.waiting = kind.waiting, None
            try:
                update = update_of(kind.topic, kind.subject, text or b"")
            except UnreadableError:
                self.dropped["unreadable"] += 1
                continue
            told.append(Told(kind.topic, update, kind.stamped_ms, kind.mono))
        return told

    def clear(self) -> None:
        """What was not given on is gone, and may come again; what was counted stays."""
        self._kinds.clear()
        self._waiting.clear()
