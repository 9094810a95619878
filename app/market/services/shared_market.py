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
from app.foundation.processes import ProcessRegistry
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.processes import ProcessProfile
from app.market.domain.data_quality import EMPTY, merged
from app.market.domain.models import (
    STORED,
    Book,
    ContractStats,
    ExchangeLink,
    ExchangeStatus,
    Funding,
    Interval,
    Ticker,
)
from app.market.domain.price_quarantine import PriceState
from app.market.services.feed_leader import LeaderLease, require_epoch
from app.market.services.fetcher import FUNDING_RETENTION_MS
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

Aged = tuple[int, int, T]  # age at writing and exchange time of arrival (ms), value
Mark = tuple[int, int, int, int]  # age and arrival (ms), count, time of the newest (ms)


@dataclass(frozen=True, slots=True)
class LeaderState:
    """Progress of the feed's leader, and its link to the exchange."""

    server_ms: float | None  # exchange time at writing; None before its first answer
    uncertainty_s: float
    trading: ExchangeStatus | None
    link: ExchangeLink
    fill: tuple[str, int, int]
    is_scorable: bool
    is_filled: bool
    is_whole: bool  # a complete board was computed after its first fill
    registry: int  # raised with each change of the stored contracts
    synced: SyncSummary | None  # changes of its newest contract list
    is_streaming: bool = False
    board_id: str | None = None  # run id of its newest complete board


@dataclass(frozen=True, slots=True)
class SharedMarketMessage:
    """Message with the leader's market at one moment."""

    format: int
    leader: LeaderState
    stats: dict[str, Aged[ContractStats]]
    tickers: dict[str, Aged[Ticker]]
    books: dict[str, Aged[Book]]
    answers: dict[Source, tuple[int, int]]
    daily: dict[str, Mark]
    hourly: dict[str, Mark]
    funding: dict[str, Mark]
    open_interest: tuple[int, int]  # number of snapshots, time of the newest
    quality: dict[str, PriceState] = field(default_factory=dict)
    diverged: frozenset[str] = frozenset()


def create_message(market: Market, leader: LeaderState, mono: float) -> SharedMarketMessage:
    """Creates the message from `market` at the monotonic time `mono`."""

    def aged(current: Mapping[str, Received[T]]) -> dict[str, Aged[T]]:
        return {code: (*_age(one, mono), one.value) for code, one in current.items()}

    log = market.open_interest.times_ms
    bars = {
        interval: {
            code: (*_age(one, mono), len(one.value), int(one.value.opened_ms[-1]))
            for code, one in market.series(interval).items()
            if len(one.value)
        }
        for interval in STORED
    }
    funding = {
        code: (*_age(one, mono), len(one.value), one.value[-1].settled_ms if one.value else 0)
        for code, one in market.funding.items()
    }
    return SharedMarketMessage(
        format=FORMAT,
        leader=leader,
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


def encode_message(market: SharedMarketMessage) -> bytes:
    """Encodes and compresses the message; takes processor time, so call it in a thread."""
    return zlib.compress(msgspec.msgpack.encode(market), _LEVEL)


def decode_message(payload: bytes) -> SharedMarketMessage:
    """Decodes a message; takes processor time, so call it in a thread.

    Raises ValueError for a message of another version.
    """
    try:
        message = msgspec.msgpack.decode(zlib.decompress(payload), type=SharedMarketMessage)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError("not a shared market of this version") from error
    # A sequence is decoded as a list; the levels of a book are as immutable as the book.
    books = {
        code: (at_ms, age_ms, replace(book, bids=tuple(book.bids), asks=tuple(book.asks)))
        for code, (at_ms, age_ms, book) in message.books.items()
    }
    return replace(message, books=books)


def with_local_times(aged: Mapping[str, Aged[T]], mono: float) -> dict[str, Received[T]]:
    """Returns the values with our times; `mono` is our monotonic time of their writing."""
    return {code: Received(value, at, mono - age / 1000) for code, (age, at, value) in
            aged.items()}  # fmt: skip


def with_mark_times(value: T, mark: Mark | tuple[int, int], mono: float) -> Received[T]:
    """Returns a loaded value with the age and arrival of its mark."""
    return Received(value, mark[1], mono - mark[0] / 1000)


def _age(one: Received[object], mono: float) -> tuple[int, int]:
    return max(0, round((mono - one.mono) * 1000)), one.at_ms


@dataclass(slots=True)
class MarketPublisher:
    """Writes the leader's market to one row, only after a change and under the present epoch."""

    database: Database
    market: MarketData
    boards: SharedBoards
    lease: LeaderLease
    link: Callable[[], ExchangeLink]
    monotonic: Monotonic
    _sent: tuple[Market, object] | None = field(default=None, init=False)

    async def publish(self) -> bool:
        """Publishes a change; returns whether it was written, and gives the lease up if refused.

        Raises UnavailableError.
        """
        epoch, market = self.lease.epoch, self.market.live.market
        leader = self._leader_state()
        # The time of the last answer changes with each request, so it does not count as a change.
        state = epoch, leader.fill, leader.trading, leader.link.state, leader.registry, (
            leader.is_scorable, leader.is_filled, leader.is_whole, leader.synced,
            leader.board_id,
        )  # fmt: skip
        if epoch is None or (
            self._sent is not None and self._sent[0] is market and self._sent[1] == state
        ):
            return False
        # Ages are computed after the writing time: a pause in between makes no value younger.
        async with self.database.read() as unit:
            stamped_ms = await unit.get(SharedMarketRepository).clock_ms()
        moment = create_message(market, self._leader_state(), self.monotonic())
        payload = await asyncio.to_thread(encode_message, moment)
        async with self.database.write() as unit:
            written = await unit.get(SharedMarketRepository).publish(epoch, stamped_ms, payload)
        if not written:
            self.lease.give_up()
            return False
        self._sent = market, state
        return True

    def _leader_state(self) -> LeaderState:
        data, clock = self.market, self.market.server_clock
        board = self.boards.latest_complete()
        return LeaderState(
            server_ms=float(clock.now_ms()) if clock.synced else None,
            uncertainty_s=clock.uncertainty_s,
            trading=data.trading,
            link=self.link(),
            fill=(data.fill.stage, data.fill.done, data.fill.total),
            is_scorable=data.scorable.is_set(),
            is_filled=data.is_filled(),
            is_whole=self.boards.has_complete_board(),
            registry=data.registry.revision,
            synced=data.registry.last_sync,
            is_streaming=data.live.market.is_streaming,
            board_id=None if board is None else board.run_id,
        )


_BAR_OF_GRACE: Final = 1
_log = structlog.get_logger("feed")


@dataclass(slots=True)
class MarketFollower:
    """Loads the leader's market and newest board whenever they change.

    Ages continue from those at writing by the database's clock, so without a leader everything
    turns stale. `link` is the leader's link to the exchange, None before the first message.
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
        """Epoch of the leader whose market is loaded; None before the first message."""
        return None if self._seen is None else self._seen[0]

    async def refresh(self) -> bool:
        """Loads a new message; returns whether there was one. Raises UnavailableError."""
        found = None
        sent = self.monotonic()
        async with self.database.read() as unit:
            stamp = await unit.get(SharedMarketRepository).stamp()
            if stamp is not None and (stamp.epoch, stamp.version) != self._seen:
                sent = self.monotonic()
                found = await unit.get(SharedMarketRepository).newest()
        read_at = self.monotonic()
        await self.boards.refresh()
        if found is None:
            return False
        stamp, payload = found
        try:
            market = await asyncio.to_thread(decode_message, payload)
        except ValueError:
            # Written by another version of the code: its leader is followed after an update.
            _log.warning("shared_market_unreadable", epoch=stamp.epoch)
            return False
        await self._apply(market, stamp, sent, read_at)
        self._seen = stamp.epoch, stamp.version
        return True

    async def _apply(
        self, message: SharedMarketMessage, stamp: Stamped, sent: float, read_at: float
    ) -> None:
        leader, data = message.leader, self.market
        # The earliest possible time of writing: no value seems younger than it is.
        mono = sent - stamp.elapsed_s
        if leader.server_ms is not None:
            half_s = (read_at - sent) / 2
            data.server_clock.adopt_sample(
                leader.server_ms, mono + half_s, leader.uncertainty_s + half_s
            )
        if self._registry != (stamp.epoch, leader.registry):
            former = data.registry.known
            await data.registry.load()
            data.live.forget(data.registry.known.relisted_since(former))
            self._registry = stamp.epoch, leader.registry
        data.registry.last_sync = leader.synced
        await self._load_bars(Interval.DAY, message.daily, mono)
        await self._load_bars(Interval.HOUR, message.hourly, mono)
        funding = await self._funding(message.funding, mono)
        await self._load_open_interest(message.open_interest)
        present = data.live.market
        data.live.publish(
            replace(
                present,
                stats=joined(present.stats, with_local_times(message.stats, mono)),
                tickers=joined(present.tickers, with_local_times(message.tickers, mono)),
                books=joined(present.books, with_local_times(message.books, mono)),
                funding=joined(present.funding, funding),
                answers=joined(
                    present.answers,
                    {
                        source: with_mark_times(None, mark, mono)
                        for source, mark in message.answers.items()
                    },
                ),
                quality=message.quality,
                diverged=message.diverged,
                is_streaming=leader.is_streaming,
            )
        )
        data.trading, data.fill, self.link = leader.trading, FillProgress(*leader.fill), leader.link
        if leader.is_scorable:
            data.scorable.set()
        if leader.is_filled:
            data.filled.set()
        board = self.boards.latest_complete()
        if leader.is_whole and board is not None and board.run_id == leader.board_id:
            self.boards.complete_board_ready.set()

    async def _load_bars(self, interval: Interval, marks: Mapping[str, Mark], mono: float) -> None:
        """Loads bars that only the leader has: the new ones, or all after a gap."""
        current = self.market.live.market.series(interval)
        more: dict[str, int] = {}  # code -> since when
        for code, (_, _, count, last_ms) in marks.items():
            series = current[code].value if code in current else EMPTY
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
        current = market.series(interval)
        fresh = {
            code: with_mark_times(
                merged(current[code].value if code in current else EMPTY, series, BARS[interval]),
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
        """Returns the leader's funding rates with their ages."""
        current = self.market.live.market.funding
        rates = {code: current[code].value if code in current else () for code in marks}
        last = {code: found[-1].settled_ms if found else 0 for code, found in rates.items()}
        behind = {code for code, mark in marks.items() if mark[3] > last[code]}
        if ids := self._ids(behind):
            oldest_ms = self.market.server_clock.now_ms() - FUNDING_RETENTION_MS
            since_ms = max(oldest_ms, min(last[code] for code in ids.values()))
            async with self.database.read() as unit:
                found = await unit.get(MarketRepository).funding(list(ids), since_ms)
            for symbol_id, settled in found.items():
                code = ids[symbol_id]
                news = tuple(one for one in settled if one.settled_ms > last[code])
                kept = tuple(one for one in rates[code] if one.settled_ms >= oldest_ms)
                rates[code] = (*kept, *news)
        return {code: with_mark_times(found, marks[code], mono) for code, found in rates.items()}

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
        """Returns symbol id -> code of the known ones."""
        return {
            entry.symbol_id: entry.contract.code
            for entry in self.market.registry.index.entries
            if entry.contract.code in codes
        }


_RETRY_S = 5.0


@dataclass(slots=True)
class FeedOwnership:
    """Feed as this process sees it: its leader, the link to the exchange, and all processes.

    `lease` is None in a process without background tasks. `follower` is None where no other process
    can use the database.
    """

    own_link: Callable[[], ExchangeLink]
    lease: LeaderLease | None = None
    follower: MarketFollower | None = None
    registry: ProcessRegistry | None = None

    def is_owner(self) -> bool:
        """True if this process may talk to the exchange."""
        return self.follower is None or (self.lease is not None and self.lease.epoch is not None)

    def epoch(self) -> int | None:
        """Returns the epoch of the market in memory; None before the first, or without a lease."""
        if self.lease is not None and self.lease.epoch is not None:
            return self.lease.epoch
        return None if self.follower is None else self.follower.epoch

    def own_epoch(self) -> float:
        """Returns the epoch while this process leads, for a gauge; else NaN."""
        epoch = None if self.lease is None else self.lease.epoch
        return math.nan if epoch is None else float(epoch)

    def link(self) -> ExchangeLink:
        """Returns the leader's link to the exchange."""
        followed = None if self.follower is None else self.follower.link
        return self.own_link() if self.is_owner() or followed is None else followed

    def drifted(self) -> tuple[str, ...] | None:
        """Returns processes with other code or settings than ours; None for a single process."""
        if self.registry is None or not self.registry.processes:
            return None
        ours = self.registry.profile
        return tuple(
            f"{peer.executor_id} ({_difference(peer.profile, ours)})"
            for peer in self.registry.mismatched_processes()
        )

    def processes(self) -> tuple[ProcessFacts, ...]:
        """Returns all processes of this database; empty where it cannot be shared."""
        if self.registry is None:
            return ()
        drifted = self.registry.mismatched_processes()
        seen = None if self.lease is None else self.lease.seen
        return tuple(
            ProcessFacts(
                name=peer.executor_id,
                role=peer.profile.role,
                version=peer.profile.version,
                is_self=peer.executor_id == self.registry.executor_id,
                leader_epoch=(
                    seen.epoch if seen is not None and seen.holder == peer.executor_id else None
                ),
                configuration_matches=peer not in drifted,
            )
            for peer in self.registry.live_processes()
        )

    async def fence(self, unit: UnitOfWork) -> None:
        """Refuses writes based on the market of an earlier leader.

        Raises UnavailableError(market_data_stale).
        """
        if self.follower is None:
            return
        epoch = self.epoch()
        if epoch is None:
            raise UnavailableError(
                Code.MARKET_DATA_STALE,
                "No market data has arrived yet.",
                retry_after_s=_RETRY_S,
            )
        await require_epoch(unit, epoch)


def _difference(peer: ProcessProfile, own: ProcessProfile) -> str:
    """Describes the difference; the hash of the settings stays secret."""
    parts = []
    if peer.version != own.version:
        parts.append(f"code {peer.version}")
    if peer.settings_hash != own.settings_hash:
        parts.append("other settings")
    return ", ".join(parts)
