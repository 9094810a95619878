"""Mode of the service, from market level and write state, and its announcement."""

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
from app.foundation.sql.facts import FactRepository
from app.market.domain.events import ModeChanged

KEEP_S: Final = 1.0  # so long the count of stale symbols serves; the rest is never kept
_RETRY_S: Final = 30.0


class Cause(StrEnum):
    """Why it is this mode: the first of these that holds."""

    DATABASE_UNAVAILABLE = "database_unavailable"
    STORAGE_FULL = "storage_full"
    DATABASE_LOCKED = "database_locked"  # by another program, beyond the time-out
    DATABASE_READ_ONLY = "database_read_only"
    MARKET_UNAVAILABLE = "market_unavailable"  # nothing is known of it yet
    MARKET_STALE = "market_stale"
    CLOCK_UNSAFE = "clock_unsafe"  # nobody knows the exchange's time well enough
    SYMBOLS_STALE = "symbols_stale"  # some of them
    ALL_FRESH = "all_fresh"


@dataclass(frozen=True, slots=True)
class MarketLevel:
    """How much of the market is known: as a whole, and how many symbols are stale in it."""

    status: DataStatus
    stale_symbols: int
    is_clock_safe: bool = True


def halted_by(refusal: ServiceError) -> Cause:
    """Why the database takes no changes, though it can be read."""
    causes = {
        Code.STORAGE_FULL: Cause.STORAGE_FULL,
        Code.DATABASE_CONTENTION: Cause.DATABASE_LOCKED,
    }
    return causes.get(refusal.code, Cause.DATABASE_READ_ONLY)


def mode_of(market: MarketLevel, *, is_database_down: bool, halted: Cause | None = None) -> Mode:
    """Without the database, the market or its time nothing is decided.

    `halted` is why the database takes no changes, though it can be read.
    """
    is_known = market.status is DataStatus.FRESH and market.is_clock_safe
    if halted is not None and not is_database_down:
        return Mode.HALTED
    if is_database_down or not is_known:
        return Mode.FROZEN
    return Mode.DEGRADED if market.stale_symbols else Mode.NORMAL


def cause_of(market: MarketLevel, *, is_database_down: bool, halted: Cause | None = None) -> Cause:
    """Why `mode_of` the same says what it says."""
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


# Why nothing is decided: the code and the sentence of a refusal.
_REFUSALS: Final[Mapping[Cause, tuple[Code, str]]] = MappingProxyType(
    {
        Cause.DATABASE_UNAVAILABLE: (
            Code.DATABASE_UNAVAILABLE,
            "The database does not answer: nothing is decided.",
        ),
        Cause.STORAGE_FULL: (
            Code.STORAGE_FULL,
            "The disk of the database is full: nothing is decided.",
        ),
        Cause.DATABASE_READ_ONLY: (
            Code.DATABASE_UNAVAILABLE,
            "The database takes no changes: nothing is decided.",
        ),
        Cause.MARKET_UNAVAILABLE: (
            Code.MARKET_DATA_STALE,
            "Nothing is known of the market yet.",
        ),
        Cause.MARKET_STALE: (
            Code.MARKET_DATA_STALE,
            "The market data is too old to decide on.",
        ),
        Cause.CLOCK_UNSAFE: (
            Code.CLOCK_UNSAFE,
            "The exchange's time is not known well enough.",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class ModeState:
    """The mode with its cause, at one moment."""

    mode: Mode
    cause: Cause
    market: MarketLevel

    @classmethod
    def of(
        cls, market: MarketLevel, *, is_database_down: bool = False, halted: Cause | None = None
    ) -> "ModeState":
        return cls(
            mode_of(market, is_database_down=is_database_down, halted=halted),
            cause_of(market, is_database_down=is_database_down, halted=halted),
            market,
        )

    @property
    def stale_symbols(self) -> int:
        return self.market.stale_symbols

    @property
    def refusal(self) -> UnavailableError | None:
        """Why nothing is decided; None while the service decides."""
        refused = _REFUSALS.get(self.cause)
        return None if refused is None else UnavailableError(*refused, retry_after_s=_RETRY_S)


class MarketLevels(Protocol):
    """What the mode asks of the market; `level_with` is cheap, `stale_symbols` counts them all."""

    def stale_symbols(self) -> int: ...

    def level_with(self, stale_symbols: int) -> MarketLevel: ...


@dataclass(slots=True)
class MarketGlance:
    """The market's level, in which only the count of stale symbols may be `KEEP_S` old."""

    market: MarketLevels
    monotonic: Monotonic
    _counted: tuple[float, int] | None = field(default=None, init=False)

    def __call__(self) -> MarketLevel:
        now = self.monotonic()
        if self._counted is None or now - self._counted[0] > KEEP_S:
            self._counted = (now, self.market.stale_symbols())
        return self.market.level_with(self._counted[1])


@dataclass(slots=True)
class ModeNow:
    """The present mode, computed here for everybody who tells it or decides by it.

    Each call reads market and database: an answer says the mode by which a decision of this
    moment is made. `is_database_down` and `halted` say what was last seen.
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
        """Mode and cause; the same object while nothing changes."""
        market, is_down, halted = self.market(), self.is_database_down(), self.halted()
        last = self._last
        if last is not None and last[0] is market and last[1] is is_down and last[2] is halted:
            return last[3]
        state = ModeState.of(market, is_database_down=is_down, halted=halted)
        self._last = (market, is_down, halted, state)
        return state


class StoredState(Protocol):
    """What the mode asks of the database."""

    @property
    def is_away(self) -> bool: ...

    @property
    def refusal(self) -> ServiceError | None: ...


def mode_over(market: MarketLevels, database: StoredState, monotonic: Monotonic) -> ModeNow:
    """The mode of a service over this market and this database."""

    def halted() -> Cause | None:
        refusal = database.refusal
        return None if refusal is None else halted_by(refusal)

    return ModeNow(MarketGlance(market, monotonic), lambda: database.is_away, halted)


LOOK_S: Final = 1.0
MODE: Final = "mode"  # the fact: which mode was told last, and with which change
_MOST: Final = 100  # changes that wait for the database; of more the oldest are not told
_log = structlog.get_logger("mode")


@dataclass(frozen=True, slots=True)
class _Seen:
    id: str
    mode: Mode
    cause: str
    stale_symbols: int
    at: datetime


@dataclass(slots=True)
class ModeWatch:
    """Only the owner of the feed looks, so that of many processes one tells.

    What was told last is stored with the event, so that neither a restart nor another owner
    repeats it. Without the database changes wait, each with the time at which it was seen.
    `fence` refuses to write for who is no longer the owner.
    """

    database: Database
    state: Callable[[], ModeState]
    fence: Callable[[UnitOfWork], Awaitable[None]]
    clock: Clock
    new_id: NewId
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _waiting: deque[_Seen] = field(default_factory=lambda: deque(maxlen=_MOST), init=False)
    _newest: Mode | None = field(default=None, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Looks once a second, for ever."""
        self._newest = None  # another owner may have told of it since
        while True:
            await self.look()
            beat()
            await self.sleep(LOOK_S)

    async def look(self) -> None:
        """Notes the present mode if it is another one, and tells what has not been told yet."""
        state = self.state()
        if state.mode is not self._newest:
            self._newest = state.mode
            cause = state.cause.value
            self._waiting.append(
                _Seen(self.new_id(), state.mode, cause, state.stale_symbols, self.clock())
            )
            _log.info("mode_seen", mode=state.mode.value, cause=cause)
        if not self._waiting:
            return
        try:
            await self.database.run(self._tell)
        except ServiceError as error:
            _log.warning("mode_not_told", mode=state.mode.value, cause=str(error.code))
        else:
            self._waiting.clear()

    async def _tell(self, unit: UnitOfWork) -> None:
        await self.fence(unit)
        told = await unit.get(FactRepository).get(MODE)
        # Before anything was known nothing was decided.
        was = Mode.FROZEN if told is None else Mode(told["mode"])
        last = None if told is None else told["id"]
        waiting = list(self._waiting)
        # The commit before may have come through although we were told that it had not.
        known = [at for at, one in enumerate(waiting) if one.id == last]
        for one in waiting[known[0] + 1 :] if known else waiting:
            if one.mode is was:
                continue
            unit.announce(
                ModeChanged(was.value, one.mode.value, one.cause, one.stale_symbols, one.at)
            )
            was, last = one.mode, one.id
        if last is not None:
            await unit.get(FactRepository).put(MODE, {"mode": was.value, "id": last})
