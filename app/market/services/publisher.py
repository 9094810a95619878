"""Writes what the owner of the feed sees where the other processes read it."""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from app.configuration.domain.sections import Source
from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database
from app.market.domain.models import (
    Book,
    ContractStats,
    ExchangeLink,
    ExchangeStatus,
    Interval,
    Ticker,
)
from app.market.domain.price_quarantine import PriceState
from app.market.services.feed_leader import FeedLease
from app.market.services.ports import SharedBoards
from app.market.services.service import MarketData
from app.market.services.state import Market, Received
from app.market.services.symbol_registry import SyncSummary
from app.market.storage.shared_market import SharedMarketRepository

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


@dataclass(slots=True)
class MarketPublisher:
    """One row, only when something has changed, and only under the present epoch."""

    database: Database
    market: MarketData
    boards: SharedBoards
    lease: FeedLease
    link: Callable[[], ExchangeLink]
    monotonic: Monotonic
    _sent: tuple[Market, object] | None = field(default=None, init=False)

    async def publish(self) -> bool:
        """Whether something was written; the lease is lost if it was refused.

        Raises UnavailableError.
        """
        epoch, market = self.lease.epoch, self.market.live.market
        course = self._course()
        # The time of the last answer changes with each request and is no news.
        news = epoch, course.fill, course.trading, course.link.state, course.registry, (
            course.is_scorable, course.is_filled, course.is_whole, course.synced,
            course.board_id,
        )  # fmt: skip
        if epoch is None or (
            self._sent is not None and self._sent[0] is market and self._sent[1] == news
        ):
            return False
        # Ages are taken after the time of writing: a pause in between makes nothing younger.
        async with self.database.read() as unit:
            stamped_ms = await unit.get(SharedMarketRepository).clock_ms()
        moment = shared(market, self._course(), self.monotonic())
        payload = await asyncio.to_thread(packed, moment)
        async with self.database.write() as unit:
            written = await unit.get(SharedMarketRepository).publish(epoch, stamped_ms, payload)
        if not written:
            self.lease.lost()
            return False
        self._sent = market, news
        return True

    def _course(self) -> Course:
        data, clock = self.market, self.market.server_clock
        board = self.boards.in_force()
        return Course(
            server_ms=float(clock.now_ms()) if clock.synced else None,
            doubt_s=clock.doubt_s,
            trading=data.trading,
            link=self.link(),
            fill=(data.fill.stage, data.fill.done, data.fill.total),
            is_scorable=data.scorable.is_set(),
            is_filled=data.is_filled(),
            is_whole=self.boards.is_whole(),
            registry=data.registry.revision,
            synced=data.registry.last_sync,
            is_streaming=data.live.market.is_streaming,
            board_id=None if board is None else board.run_id,
        )
