"""What a stream of market data says: topics, single updates, and which of two is the newer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from app.market.domain.models import Book

AHEAD_MS: Final = 5_000  # nothing is true that much later than now
LATE_IN_A_ROW: Final = 10  # then it is not they that are late: the exchange began to count anew


class TopicKind(StrEnum):
    """What a topic tells of one contract."""

    QUOTE = "quote"  # best bid and ask
    INSTRUMENT = "instrument"  # mark, index, funding rates
    DAY = "day"  # last price and figures of 24 hours
    BOOK = "book"
    HOUR_BAR = "hour_bar"
    TRADE = "trade"  # each of them

    # Topics are looked up thousands of times a second: that of members is written in Python.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """One kind of news of one contract, by the exchange's code."""

    kind: TopicKind
    code: str


class QuoteUpdate(NamedTuple):  # made some thousand times a second: a tuple takes half as long
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
class TradeUpdate:
    """The last trade: its price, its lots and when it was made, ms."""

    price: Decimal
    lots: int
    traded_ms: int


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """A bar runs that opened then: the one before it has closed."""

    opened_ms: int


Update = QuoteUpdate | MarkUpdate | FundingUpdate | DayUpdate | BarUpdate | TradeUpdate | Book


class Told(NamedTuple):
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


class MessageOrder(Enum):
    """What a message is, beside the last one of the same kind."""

    NEWER = auto()
    REPEATED = auto()
    LATE = auto()
    AHEAD = auto()  # of the time it is: no message can know that
    RESTARTED = auto()  # taken, but whatever was counted before says nothing any more


@dataclass(slots=True)
class Newest:
    """Time and sequence of the newest message of one kind.

    A message that is older is dropped; a sequence that falls while time goes on, or a row of
    messages that all seem old, is an exchange that began to count anew: it is followed.
    """

    stamped_ms: int = -1  # exchange time; before any before the first message
    number: int = -1  # of a message without a sequence, which is told by its time alone
    _late: int = 0  # in a row

    def judge(self, stamped_ms: int, sequence: int | None, now_ms: int) -> MessageOrder:
        """`now_ms` is exchange time."""
        number = -1 if sequence is None else sequence
        # Nearly all of them are such; the other answers may take longer.
        if self.stamped_ms < stamped_ms <= now_ms + AHEAD_MS and number >= self.number:
            order = MessageOrder.NEWER
        else:
            order = self._beside(stamped_ms, number, now_ms)
            if order is not MessageOrder.NEWER and order is not MessageOrder.RESTARTED:
                return order
        self.stamped_ms, self.number, self._late = stamped_ms, number, 0
        return order

    def _beside(self, stamped_ms: int, number: int, now_ms: int) -> MessageOrder:
        if stamped_ms > now_ms + AHEAD_MS:
            return MessageOrder.AHEAD
        if stamped_ms > self.stamped_ms:
            return MessageOrder.RESTARTED
        if stamped_ms == self.stamped_ms and number >= self.number:
            return MessageOrder.NEWER if number > self.number else MessageOrder.REPEATED
        self._late += 1
        return MessageOrder.LATE if self._late < LATE_IN_A_ROW else MessageOrder.RESTARTED


@dataclass(frozen=True, slots=True)
class LineFacts:
    """One connection of the stream."""

    phase: str
    since_s: float  # in this phase
    topics: int
    active_topics: int
    seconds_since_last_message: float | None  # None before the first


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the stream does; counts are since the start of this process."""

    lines: tuple[LineFacts, ...]
    topics: int  # wanted
    active_topics: int
    seconds_since_last_message: (
        float | None
    )  # since the last message that was taken; None before one
    messages: int
    dropped: Mapping[str, int]  # by reason
    failures: Mapping[str, int]  # connections that had to be replaced, by reason
    reconnects_planned: int  # connections replaced before the exchange ends them


NO_STREAM: Final = StreamFacts((), 0, 0, None, 0, MappingProxyType({}), MappingProxyType({}), 0)
