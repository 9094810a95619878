"""Counts failed authentications or attempts per address or name within a sliding minute."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

WINDOW_S: Final = 60.0
MAX_FAILURES: Final = 10  # within the window; one more blocks further attempts
MAX_SITES: Final = 10_000  # addresses in memory; the one that failed longest ago is dropped


@dataclass(slots=True)
class FailureCounter:
    """Failures by address; all times are monotonic seconds. One more than `max_failures` blocks."""

    max_failures: int = MAX_FAILURES
    _times: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._times)

    def add(self, site: str, now_s: float) -> None:
        """Counts one failure."""
        times = self._times.setdefault(site, deque(maxlen=self.max_failures + 1))
        times.append(now_s)
        self._times.move_to_end(site)
        if len(self._times) > MAX_SITES:
            self._times.popitem(last=False)

    def blocked_s(self, site: str, now_s: float) -> float | None:
        """Seconds until the address counts as unblocked; None while it is not blocked."""
        times = self._times.get(site)
        if times is None or len(times) <= self.max_failures:
            return None
        remaining_s = times[0] + WINDOW_S - now_s
        return remaining_s if remaining_s > 0 else None
