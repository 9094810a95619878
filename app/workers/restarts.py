"""How often a task may fail by an error that nobody foresaw before it is left alone for a while."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

CRASHES: Final = 5  # are begun again at once
WINDOW: Final = timedelta(minutes=1)
REST_S: Final = 300.0


@dataclass(slots=True)
class Restarts:
    """The budget of one task; outages do not count, for they end by themselves."""

    failed_until: datetime | None = None  # it is not begun again before that
    crashes: int = 0  # that made it count as failed, and those since
    _recent: deque[datetime] = field(default_factory=deque)

    def crashed(self, at: datetime, pause_s: float) -> float:
        """Seconds until it is begun again: `pause_s`, or many where the budget is spent."""
        self._recent.append(at)
        while self._recent[0] <= at - WINDOW:
            self._recent.popleft()
        if len(self._recent) <= CRASHES and self.failed_until is None:
            return pause_s
        self.crashes = max(self.crashes + 1, len(self._recent))
        self.failed_until = at + timedelta(seconds=REST_S)
        return REST_S

    def ran(self, at: datetime) -> None:
        """It gave a sign of life; a minute after its rest that is believed."""
        if self.failed_until is not None and at >= self.failed_until + WINDOW:
            self.failed_until, self.crashes = None, 0
