"""Updates of a market data stream: topics, values, their order, and the status of the stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from app.market.domain.models import Book

MAX_AHEAD_MS: Final = 5_000  # a message that much later than now is invalid
MAX_LATE_IN_A_ROW: Final = 10  # late messages in a row that show a restarted sequence


class TopicKind(StrEnum):
    """Kind of data that a topic delivers for one contract."""

    QUOTE = "quote"  # best bid and ask
    INSTRUMENT = "instrument"  # mark, index, funding rates
    DAY = "day"  # last price and figures of 24 hours
    BOOK = "book"
    HOUR_BAR = "hour_bar"
    TRADE = "trade"  # every trade

    # Topics are looked up thousands of times a second; Enum's own hash is written in Python.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True, order=True)
class StreamTopic:
    """Subscription to one kind of data of one contract, by the exchange's code."""

    kind: TopicKind
    code: str


class QuoteUpdate(NamedTuple):  # some thousand a second: a tuple takes half as long
    """Best quotes; None for an empty side."""

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
    """Fraction per current interval; `is_predicted` while the interval runs."""

    rate: Decimal
    is_predicted: bool


@dataclass(frozen=True, slots=True)
class DayUpdate:
    """24-hour figures with the units of `ContractStats`."""

    last: Decimal
    high: Decimal
    low: Decimal
    change: Decimal
    turnover: Decimal
    volume: Decimal


class TradeCounts(NamedTuple):
    """Lots bought and sold by takers, and the number of trades."""

    bought_lots: int
    sold_lots: int
    trades: int

    def plus(self, other: "TradeCounts") -> "TradeCounts":
        return TradeCounts(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class TradeUpdate:
    """Last trade: price, lots and time in ms, and a count of all trades since the last update.

    The counts are lots by the side of the taker, and trades; None where a side is unknown.
    """

    price: Decimal
    lots: int
    traded_ms: int
    flow: TradeCounts | None = None


@dataclass(frozen=True, slots=True)
class BarUpdate:
    """Start of a new bar, which closes the one before it."""

    opened_ms: int


Update = QuoteUpdate | MarkUpdate | FundingUpdate | DayUpdate | BarUpdate | TradeUpdate | Book


class MarketUpdate(NamedTuple):
    """Update with the exchange time of its value and our monotonic time of its arrival."""

    topic: StreamTopic
    update: Update
    stamped_ms: int
    mono: float


class Listener(Protocol):
    """Receiver of a stream's updates."""

    def on_updates(self, updates: Sequence[MarketUpdate]) -> None:
        """Handles the newest update of each kind, for topics without a gap."""
        ...

    async def catch_up(self) -> None:
        """Loads missed data over REST. Raises UnavailableError."""
        ...

    def on_sequence_restart(self, topic: StreamTopic) -> None:
        """Handles a restarted message sequence: the stored value of the topic should be polled."""
        ...

    def exchange_ms(self) -> int:
        """Returns the exchange's current time."""
        ...


class UpdateOrder(Enum):
    """Order of a message relative to the last one of the same kind."""

    NEWER = auto()
    REPEATED = auto()
    LATE = auto()
    AHEAD = auto()  # stamped in the future
    RESTARTED = auto()  # accepted; earlier sequence numbers no longer count


@dataclass(slots=True)
class LatestUpdate:
    """Time and sequence of the newest message of one kind.

    An older message is dropped. A sequence that falls while time goes on, or `MAX_LATE_IN_A_ROW`
    late messages, show that the exchange restarted its sequence, which is then followed.
    """

    stamped_ms: int = -1  # exchange time; -1 before the first message
    number: int = -1  # sequence; -1 for a message that has only a time
    _late: int = 0  # in a row

    def classify(self, stamped_ms: int, sequence: int | None, now_ms: int) -> UpdateOrder:
        """Classifies a message and stores it if it is newer; `now_ms` is exchange time."""
        number = -1 if sequence is None else sequence
        # The common case first; the others may take longer.
        if self.stamped_ms < stamped_ms <= now_ms + MAX_AHEAD_MS and number >= self.number:
            order = UpdateOrder.NEWER
        else:
            order = self._classify_unusual(stamped_ms, number, now_ms)
            if order is not UpdateOrder.NEWER and order is not UpdateOrder.RESTARTED:
                return order
        self.stamped_ms, self.number, self._late = stamped_ms, number, 0
        return order

    def _classify_unusual(self, stamped_ms: int, number: int, now_ms: int) -> UpdateOrder:
        if stamped_ms > now_ms + MAX_AHEAD_MS:
            return UpdateOrder.AHEAD
        if stamped_ms > self.stamped_ms:
            return UpdateOrder.RESTARTED
        if stamped_ms == self.stamped_ms and number >= self.number:
            return UpdateOrder.NEWER if number > self.number else UpdateOrder.REPEATED
        self._late += 1
        return UpdateOrder.LATE if self._late < MAX_LATE_IN_A_ROW else UpdateOrder.RESTARTED


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """Status of one connection of the stream."""

    phase: str
    since_s: float  # in this phase
    topics: int
    active_topics: int
    seconds_since_last_message: float | None  # None before the first


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Status of the stream; counters start with the process."""

    connections: tuple[ConnectionStatus, ...]
    topics: int  # requested
    active_topics: int
    seconds_since_last_message: (
        float | None
    )  # since the last accepted message; None before the first
    messages: int
    dropped: Mapping[str, int]  # by reason
    failures: Mapping[str, int]  # failed connections, by reason
    reconnects_planned: int  # connections replaced before the exchange ends them


NO_STREAM: Final = StreamStatus((), 0, 0, None, 0, MappingProxyType({}), MappingProxyType({}), 0)
