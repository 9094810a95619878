"""The mode of the service: the one value that answers, health and every decision go by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.mode import Mode
from app.foundation.ports import Monotonic

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
    stale_symbols: int

    @classmethod
    def of(
        cls, market: MarketLevel, *, is_database_down: bool = False, halted: Cause | None = None
    ) -> "ModeState":
        return cls(
            mode_of(market, is_database_down=is_database_down, halted=halted),
            cause_of(market, is_database_down=is_database_down, halted=halted),
            market.stale_symbols,
        )

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


@dataclass(frozen=True, slots=True)
class ModeNow:
    """The present mode, computed here for everybody who tells it or decides by it.

    Nothing is kept: an answer says the mode by which a decision of this moment is made.
    `is_database_down` and `halted` say what was last seen.
    """

    market: Callable[[], MarketLevel]
    is_database_down: Callable[[], bool] = lambda: False
    halted: Callable[[], Cause | None] = lambda: None

    def __call__(self) -> Mode:
        return self.state().mode

    def state(self) -> ModeState:
        return ModeState.of(
            self.market(), is_database_down=self.is_database_down(), halted=self.halted()
        )


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
