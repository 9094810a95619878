"""Exchange clock, extrapolated with the monotonic clock of this process."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median_low
from typing import Final

from app.foundation.ports import Clock, Monotonic
from app.market.services.ports import Exchange

SAMPLES: Final = 5  # of the exchange's clock; their median counts
MAX_UNCERTAINTY_S: Final = 1.0  # an answer took two seconds; a larger error allows no decision
STEP_S: Final = 5.0  # a larger drift of our clocks means that one was set or stood still
_DRIFT_MS: Final = 100.0  # allowed drift between two samples


@dataclass(frozen=True, slots=True)
class _Anchor:
    server_ms: float
    mono: float
    uncertainty_s: (
        float  # largest error: the moment of the reading within the round trip is unknown
    )

    @property
    def zero_ms(self) -> float:
        """Exchange time at the zero of our monotonic clock."""
        return self.server_ms - self.mono * 1000.0

    def agrees(self, other: "_Anchor") -> bool:
        """True if both can be right; if not, one of the clocks was set."""
        uncertainty_ms = (self.uncertainty_s + other.uncertainty_s) * 1000.0
        return abs(self.zero_ms - other.zero_ms) <= uncertainty_ms + _DRIFT_MS


@dataclass(slots=True)
class ServerClock:
    """Exchange time, which decides what is closed and sets `as_of`, whatever our wall clock does.

    The median of the last samples counts, so one slow answer changes nothing. Samples that
    contradict the newest one precede a change of the exchange's clock and are dropped. Before the
    first answer our own clock is used.

    The monotonic clock may stand still while a machine sleeps. A wall clock that has run ahead of
    it was set, or the machine slept: the time is uncertain until the next answer.
    """

    exchange: Exchange
    clock: Clock
    monotonic: Monotonic
    _anchor: _Anchor | None = field(default=None)
    _samples: tuple[_Anchor, ...] = field(default=(), init=False)
    _ahead_s: float = field(
        default=0.0, init=False
    )  # wall minus monotonic clock at the last answer
    _missed_s: float = field(default=0.0, init=False)

    async def sync(self) -> None:
        """Requests the exchange's time, up to `SAMPLES` times until it is safe."""
        for _ in range(SAMPLES):
            await self._take_sample()
            if self.is_safe:
                return

    async def _take_sample(self) -> None:
        """Takes one sample; half of the round trip is subtracted."""
        sent = self.monotonic()
        server_ms = await self.exchange.server_time_ms()
        received = self.monotonic()
        half_s = (received - sent) / 2.0
        newest = _Anchor(server_ms + half_s * 1000.0, received, half_s)
        self._update_reference(newest)
        agreed = [one for one in self._samples if one.agrees(newest)]
        self._samples = (*agreed, newest)[-SAMPLES:]
        middle = median_low(one.zero_ms for one in self._samples)
        self._anchor = next(one for one in self._samples if one.zero_ms == middle)

    def _update_reference(self, newest: _Anchor) -> None:
        """Adds time that passed only at the exchange, and resets our wall clock's reference."""
        if self._anchor is not None and not newest.agrees(self._anchor):
            gap_s = (newest.zero_ms - self._anchor.zero_ms) / 1000.0
            self._missed_s += gap_s if gap_s > STEP_S else 0.0
        self._ahead_s = self._now_ahead_s

    def take_missed_s(self) -> float:
        """Returns the seconds that passed only at the exchange since the last call."""
        missed, self._missed_s = self._missed_s, 0.0
        return missed

    @property
    def _now_ahead_s(self) -> float:
        return self.clock().timestamp() - self.monotonic()

    @property
    def wall_step_s(self) -> float:
        """Seconds by which our wall clock has run ahead since the last answer; 0 up to `STEP_S`."""
        if self._anchor is None:
            return 0.0
        step_s = self.clock().timestamp() - self.monotonic() - self._ahead_s
        return step_s if step_s > STEP_S else 0.0

    def adopt_sample(self, server_ms: float, mono: float, uncertainty_s: float) -> None:
        """Takes over another process's sample: exchange time at our monotonic time."""
        self._anchor = _Anchor(server_ms, mono, uncertainty_s)
        self._ahead_s = self._now_ahead_s

    @property
    def uncertainty_s(self) -> float:
        """Largest error in seconds; 0 for our own clock before the first answer."""
        return 0.0 if self._anchor is None else self._anchor.uncertainty_s + self.wall_step_s

    @property
    def is_safe(self) -> bool:
        """True if the exchange's time is certain enough for decisions."""
        return self._anchor is not None and self.uncertainty_s <= MAX_UNCERTAINTY_S

    @property
    def synced(self) -> bool:
        return self._anchor is not None

    def now_ms(self) -> int:
        """Returns the exchange's time, epoch milliseconds."""
        if self._anchor is None:
            return int(self.clock().timestamp() * 1000)
        return int(self._anchor.server_ms + (self.monotonic() - self._anchor.mono) * 1000.0)

    def now(self) -> datetime:
        """Returns the exchange's time, aware."""
        return instant(self.now_ms())

    def no_earlier(self, wall: datetime) -> datetime:
        """Returns `wall`, or the exchange's time if that is surely more than `STEP_S` later.

        A stored time of a wall clock that is behind would look older once the clock is right.
        """
        now = self.now()
        is_behind = self.synced and (now - wall).total_seconds() - self.uncertainty_s > STEP_S
        return now if is_behind else wall

    def offset_s(self) -> float:
        """Returns the exchange's clock minus ours."""
        return self.now_ms() / 1000.0 - self.clock().timestamp()

    def min_offset_s(self) -> float | None:
        """Returns the smallest possible clock difference, unsigned; None before an answer."""
        if self._anchor is None:
            return None
        return max(0.0, abs(self.offset_s()) - self.uncertainty_s)


def instant(stamp_ms: int) -> datetime:
    """Converts epoch milliseconds to an aware time."""
    return datetime.fromtimestamp(stamp_ms / 1000, UTC)
