"""Outcome of a signal: return of the symbol against the median of the universe."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Final

from app.foundation.decimal_math import is_above
from app.market.domain.models import Bar, Interval
from app.market.domain.segments import is_redenomination

HOUR_MS: Final = Interval.HOUR.ms
# Maximum time that a price is carried over bars without trades.
MAX_CARRY_MS: Final = 5 * HOUR_MS
# Data still missing after this time is final.
GRACE: Final = timedelta(hours=6)
MIN_SYMBOLS: Final = 15  # smallest universe with a meaningful median; source: QUANT section 12
MIN_SHARE: Final = 0.8  # share of the universe with a known return


@dataclass(frozen=True, slots=True)
class OutcomeWindow:
    """From the open of the first hourly bar after a verdict to the close of the last one."""

    starts_at: datetime
    ends_at: datetime

    @classmethod
    def after(cls, at: datetime, horizon: timedelta) -> "OutcomeWindow":
        """Window of a verdict at `at`, in exchange time; whole hours, at least one."""
        hours = -(-round(at.timestamp() * 1000) // HOUR_MS)
        starts = datetime.fromtimestamp(hours * HOUR_MS / 1000, UTC)
        return cls(starts, starts + timedelta(hours=max(1, round(horizon / timedelta(hours=1)))))

    @property
    def starts_ms(self) -> int:
        return int(self.starts_at.timestamp()) * 1000

    @property
    def ends_ms(self) -> int:
        return int(self.ends_at.timestamp()) * 1000


@dataclass(frozen=True, slots=True)
class SignalOutcome:
    """Outcome of a symbol after a verdict; open until it is recorded.

    A recorded outcome without `outperformed` is unknown, with a `reason`.
    """

    window: OutcomeWindow
    booked_at: datetime | None = None
    outperformed: bool | None = None
    gain: float | None = None  # return of the symbol, as a fraction
    median: float | None = None  # median return of the universe
    universe_size: int | None = None  # number of symbols in the median
    reason: str | None = None

    def as_unknown(self, reason: str, at: datetime) -> "SignalOutcome":
        return replace(self, booked_at=at, reason=reason)


@dataclass(frozen=True, slots=True)
class UniverseReturns:
    """Returns of the universe in a window; `median` is None where too few are known."""

    gains: Mapping[str, float]  # fractions by symbol, also of symbols outside the universe
    median: float | None
    universe_size: int  # symbols of the universe with a return

    @classmethod
    def of(cls, gains: Mapping[str, float], universe: Iterable[str]) -> "UniverseReturns":
        members = set(universe)
        known = [gains[symbol] for symbol in sorted(members & gains.keys())]
        enough = len(known) >= MIN_SYMBOLS and len(known) >= MIN_SHARE * len(members)
        return cls(gains, median(known) if enough else None, len(known))

    def decide(self, outcome: SignalOutcome, symbol: str, at: datetime) -> SignalOutcome | None:
        """Returns the final outcome; None while its price or the median is unknown.

        A return equal to the median is no outperformance.
        """
        gain = self.gains.get(symbol)
        if gain is None or self.median is None:
            return None
        return replace(
            outcome,
            booked_at=at,
            outperformed=is_above(gain, self.median),
            gain=gain,
            median=self.median,
            universe_size=self.universe_size,
        )

    def unknown_reason(self, symbol: str) -> str:
        """Returns the readable reason of an undecided outcome."""
        if self.median is None:
            return f"only {self.universe_size} symbols have a return"
        return f"there is no price of {symbol}"


def window_return(bars: Sequence[Bar], window: OutcomeWindow, *, is_delisted: bool) -> float | None:
    """Computes the return of holding the symbol through the window, as a fraction.

    `bars` ascend. A close is carried over bars without trades, up to five in a row; a delisted
    contract realises its last price. None where either price is missing, and across a
    redenomination, also one inside a bar: no market moves by a power of ten within an hour.
    """
    entry = _entry_price(bars, window)
    if entry is None:
        return None
    first_ms, price = entry
    within = [bar for bar in bars if first_ms <= bar.opened_ms < window.ends_ms]
    last = within[-1]
    if any(is_redenomination(one.close, other.open) for one, other in pairwise(within)):
        return None
    is_carried = first_ms < window.starts_ms  # the price is the close of the first bar
    if any(is_redenomination(one.open, one.close) for one in within[is_carried:]):
        return None
    is_near = window.ends_ms - (last.opened_ms + HOUR_MS) <= MAX_CARRY_MS
    if not is_near and not is_delisted:
        return None
    return last.close / price - 1.0


def _entry_price(bars: Sequence[Bar], window: OutcomeWindow) -> tuple[int, float] | None:
    """First bar of the window and its purchase price."""
    at = window.starts_ms
    for bar in bars:
        if bar.opened_ms == at:
            return at, bar.open
    before = [bar for bar in bars if at - MAX_CARRY_MS <= bar.opened_ms < at]
    return (before[-1].opened_ms, before[-1].close) if before else None
