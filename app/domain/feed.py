"""What a stream of market data says: topics, single updates, and which of two is the newer word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final, Protocol

from app.domain.market import Book

AHEAD_MS: Final = 5_000  # nothing is true that much later than now
LATE_IN_A_ROW: Final = 10  # then it is not they that are late: the exchange began to count anew


class TopicKind(StrEnum):
    """What a topic tells of one contract."""

    QUOTE = "quote"  # best bid and ask
    INSTRUMENT = "instrument"  # mark, index, funding rates
    DAY = "day"  # last price and figures of 24 hours
    BOOK = "book"
    HOUR_BAR = "hour_bar"


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """One kind of news of one contract, by the exchange's code."""

    kind: TopicKind
    code: str


@dataclass(frozen=True, slots=True)
class QuoteUpdate:
    """Best quotes; None where nobody bids or asks."""

    bid: Decimal | None
    bid_lots: int | None
    ask: Decimal | None
    ask_lots: int | None


@dataclass(frozen=True, slots=True)
class MarkUpdate:
    mark: Decimal
    index: Decimal


@dataclass(frozen=True, slots=True)
class FundingUpdate:
    """Fraction per interval in force; `is_predicted` while the interval runs."""

    rate: Decimal
    is_predicted: bool


@dataclass(frozen=True, slots=True)
class DayUpdate:
    """Units as in `ContractStats`."""

    last: Decimal
    high: Decimal
    low: Decimal
    change: Decimal
    turnover: Decimal
    volume: Decimal


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """A bar runs that opened then: the one before it has closed."""

    opened_ms: int


Update = QuoteUpdate | MarkUpdate | FundingUpdate | DayUpdate | BarUpdate | Book


@dataclass(frozen=True, slots=True)
class Told:
    """One update: exchange time of the value, and our monotonic time of its arrival."""

    topic: Topic
    update: Update
    stamped_ms: int
    mono: float


class Listener(Protocol):
    """Who hears what a stream tells."""

    def told(self, news: Sequence[Told]) -> None:
        """The newest of each kind; none of these topics has missed anything."""
        ...

    async def catch_up(self) -> None:
        """Bring what was missed by other ways. Raises UnavailableError."""
        ...

    def doubted(self, topic: Topic) -> None:
        """The exchange began to count anew: what is held of it should be asked for."""
        ...

    def exchange_ms(self) -> int:
        """The exchange's time now."""
        ...


class Word(Enum):
    """What a message is, beside the last one of the same kind."""

    NEWER = auto()
    REPEATED = auto()
    LATE = auto()
    AHEAD = auto()  # of the time it is: no message can know that
    RESTARTED = auto()  # taken, but whatever was counted before says nothing any more

    @property
    def is_taken(self) -> bool:
        return self in (Word.NEWER, Word.RESTARTED)


@dataclass(slots=True)
class Sequencer:
    """Keeps time and sequence of the newest message of each kind.

    A message that is older is dropped; a sequence that falls while time goes on, or a row of
    messages that all seem old, is an exchange that began to count anew: it is followed.
    """

    _last: dict[object, tuple[int, int]] = field(default_factory=dict)
    _late: dict[object, int] = field(default_factory=dict)

    def judge(self, key: object, stamped_ms: int, sequence: int | None, now_ms: int) -> Word:
        """`now_ms` is exchange time. A message without a sequence is told by its time alone."""
        if stamped_ms > now_ms + AHEAD_MS:
            return Word.AHEAD
        number = -1 if sequence is None else sequence
        held = self._last.get(key)
        word = Word.NEWER
        if held is not None:
            word = self._beside(key, held, (stamped_ms, number))
        if word.is_taken:
            self._last[key] = (stamped_ms, number)
            self._late.pop(key, None)
        return word

    def _beside(self, key: object, held: tuple[int, int], given: tuple[int, int]) -> Word:
        if given == held:
            return Word.REPEATED
        if given[0] > held[0]:
            return Word.NEWER if given[1] >= held[1] else Word.RESTARTED
        if given[0] == held[0] and given[1] > held[1]:
            return Word.NEWER
        row = self._late[key] = self._late.get(key, 0) + 1
        return Word.RESTARTED if row >= LATE_IN_A_ROW else Word.LATE

    def forget(self, key: object) -> None:
        self._last.pop(key, None)
        self._late.pop(key, None)


@dataclass(frozen=True, slots=True)
class LineFacts:
    """One connection of the stream."""

    phase: str
    since_s: float  # in this phase
    topics: int
    live_topics: int
    silent_s: float | None  # since its last frame; None before the first


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the stream does; counts are since the start of this process."""

    lines: tuple[LineFacts, ...]
    topics: int  # wanted
    live_topics: int
    last_message_s: float | None  # since the last message that was taken; None before one
    messages: int
    dropped: Mapping[str, int]  # by reason
    failures: Mapping[str, int]  # connections that had to be replaced, by reason
    rotations: int


NO_STREAM: Final = StreamFacts((), 0, 0, None, 0, MappingProxyType({}), MappingProxyType({}), 0)
