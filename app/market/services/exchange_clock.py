"""The exchange's clock, carried forward on our monotonic one."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median_low
from typing import Final

from app.foundation.ports import Clock, Monotonic
from app.market.services.ports import Exchange

SAMPLES: Final = 5  # of the exchange's clock; their median counts
MAX_DOUBT_S: Final = 1.0  # an answer took more than two seconds: nothing is decided by it
STEP_S: Final = 5.0  # our two clocks part by more only where one was set, or stood still
_DRIFT_MS: Final = 100.0  # two clocks may part by so much between two samples


@dataclass(frozen=True, slots=True)
class _Anchor:
    server_ms: float
    mono: float
    doubt_s: float  # by so much it may be wrong: nobody knows where on the way time was read

    @property
    def zero_ms(self) -> float:
        """Exchange time when our monotonic clock was at zero."""
        return self.server_ms - self.mono * 1000.0

    def agrees(self, other: "_Anchor") -> bool:
        """Whether both can be right; if not, one of the clocks was set."""
        doubt_ms = (self.doubt_s + other.doubt_s) * 1000.0
        return abs(self.zero_ms - other.zero_ms) <= doubt_ms + _DRIFT_MS


@dataclass(slots=True)
class ServerClock:
    """Exchange time decides what is closed and what `as_of` says; a step of our clock does not.

    The median of the last samples counts, so that one slow answer moves nothing; samples that the
    newest one contradicts are from before the exchange's clock was set. Before the first answer it
    is our own clock.

    While a machine sleeps its monotonic clock may stand still. A wall clock that has run ahead of
    it was set, or we slept: until the exchange has said which of them its time is in doubt.
    """

    exchange: Exchange
    clock: Clock
    monotonic: Monotonic
    _anchor: _Anchor | None = field(default=None)
    _samples: tuple[_Anchor, ...] = field(default=(), init=False)
    _ahead_s: float = field(default=0.0, init=False)  # wall before monotonic, when last asked
    _missed_s: float = field(default=0.0, init=False)

    async def sync(self) -> None:
        """Ask the exchange for its time, again at once while that is not known well enough."""
        for _ in range(SAMPLES):
            await self._ask()
            if self.is_safe:
                return

    async def _ask(self) -> None:
        """Half of the way there and back is taken off."""
        sent = self.monotonic()
        server_ms = await self.exchange.server_time_ms()
        received = self.monotonic()
        half_s = (received - sent) / 2.0
        newest = _Anchor(server_ms + half_s * 1000.0, received, half_s)
        self._note(newest)
        agreed = [one for one in self._samples if one.agrees(newest)]
        self._samples = (*agreed, newest)[-SAMPLES:]
        middle = median_low(one.zero_ms for one in self._samples)
        self._anchor = next(one for one in self._samples if one.zero_ms == middle)

    def _note(self, newest: _Anchor) -> None:
        """Time of the exchange that passed without us; our wall clock is believed from here on."""
        if self._anchor is not None and not newest.agrees(self._anchor):
            gap_s = (newest.zero_ms - self._anchor.zero_ms) / 1000.0
            self._missed_s += gap_s if gap_s > STEP_S else 0.0
        self._ahead_s = self._now_ahead_s

    def missed_s(self) -> float:
        """Seconds that passed at the exchange and not here, since this was last asked."""
        missed, self._missed_s = self._missed_s, 0.0
        return missed

    @property
    def _now_ahead_s(self) -> float:
        return self.clock().timestamp() - self.monotonic()

    @property
    def stepped_s(self) -> float:
        """By how much our wall clock has run ahead since the exchange was asked; 0 for a trifle."""
        if self._anchor is None:
            return 0.0
        step_s = self.clock().timestamp() - self.monotonic() - self._ahead_s
        return step_s if step_s > STEP_S else 0.0

    def carry(self, server_ms: float, mono: float, doubt_s: float) -> None:
        """Takes over what another process heard: exchange time at our monotonic time `mono`."""
        self._anchor = _Anchor(server_ms, mono, doubt_s)
        self._ahead_s = self._now_ahead_s

    @property
    def doubt_s(self) -> float:
        """By so much it may be wrong; nothing is said of our own clock before the first answer."""
        return 0.0 if self._anchor is None else self._anchor.doubt_s + self.stepped_s

    @property
    def is_safe(self) -> bool:
        """Whether the exchange's time is known, and well enough to decide by."""
        return self._anchor is not None and self.doubt_s <= MAX_DOUBT_S

    @property
    def synced(self) -> bool:
        return self._anchor is not None

    def now_ms(self) -> int:
        """Exchange time now, epoch milliseconds."""
        if self._anchor is None:
            return int(self.clock().timestamp() * 1000)
        return int(self._anchor.server_ms + (self.monotonic() - self._anchor.mono) * 1000.0)

    def now(self) -> datetime:
        """Exchange time now, aware."""
        return instant(self.now_ms())

    def offset_s(self) -> float:
        """Exchange clock minus ours."""
        return self.now_ms() / 1000.0 - self.clock().timestamp()

    def certain_offset_s(self) -> float | None:
        """How far the clocks are apart at least, without sign; None before the first answer."""
        if self._anchor is None:
            return None
        return max(0.0, abs(self.offset_s()) - self.doubt_s)


def instant(stamp_ms: int) -> datetime:
    """Epoch milliseconds as an aware time."""
    return datetime.fromtimestamp(stamp_ms / 1000, UTC)
