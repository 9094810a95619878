"""The live market as bytes for other processes: what was received, with its age at writing.

Candles, funding rates and open interest are in the database already; of them only marks are sent,
by which a reader sees what it has to load.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from app.market.domain.models import (
    Book,
    ContractStats,
    ExchangeLink,
    ExchangeStatus,
    Interval,
    Ticker,
)
from app.market.domain.panel import Source
from app.market.domain.price_quarantine import PriceState
from app.market.services.state import Market, Received
from app.market.services.symbol_registry import SyncSummary

FORMAT: Final = 2
_LEVEL: Final = 3
T = TypeVar("T")

Aged = tuple[int, int, T]  # age at writing and exchange time of arrival in ms, value
Mark = tuple[int, int, int, int]  # age, arrival, how many, the newest one's time; all ms


@dataclass(frozen=True, slots=True)
class Course:
    """How far the owner of the feed is, and how it reaches the exchange."""

    server_ms: float | None  # the exchange's time at writing; None while it was never asked
    doubt_s: float
    trading: ExchangeStatus | None
    link: ExchangeLink
    fill: tuple[str, int, int]
    is_scorable: bool
    is_filled: bool
    is_whole: bool  # a complete board was made after its first fill
    registry: int  # raised with each change of the stored contracts
    synced: SyncSummary | None  # what its newest list of contracts changed
    is_streaming: bool = False
    board_id: str | None = None  # of the complete board that it decides on


@dataclass(frozen=True, slots=True)
class SharedMarket:
    """One moment of the owner's market."""

    format: int
    course: Course
    stats: dict[str, Aged[ContractStats]]
    tickers: dict[str, Aged[Ticker]]
    books: dict[str, Aged[Book]]
    answers: dict[Source, tuple[int, int]]
    daily: dict[str, Mark]
    hourly: dict[str, Mark]
    funding: dict[str, Mark]
    open_interest: tuple[int, int]  # instants, the newest one
    quality: dict[str, PriceState] = field(default_factory=dict)
    diverged: frozenset[str] = frozenset()


def shared(market: Market, course: Course, mono: float) -> SharedMarket:
    """`market` as it stands at the monotonic time `mono`."""

    def aged(held: Mapping[str, Received[T]]) -> dict[str, Aged[T]]:
        return {code: (*_age(one, mono), one.value) for code, one in held.items()}

    log = market.open_interest.times_ms
    bars = {
        interval: {
            code: (*_age(one, mono), len(one.value), int(one.value.opened_ms[-1]))
            for code, one in market.series(interval).items()
            if len(one.value)
        }
        for interval in Interval
    }
    funding = {
        code: (*_age(one, mono), len(one.value), one.value[-1].settled_ms if one.value else 0)
        for code, one in market.funding.items()
    }
    return SharedMarket(
        format=FORMAT,
        course=course,
        stats=aged(market.stats),
        tickers=aged(market.tickers),
        books=aged(market.books),
        answers={source: _age(one, mono) for source, one in market.answers.items()},
        daily=bars[Interval.DAY],
        hourly=bars[Interval.HOUR],
        funding=funding,
        open_interest=(len(log), int(log[-1]) if len(log) else 0),
        quality=dict(market.quality),
        diverged=market.diverged,
    )


def packed(market: SharedMarket) -> bytes:
    """Takes processor time: call it in a thread."""
    return zlib.compress(msgspec.msgpack.encode(market), _LEVEL)


def unpacked(payload: bytes) -> SharedMarket:
    """Takes processor time: call it in a thread. Raises ValueError for what is none of ours."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(payload), type=SharedMarket)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError("not a shared market of this version") from error


def received(aged: Mapping[str, Aged[T]], mono: float) -> dict[str, Received[T]]:
    """As it is held by who reads it; `mono` is our monotonic time of its writing."""
    return {code: Received(value, at, mono - age / 1000) for code, (age, at, value) in
            aged.items()}  # fmt: skip


def stamped(value: T, mark: Mark | tuple[int, int], mono: float) -> Received[T]:
    """A loaded value with the age and arrival of its mark."""
    return Received(value, mark[1], mono - mark[0] / 1000)


def _age(one: Received[object], mono: float) -> tuple[int, int]:
    return max(0, round((mono - one.mono) * 1000)), one.at_ms
