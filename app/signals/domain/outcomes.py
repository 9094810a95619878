"""Whether a symbol beat the median of the universe over the horizon of a signal about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Final

from app.foundation.decimal_math import is_above
from app.market.domain.hourly_bars import Bar
from app.market.domain.models import Interval
from app.market.domain.panel import is_redenomination

HOUR_MS: Final = Interval.HOUR.ms
# A price stands for so many bars in which nobody traded.
REACH_MS: Final = 5 * HOUR_MS
# After so long what is missing will not come any more.
GRACE: Final = timedelta(hours=6)
LEAST_NAMES: Final = 15  # among fewer a median says little; source: QUANT section 12
LEAST_SHARE: Final = 0.8  # of the universe must have a return


@dataclass(frozen=True, slots=True)
class Window:
    """From the open of the first hourly bar after a verdict to the close of the last one."""

    starts_at: datetime
    ends_at: datetime

    @classmethod
    def after(cls, at: datetime, horizon: timedelta) -> "Window":
        """That of a verdict at `at`, in the exchange's time; whole hours, one at least."""
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
class Outcome:
    """What came of a symbol after a verdict; open until it is booked.

    A booked one without `beat` stays unknown, and `reason` says why.
    """

    window: Window
    booked_at: datetime | None = None
    beat: bool | None = None
    gain: float | None = None  # of the symbol, as a fraction
    median: float | None = None  # of the universe
    universe_size: int | None = None  # whose median it is
    reason: str | None = None

    def unknown(self, reason: str, at: datetime) -> "Outcome":
        return replace(self, booked_at=at, reason=reason)


@dataclass(frozen=True, slots=True)
class Field:
    """What the whole universe did in a window; `median` is None where too few are known."""

    gains: Mapping[str, float]  # fractions by symbol, also of symbols outside of the universe
    median: float | None
    universe_size: int  # of the universe that have a return

    @classmethod
    def of(cls, gains: Mapping[str, float], universe: Iterable[str]) -> "Field":
        members = set(universe)
        known = [gains[symbol] for symbol in sorted(members & gains.keys())]
        enough = len(known) >= LEAST_NAMES and len(known) >= LEAST_SHARE * len(members)
        return cls(gains, median(known) if enough else None, len(known))

    def decided(self, outcome: Outcome, symbol: str, at: datetime) -> Outcome | None:
        """The outcome as it is booked; None as long as its price or the median is not known.

        Who is level with the median did not beat it.
        """
        gain = self.gains.get(symbol)
        if gain is None or self.median is None:
            return None
        return replace(
            outcome, booked_at=at, beat=is_above(gain, self.median), gain=gain, median=self.median,
            universe_size=self.universe_size,
        )  # fmt: skip

    def why_unknown(self, symbol: str) -> str:
        """For people; of an outcome that is not decided."""
        if self.median is None:
            return f"only {self.universe_size} symbols have a return"
        return f"there is no price of {symbol}"


def gain_of(bars: Sequence[Bar], window: Window, *, is_over: bool) -> float | None:
    """What holding the symbol through the window brought, as a fraction.

    `bars` ascend. A bar in which nobody traded is bridged by the close before it, up to five in a
    row; a contract that is over realises its last price. None where either price is missing, and
    where the symbol was redenominated in between.
    """
    begun = _start(bars, window)
    if begun is None:
        return None
    first_ms, price = begun
    within = [bar for bar in bars if first_ms <= bar.opened_ms < window.ends_ms]
    last = within[-1]
    if any(is_redenomination(one.close, other.open) for one, other in pairwise(within)):
        return None
    is_near = window.ends_ms - (last.opened_ms + HOUR_MS) <= REACH_MS
    if not is_near and not is_over:
        return None
    return last.close / price - 1.0


def _start(bars: Sequence[Bar], window: Window) -> tuple[int, float] | None:
    """The bar and the price that it is bought at."""
    at = window.starts_ms
    for bar in bars:
        if bar.opened_ms == at:
            return at, bar.open
    before = [bar for bar in bars if at - REACH_MS <= bar.opened_ms < at]
    return (before[-1].opened_ms, before[-1].close) if before else None
