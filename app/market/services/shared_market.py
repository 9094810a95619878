"""Shared market: the feed's leader publishes it, and the other processes follow."""

import asyncio
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import msgspec
import numpy as np
import structlog

from app.configuration.domain.sections import Source
from app.foundation.errors import Code, UnavailableError
from app.foundation.health import ProcessFacts
from app.foundation.ports import Monotonic
from app.foundation.replicas import Replicas
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.replicas import Makeup
from app.market.domain.data_quality import EMPTY, merged
from app.market.domain.models import (
    Book,
    ContractStats,
    ExchangeLink,
    ExchangeStatus,
    Funding,
    Interval,
    Ticker,
)
from app.market.domain.price_quarantine import PriceState
from app.market.services.feed_leader import FeedLease, require_epoch
from app.market.services.fetcher import FUNDING_KEEP_MS
from app.market.services.open_interest import IN_MEMORY_MS
from app.market.services.ports import SharedBoards
from app.market.services.service import MarketData
from app.market.services.snapshot import BARS
from app.market.services.state import FillProgress, Market, Received, joined
from app.market.services.symbol_registry import SyncSummary
from app.market.storage.candles import CandleRepository
from app.market.storage.market_data import MarketRepository
from app.market.storage.shared_market import SharedMarketRepository, Stamped

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


_BAR_OF_GRACE: Final = 1
_log = structlog.get_logger("feed")


@dataclass(slots=True)
class MarketFollower:
    """Reads the shared market and the newest board whenever they have changed.

    Ages go on from those at writing by the database's clock, so that without an owner everything
    turns stale by itself. `link` is the owner's way to the exchange; None before the first word.
    """

    database: Database
    market: MarketData
    boards: SharedBoards
    monotonic: Monotonic
    link: ExchangeLink | None = field(default=None, init=False)
    _seen: tuple[int, int] | None = field(default=None, init=False)  # epoch and version
    _registry: tuple[int, int] | None = field(default=None, init=False)

    @property
    def epoch(self) -> int | None:
        """Of the owner whose market this is; None before the first word of one."""
        return None if self._seen is None else self._seen[0]

    async def look(self) -> bool:
        """Whether there was something new. Raises UnavailableError."""
        found = None
        sent = self.monotonic()
        async with self.database.read() as unit:
            stamp = await unit.get(SharedMarketRepository).stamp()
            if stamp is not None and (stamp.epoch, stamp.version) != self._seen:
                sent = self.monotonic()
                found = await unit.get(SharedMarketRepository).newest()
        heard = self.monotonic()
        await self.boards.refresh()
        if found is None:
            return False
        stamp, payload = found
        try:
            market = await asyncio.to_thread(unpacked, payload)
        except ValueError:
            # Written by another version of the code: its owner is followed once we are updated.
            _log.warning("shared_market_unreadable", epoch=stamp.epoch)
            return False
        await self._take(market, stamp, sent, heard)
        self._seen = stamp.epoch, stamp.version
        return True

    async def _take(self, sent: SharedMarket, stamp: Stamped, asked: float, heard: float) -> None:
        course, data = sent.course, self.market
        # The earliest that it can have been: nothing seems younger than it is.
        mono = asked - stamp.elapsed_s
        if course.server_ms is not None:
            half_s = (heard - asked) / 2
            data.server_clock.carry(course.server_ms, mono + half_s, course.doubt_s + half_s)
        if self._registry != (stamp.epoch, course.registry):
            former = data.registry.known
            await data.registry.load()
            data.live.forget(data.registry.known.others_than(former))
            self._registry = stamp.epoch, course.registry
        data.registry.last_sync = course.synced
        await self._load_bars(Interval.DAY, sent.daily, mono)
        await self._load_bars(Interval.HOUR, sent.hourly, mono)
        funding = await self._funding(sent.funding, mono)
        await self._load_open_interest(sent.open_interest)
        held = data.live.market
        news = Market(
            stats=joined(held.stats, received(sent.stats, mono)),
            tickers=joined(held.tickers, received(sent.tickers, mono)),
            books=joined(held.books, received(sent.books, mono)),
            funding=joined(held.funding, funding),
            answers=joined(
                held.answers,
                {source: stamped(None, mark, mono) for source, mark in sent.answers.items()},
            ),
        )
        data.live.publish(
            replace(
                held,
                stats=news.stats,
                tickers=news.tickers,
                books=news.books,
                funding=news.funding,
                answers=news.answers,
                quality=sent.quality,
                diverged=sent.diverged,
                is_streaming=course.is_streaming,
            )
        )
        data.trading, data.fill, self.link = course.trading, FillProgress(*course.fill), course.link
        if course.is_scorable:
            data.scorable.set()
        if course.is_filled:
            data.filled.set()
        board = self.boards.in_force()
        if course.is_whole and board is not None and board.run_id == course.board_id:
            self.boards.whole.set()

    async def _load_bars(self, interval: Interval, marks: Mapping[str, Mark], mono: float) -> None:
        """Bars that the owner has and we do not: the new ones, or all where there was a gap."""
        held = self.market.live.market.series(interval)
        more: dict[str, int] = {}  # code -> since when
        for code, (_, _, count, last_ms) in marks.items():
            series = held[code].value if code in held else EMPTY
            ours_ms = int(series.opened_ms[-1]) if len(series) else 0
            if last_ms <= ours_ms and count <= len(series) + _BAR_OF_GRACE:
                continue
            grown = (last_ms - ours_ms) // interval.ms
            follows = len(series) and count - len(series) <= grown + _BAR_OF_GRACE
            more[code] = ours_ms if follows else last_ms - BARS[interval] * interval.ms
        ids = self._ids(more)
        if not ids:
            return
        async with self.database.read() as unit:
            found = await unit.get(CandleRepository).load(list(ids), interval, min(more.values()))
        market = self.market.live.market
        held = market.series(interval)
        fresh = {
            code: stamped(
                merged(held[code].value if code in held else EMPTY, series, BARS[interval]),
                marks[code],
                mono,
            )
            for symbol_id, series in found.items()
            if len(series) and (code := ids[symbol_id])
        }
        self.market.live.publish(market.with_candles(interval, fresh))

    async def _funding(
        self, marks: Mapping[str, Mark], mono: float
    ) -> dict[str, Received[tuple[Funding, ...]]]:
        """Rates of everybody, with the ages that they have for the owner."""
        held = self.market.live.market.funding
        rates = {code: held[code].value if code in held else () for code in marks}
        last = {code: found[-1].settled_ms if found else 0 for code, found in rates.items()}
        behind = {code for code, mark in marks.items() if mark[3] > last[code]}
        if ids := self._ids(behind):
            oldest_ms = self.market.server_clock.now_ms() - FUNDING_KEEP_MS
            since_ms = max(oldest_ms, min(last[code] for code in ids.values()))
            async with self.database.read() as unit:
                found = await unit.get(MarketRepository).funding(list(ids), since_ms)
            for symbol_id, settled in found.items():
                code = ids[symbol_id]
                news = tuple(one for one in settled if one.settled_ms > last[code])
                kept = tuple(one for one in rates[code] if one.settled_ms >= oldest_ms)
                rates[code] = (*kept, *news)
        return {code: stamped(found, marks[code], mono) for code, found in rates.items()}

    async def _load_open_interest(self, mark: tuple[int, int]) -> None:
        data, (_, last_ms) = self.market, mark
        log = data.live.market.open_interest
        entries = data.registry.index.entries
        if not len(log.times_ms):
            if last_ms:
                await data.open_interest.load(entries)
            return
        if last_ms <= int(log.times_ms[-1]):
            return
        async with self.database.read() as unit:
            times = await unit.get(MarketRepository).snapshot_times(int(log.times_ms[-1]) + 1)
            values = await unit.get(MarketRepository).open_interest(
                [one.symbol_id for one in entries], times
            )
        for taken_ms, row in zip(times, values, strict=True):
            known = {
                one.contract.code: float(coins)
                for one, coins in zip(entries, row, strict=True)
                if np.isfinite(coins)
            }
            log = log.with_row(taken_ms, known, IN_MEMORY_MS)
        data.live.publish(replace(data.live.market, open_interest=log))

    def _ids(self, codes: Collection[str]) -> dict[str, str]:
        """Symbol id -> code of those that we know."""
        return {
            entry.symbol_id: entry.contract.code
            for entry in self.market.registry.index.entries
            if entry.contract.code in codes
        }


_RETRY_S = 5.0


@dataclass(slots=True)
class FeedView:
    """`lease` is None where nothing runs by itself: then callers have the exchange asked.

    `follower` is None where no other process can use the database.
    """

    own_link: Callable[[], ExchangeLink]
    lease: FeedLease | None = None
    follower: MarketFollower | None = None
    replicas: Replicas | None = None

    def is_owner(self) -> bool:
        """Whether this process may talk to the exchange."""
        return self.follower is None or (self.lease is not None and self.lease.epoch is not None)

    def epoch(self) -> int | None:
        """Of the market in memory; None before the first one was seen, or without a lease."""
        if self.lease is not None and self.lease.epoch is not None:
            return self.lease.epoch
        return None if self.follower is None else self.follower.epoch

    def own_epoch(self) -> float:
        """Of the feed while this process owns it, for a gauge; else NaN."""
        held = None if self.lease is None else self.lease.epoch
        return math.nan if held is None else float(held)

    def link(self) -> ExchangeLink:
        """How the exchange is reached by whoever reads it."""
        followed = None if self.follower is None else self.follower.link
        return self.own_link() if self.is_owner() or followed is None else followed

    def drifted(self) -> tuple[str, ...] | None:
        """Processes that run with other code or settings; None where there can be none."""
        if self.replicas is None or not self.replicas.peers:
            return None
        ours = self.replicas.makeup
        return tuple(
            f"{peer.executor_id} ({_difference(peer.makeup, ours)})"
            for peer in self.replicas.drifted()
        )

    def processes(self) -> tuple[ProcessFacts, ...]:
        """Everybody who lives on this database; nobody where it cannot be shared."""
        if self.replicas is None:
            return ()
        drifted = self.replicas.drifted()
        seen = None if self.lease is None else self.lease.seen
        return tuple(
            ProcessFacts(
                name=peer.executor_id,
                role=peer.makeup.role,
                version=peer.makeup.version,
                is_self=peer.executor_id == self.replicas.executor_id,
                leader_epoch=(
                    seen.epoch if seen is not None and seen.holder == peer.executor_id else None
                ),
                configuration_matches=peer not in drifted,
            )
            for peer in self.replicas.living()
        )

    async def fence(self, unit: UnitOfWork) -> None:
        """Refuses to write what rests on the market of an earlier owner.

        Raises UnavailableError(market_data_stale).
        """
        if self.follower is None:
            return
        epoch = self.epoch()
        if epoch is None:
            raise UnavailableError(
                Code.MARKET_DATA_STALE,
                "No process has read the market yet.",
                retry_after_s=_RETRY_S,
            )
        await require_epoch(unit, epoch)


def _difference(theirs: Makeup, ours: Makeup) -> str:
    """In words; what stands for the settings is told to nobody, secrets went into it."""
    parts = []
    if theirs.version != ours.version:
        parts.append(f"code {theirs.version}")
    if theirs.settings_hash != ours.settings_hash:
        parts.append("other settings")
    return ", ".join(parts)
