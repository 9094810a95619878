"""Service mode from the market level and the database's write state, and its events."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

import structlog

from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.health import Mode
from app.foundation.ports import Clock, Monotonic, NewId
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.key_value import KeyValueRepository
from app.market.domain.events import ModeChanged

CACHE_S: Final = 1.0  # cache time of the count of stale symbols; nothing else is cached
_RETRY_S: Final = 30.0


class Cause(StrEnum):
    """Cause of the mode: the first one that applies."""

    DATABASE_UNAVAILABLE = "database_unavailable"
    STORAGE_FULL = "storage_full"
    DATABASE_LOCKED = "database_locked"  # by another program, beyond the time-out
    DATABASE_READ_ONLY = "database_read_only"
    MARKET_UNAVAILABLE = "market_unavailable"  # before the first data
    MARKET_STALE = "market_stale"
    CLOCK_UNSAFE = "clock_unsafe"  # the exchange's time is too uncertain
    SYMBOLS_STALE = "symbols_stale"  # some of them
    ALL_FRESH = "all_fresh"


@dataclass(frozen=True, slots=True)
class MarketLevel:
    """Freshness of the market as a whole, and the number of stale symbols."""

    status: DataStatus
    stale_symbols: int
    is_clock_safe: bool = True


def halt_cause(refusal: ServiceError) -> Cause:
    """Returns the cause for a readable database that refuses changes."""
    causes = {
        Code.STORAGE_FULL: Cause.STORAGE_FULL,
        Code.DATABASE_CONTENTION: Cause.DATABASE_LOCKED,
    }
    return causes.get(refusal.code, Cause.DATABASE_READ_ONLY)


def determine_mode(
    market: MarketLevel, *, is_database_down: bool, halted: Cause | None = None
) -> Mode:
    """Returns the mode; without database, market or exchange time nothing is decided.

    `halted` is the cause why a readable database refuses changes.
    """
    is_known = market.status is DataStatus.FRESH and market.is_clock_safe
    if halted is not None and not is_database_down:
        return Mode.HALTED
    if is_database_down or not is_known:
        return Mode.FROZEN
    return Mode.DEGRADED if market.stale_symbols else Mode.NORMAL


def determine_cause(
    market: MarketLevel, *, is_database_down: bool, halted: Cause | None = None
) -> Cause:
    """Returns the cause of the mode that `determine_mode` returns for the same arguments."""
    if is_database_down:
        return Cause.DATABASE_UNAVAILABLE
    if halted is not None:
        return halted
    if market.status is DataStatus.FRESH and not market.is_clock_safe:
        return Cause.CLOCK_UNSAFE
    if market.status is DataStatus.FRESH:
        return Cause.SYMBOLS_STALE if market.stale_symbols else Cause.ALL_FRESH
    never = market.status is DataStatus.UNAVAILABLE
    return Cause.MARKET_UNAVAILABLE if never else Cause.MARKET_STALE


# Code and message of the refusal, for each cause without decisions.
_REFUSALS: Final[Mapping[Cause, tuple[Code, str]]] = MappingProxyType(
    {
        Cause.DATABASE_UNAVAILABLE: (
            Code.DATABASE_UNAVAILABLE,
            "The database does not answer; no decisions are taken.",
        ),
        Cause.STORAGE_FULL: (
            Code.STORAGE_FULL,
            "The disk of the database is full; no decisions are taken.",
        ),
        Cause.DATABASE_READ_ONLY: (
            Code.DATABASE_UNAVAILABLE,
            "The database accepts no changes; no decisions are taken.",
        ),
        Cause.MARKET_UNAVAILABLE: (
            Code.MARKET_DATA_STALE,
            "No market data has arrived yet.",
        ),
        Cause.MARKET_STALE: (
            Code.MARKET_DATA_STALE,
            "The market data is too old to decide on.",
        ),
        Cause.CLOCK_UNSAFE: (
            Code.CLOCK_UNSAFE,
            "The exchange's time is too uncertain for decisions.",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class ModeState:
    """Mode with its cause at one moment."""

    mode: Mode
    cause: Cause
    market: MarketLevel

    @classmethod
    def from_level(
        cls, market: MarketLevel, *, is_database_down: bool = False, halted: Cause | None = None
    ) -> "ModeState":
        return cls(
            determine_mode(market, is_database_down=is_database_down, halted=halted),
            determine_cause(market, is_database_down=is_database_down, halted=halted),
            market,
        )

    @property
    def stale_symbols(self) -> int:
        return self.market.stale_symbols

    @property
    def refusal(self) -> UnavailableError | None:
        """Error for a refused decision; None while the service decides."""
        refused = _REFUSALS.get(self.cause)
        return None if refused is None else UnavailableError(*refused, retry_after_s=_RETRY_S)


class MarketLevels(Protocol):
    """Source of market levels; `level_with` is cheap, `stale_symbols` counts all symbols."""

    def stale_symbols(self) -> int: ...

    def level_with(self, stale_symbols: int) -> MarketLevel: ...


@dataclass(slots=True)
class CachedMarketLevel:
    """Market level; only its count of stale symbols may be up to `CACHE_S` old."""

    market: MarketLevels
    monotonic: Monotonic
    _counted: tuple[float, int] | None = field(default=None, init=False)

    def __call__(self) -> MarketLevel:
        now = self.monotonic()
        if self._counted is None or now - self._counted[0] > CACHE_S:
            self._counted = (now, self.market.stale_symbols())
        return self.market.level_with(self._counted[1])


@dataclass(slots=True)
class CurrentMode:
    """Present mode, computed here for every reader.

    Each call reads market and database, so that a response states the mode of a decision at the
    same moment. `is_database_down` and `halted` return the last observation.
    """

    market: Callable[[], MarketLevel]
    is_database_down: Callable[[], bool] = lambda: False
    halted: Callable[[], Cause | None] = lambda: None
    _last: tuple[MarketLevel, bool, Cause | None, ModeState] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __call__(self) -> Mode:
        return self.state().mode

    def state(self) -> ModeState:
        """Returns mode and cause; the same object while nothing changes."""
        market, is_down, halted = self.market(), self.is_database_down(), self.halted()
        last = self._last
        if last is not None and last[0] is market and last[1] is is_down and last[2] is halted:
            return last[3]
        state = ModeState.from_level(market, is_database_down=is_down, halted=halted)
        self._last = (market, is_down, halted, state)
        return state


class StoredState(Protocol):
    """Availability of the database."""

    @property
    def is_unavailable(self) -> bool: ...

    @property
    def refusal(self) -> ServiceError | None: ...


def create_current_mode(
    market: MarketLevels, database: StoredState, monotonic: Monotonic
) -> CurrentMode:
    """Creates the mode of a service over this market and this database."""

    def halted() -> Cause | None:
        refusal = database.refusal
        return None if refusal is None else halt_cause(refusal)

    return CurrentMode(
        CachedMarketLevel(market, monotonic), lambda: database.is_unavailable, halted
    )


CHECK_S: Final = 1.0
MODE: Final = "mode"  # key: the last published mode and its change id
_MOST: Final = 100  # changes waiting for the database; beyond that the oldest are dropped
_log = structlog.get_logger("mode")


@dataclass(frozen=True, slots=True)
class _ModeChange:
    id: str
    mode: Mode
    cause: str
    stale_symbols: int
    at: datetime


@dataclass(slots=True)
class ModePublisher:
    """Publishes mode changes; runs in the feed's owner only, so that one process publishes them.

    The last published mode is stored with its event, so neither a restart nor another owner repeats
    it. Without the database changes wait, each with the time of its detection. `fence` refuses
    writes of a process that lost the feed.
    """

    database: Database
    state: Callable[[], ModeState]
    fence: Callable[[UnitOfWork], Awaitable[None]]
    clock: Clock
    new_id: NewId
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _waiting: deque[_ModeChange] = field(default_factory=lambda: deque(maxlen=_MOST), init=False)
    _newest: Mode | None = field(default=None, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Checks once a second until cancelled."""
        self._newest = None  # another owner may have published one since
        while True:
            await self.check()
            beat()
            await self.sleep(CHECK_S)

    async def check(self) -> None:
        """Detects a change of the mode, and publishes waiting changes."""
        state = self.state()
        if state.mode is not self._newest:
            self._newest = state.mode
            cause = state.cause.value
            self._waiting.append(
                _ModeChange(self.new_id(), state.mode, cause, state.stale_symbols, self.clock())
            )
            _log.info("mode_changed_to", mode=state.mode.value, cause=cause)
        if not self._waiting:
            return
        try:
            await self.database.run(self._publish)
        except ServiceError as error:
            _log.warning("mode_not_published", mode=state.mode.value, cause=str(error.code))
        else:
            self._waiting.clear()

    async def _publish(self, unit: UnitOfWork) -> None:
        await self.fence(unit)
        published = await unit.get(KeyValueRepository).get(MODE)
        # Before the first data nothing was decided.
        was = Mode.FROZEN if published is None else Mode(published["mode"])
        last = None if published is None else published["id"]
        waiting = list(self._waiting)
        # The previous commit may have succeeded although it returned an error.
        known = [at for at, one in enumerate(waiting) if one.id == last]
        for one in waiting[known[0] + 1 :] if known else waiting:
            if one.mode is was:
                continue
            unit.publish_after_commit(
                ModeChanged(was.value, one.mode.value, one.cause, one.stale_symbols, one.at)
            )
            was, last = one.mode, one.id
        if last is not None:
            await unit.get(KeyValueRepository).put(MODE, {"mode": was.value, "id": last})
