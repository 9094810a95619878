"""The mode of the service: what it still decides; cheap enough to be told with every answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.domain.market import DataStatus
from app.services.ports import Monotonic

KEEP_S: Final = 1.0  # who is stale is not counted anew for every answer


class Mode(StrEnum):
    """NORMAL decides; DEGRADED decides without the stale symbols; FROZEN only reads.

    HALTED only reads, too, until somebody has made room or the database writable again.
    """

    NORMAL = "NORMAL"
    DEGRADED = "DEGRADED"
    FROZEN = "FROZEN"
    HALTED = "HALTED"


class Cause(StrEnum):
    """Why it is this mode: the first of these that holds."""

    DATABASE_UNAVAILABLE = "database_unavailable"
    STORAGE_FULL = "storage_full"
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


@dataclass(slots=True)
class ModeNow:
    """The present mode, at most `KEEP_S` old. `is_database_down` says what was last seen."""

    market: Callable[[], MarketLevel]
    is_database_down: Callable[[], bool]
    monotonic: Monotonic
    halted: Callable[[], Cause | None] = lambda: None
    _told: tuple[float, Mode] | None = field(default=None, init=False)

    def __call__(self) -> Mode:
        now = self.monotonic()
        if self._told is None or now - self._told[0] > KEEP_S:
            mode = mode_of(
                self.market(), is_database_down=self.is_database_down(), halted=self.halted()
            )
            self._told = (now, mode)
        return self._told[1]
