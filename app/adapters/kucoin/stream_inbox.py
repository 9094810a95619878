"""The newest message of each kind, until it is given on."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from app.adapters.kucoin.fields import UnreadableError
from app.adapters.kucoin.stream_frames import Frame, stamp_of, update_of
from app.domain.feed import Sequencer, Told, Topic, Word


@dataclass(frozen=True, slots=True)
class _Item:
    topic: Topic
    subject: str
    data: msgspec.Raw
    stamped_ms: int
    mono: float


@dataclass(slots=True)
class Inbox:
    """Nothing is queued: what comes faster than it is given on replaces itself, and is counted."""

    messages: int = 0
    last: float | None = None  # monotonic time of the last message that was taken
    dropped: Counter[str] = field(default_factory=Counter)
    _sequencer: Sequencer = field(default_factory=Sequencer)
    _items: dict[object, _Item] = field(default_factory=dict)

    def put(self, topic: Topic, frame: Frame, now: float, exchange_ms: int) -> bool:
        """Keep it if it is the newer word; False when nothing before it can be relied on."""
        try:
            key, stamped_ms, sequence = stamp_of(topic, frame)
        except UnreadableError:
            self.dropped["unreadable"] += 1
            return True
        word = self._sequencer.judge(key, stamped_ms, sequence, exchange_ms)
        if not word.is_taken:
            self.dropped[word.name.lower()] += 1
            return True
        self.messages += 1
        self.last = now
        if key in self._items:
            self.dropped["replaced"] += 1
        self._items[key] = _Item(topic, frame.subject, frame.data, stamped_ms, now)
        return word is not Word.RESTARTED

    @property
    def is_empty(self) -> bool:
        return not self._items

    def take(self, live: Collection[Topic]) -> list[Told]:
        """What is of these topics; the rest waits."""
        told: list[Told] = []
        for key in [key for key, item in self._items.items() if item.topic in live]:
            item = self._items.pop(key)
            try:
                update = update_of(item.topic, item.subject, item.data)
            except UnreadableError:
                self.dropped["unreadable"] += 1
                continue
            told.append(Told(item.topic, update, item.stamped_ms, item.mono))
        return told

    def clear(self) -> None:
        """What was not given on is gone, and may come again; what was counted stays."""
        self._items.clear()
        self._sequencer = Sequencer()
