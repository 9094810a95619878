"""Limits restarts of a task after unforeseen errors, with a cool-down."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

CRASHES: Final = 5  # are begun again at once
WINDOW_S: Final = 60.0
COOLDOWN_S: Final = 300.0


@dataclass(slots=True)
class RestartLimiter:
    """Restart budget of one task; outages do not count, for they end by themselves.

    All times are monotonic: a step of the wall clock neither spends nor lengthens anything.
    """

    failed_until_s: float | None = None  # it is not begun again before that
    crashes: int = 0  # that made it count as failed, and those since
    _recent: deque[float] = field(default_factory=deque)

    def crashed(self, at_s: float, pause_s: float) -> float:
        """Seconds until it is begun again: `pause_s`, or many where the budget is spent."""
        self._recent.append(at_s)
        while self._recent[0] <= at_s - WINDOW_S:
            self._recent.popleft()
        if len(self._recent) <= CRASHES and self.failed_until_s is None:
            return pause_s
        self.crashes = max(self.crashes + 1, len(self._recent))
        self.failed_until_s = at_s + COOLDOWN_S
        return COOLDOWN_S

    def ran(self, at_s: float) -> None:
        """It gave a sign of life; a minute after its rest that is believed."""
        if self.failed_until_s is not None and at_s >= self.failed_until_s + WINDOW_S:
            self.failed_until_s, self.crashes = None, 0
