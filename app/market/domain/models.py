"""Market data: contracts, tickers, books, funding, candles, and the state of the exchange link."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FLOAT_NOISE: Final = 1e-12  # relative error that sums and products of floats may have
DAYS_A_YEAR: Final = 365.0  # the market never closes; for annualising


class Interval(Enum):
    """Bar lengths that the exchange offers, in minutes; only those of `STORED` are stored."""

    MINUTE = 1
    MINUTES_5 = 5
    MINUTES_15 = 15
    MINUTES_30 = 30
    HOUR = 60
    HOURS_2 = 120
    HOURS_4 = 240
    HOURS_8 = 480
    HOURS_12 = 720
    DAY = 1440
    WEEK = 10080

    @property
    def ms(self) -> int:
        return self.value * 60_000

    @property
    def grid_ms(self) -> int:
        """Divisor of every opening time; the exchange does not say on which day a week begins."""
        return min(self.value, Interval.DAY.value) * 60_000


STORED: Final = (Interval.HOUR, Interval.DAY)  # scored and decided upon


class ContractKind(StrEnum):
    PERPETUAL = "perpetual"
    DATED = "dated"
    OTHER = "other"


class ContractStatus(StrEnum):
    """KuCoin's contract states; UNKNOWN stands for any other word."""

    INIT = "Init"
    OPEN = "Open"
    BEING_SETTLED = "BeingSettled"
    SETTLED = "Settled"
    PAUSED = "Paused"
    CLOSED = "Closed"
    CANCEL_ONLY = "CancelOnly"
    VANISHED = "Vanished"  # internal: missing in the exchange's list
    UNKNOWN = "Unknown"


# Trading has stopped for a time; the exchange may open the contract again.
PAUSED: Final = frozenset({ContractStatus.PAUSED, ContractStatus.CANCEL_ONLY})
# Trading has ended for good.
DELISTED: Final = frozenset(
    {ContractStatus.VANISHED, ContractStatus.CLOSED, ContractStatus.SETTLED}
)


class ExchangeStatus(StrEnum):
    OPEN = "open"
    CLOSE = "close"
    CANCEL_ONLY = "cancelonly"


class LinkState(StrEnum):
    """State of the link to the exchange: untried, up, or down with a cause."""

    UNTRIED = "untried"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ExchangeLink:
    """Connection state as its adapter reports it; `cause` is a stable error code."""

    state: LinkState
    since: datetime
    cause: str | None
    detail: str | None
    last_success_at: datetime | None
    retry_in_s: float | None


@dataclass(frozen=True, slots=True)
class LotChange:
    """Change of a multiplier, first seen at `until`; `since` is a time before it."""

    since: datetime
    until: datetime
    before: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Contract:
    """KuCoin's contract with its specification, in standard names (base BTC, never XBT).

    `multiplier` is positive: base coins per lot for linear contracts, 1 USD per lot for inverse.
    Times are epoch milliseconds.
    """

    code: str  # KuCoin's key, e.g. XBTUSDTM
    base: str  # standard, e.g. BTC
    quote: str
    settle: str  # standard
    kind: ContractKind
    status: ContractStatus
    is_inverse: bool
    multiplier: Decimal
    lot_size: int
    tick_size: Decimal
    max_order_lots: int | None
    max_leverage: int | None
    initial_margin: Decimal | None
    maintenance_margin: Decimal | None
    maker_fee: Decimal | None
    taker_fee: Decimal | None
    funding_interval_ms: int | None
    listed_ms: int | None
    expires_ms: int | None  # on a perpetual: announced delisting
    market_stage: str | None  # NORMAL, PRE_MARKET
    market_type: str | None  # CRYPTO, NASDAQ

    def exact_volume(self, volume: float) -> Decimal:
        """Returns the volume of whole lots that a finite float stands for.

        A float that no number of lots is near, such as one from before a change of the
        multiplier, keeps its value. Base coins; USD for inverse contracts.
        """
        lots = Decimal(round(volume / float(self.multiplier)))
        exact = lots * self.multiplier
        is_near = math.isclose(float(exact), volume, rel_tol=_FLOAT_NOISE)
        return exact if is_near else Decimal(repr(volume))


@dataclass(frozen=True, slots=True)
class ContractStats:
    """Prices and statistics of a contract; None where the exchange sent nothing."""

    code: str
    mark_price: Decimal | None
    index_price: Decimal | None
    last_price: Decimal | None
    funding_rate: Decimal | None  # fraction per current interval
    predicted_funding_rate: Decimal | None
    next_funding_ms: int | None
    open_interest_lots: int | None
    turnover_24h: Decimal | None  # quote currency (USD for inverse), positive
    volume_24h: Decimal | None  # base coins (USD lots for inverse)
    high_24h: Decimal | None
    low_24h: Decimal | None
    change_24h: Decimal | None  # fraction


@dataclass(frozen=True, slots=True)
class Rejection:
    """Record rejected by a parser, with the reason."""

    key: str  # contract code, else position in the answer
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class ContractListing:
    """Contracts of one answer, with its rejected records."""

    contracts: tuple[Contract, ...]
    stats: tuple[ContractStats, ...]
    rejections: tuple[Rejection, ...]


class Ticker(NamedTuple):  # created some thousand times a second, as are levels
    """Last trade and best quotes; `traded_ms` is the time of the trade, not of the quote."""

    code: str
    last: Decimal
    last_lots: int | None
    bid: Decimal | None
    bid_lots: int | None
    ask: Decimal | None
    ask_lots: int | None
    traded_ms: int


@dataclass(frozen=True, slots=True)
class TickerListing:
    tickers: tuple[Ticker, ...]
    rejections: tuple[Rejection, ...]


class Level(NamedTuple):
    price: Decimal
    lots: int


class PackedLevels(Sequence[Level]):
    """Levels of one side of a book as exact decimal text, decoded at each access.

    A level takes 15 bytes instead of 220. `prices` and `lots` are separated by spaces.
    """

    __slots__ = ("lots", "prices")

    def __init__(self, levels: Sequence[Level]) -> None:
        self.prices = " ".join(str(level.price) for level in levels)
        self.lots = " ".join(str(level.lots) for level in levels)

    @classmethod
    def of(cls, levels: Sequence[Level]) -> "PackedLevels":
        """Returns the levels packed, as they are if they already were."""
        return levels if isinstance(levels, PackedLevels) else cls(levels)

    def __len__(self) -> int:
        return len(self.lots.split())

    def __iter__(self) -> Iterator[Level]:
        return map(Level, map(Decimal, self.prices.split()), map(int, self.lots.split()))

    @overload
    def __getitem__(self, at: int) -> Level: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Level, ...]: ...

    def __getitem__(self, at: int | slice) -> Level | tuple[Level, ...]:
        return tuple(self)[at]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True, slots=True)
class Book:
    """Order book, best levels first on both sides; either side may be empty."""

    code: str
    sequence: int
    bids: Sequence[Level]
    asks: Sequence[Level]
    stamped_ms: int

    def packed(self) -> "Book":
        """Returns an equal book that takes less memory."""
        return replace(self, bids=PackedLevels.of(self.bids), asks=PackedLevels.of(self.asks))

    def top(self, levels: int) -> "Book":
        """Returns the book with at most `levels` levels a side."""
        if max(len(self.bids), len(self.asks)) <= levels:
            return self
        return replace(self, bids=self.bids[:levels], asks=self.asks[:levels])


@dataclass(frozen=True, slots=True)
class CurrentFunding:
    """Funding rate of the running interval."""

    code: str
    rate: Decimal
    interval_ms: int
    started_ms: int
    settles_ms: int


@dataclass(frozen=True, slots=True)
class Funding:
    """Settled rate: fraction of notional per `interval_ms`; longs pay when positive."""

    settled_ms: int
    rate: Decimal
    interval_ms: int | None  # None where its neighbours do not show it


@dataclass(frozen=True, slots=True)
class MarkPrice:
    code: str
    mark: Decimal
    index: Decimal | None
    stamped_ms: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CandleSeries:
    """Closed candles of one contract, oldest first, without duplicates; all arrays are (T,).

    `volume` in base coins (USD for inverse contracts), `turnover` in quote currency.
    """

    opened_ms: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats

    def __len__(self) -> int:
        return len(self.opened_ms)


TRADING_ENDED: Final = frozenset(
    {
        ContractStatus.BEING_SETTLED,
        ContractStatus.SETTLED,
        ContractStatus.CLOSED,
        ContractStatus.VANISHED,
    }
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed hourly bar."""

    opened_ms: int
    open: float
    close: float
