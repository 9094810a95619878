"""Rolling service levels: the share of looks, in an hour and in a day, at which all was well."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from app.foundation.ports import Monotonic

WINDOWS_S: Final = (3_600, 86_400)
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Level:
    """`share` is a fraction of `looks`, None before the first one."""

    name: str
    window_s: int
    share: float | None
    looks: int


@dataclass(slots=True)
class _Minute:
    begun_s: float
    looks: int = 0
    good: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class ServiceLevels:
    """Counts by the minute, so that a day takes the same room however often somebody looks."""

    monotonic: Monotonic = time.monotonic
    _names: dict[str, None] = field(default_factory=dict)  # in their order
    _minutes: deque[_Minute] = field(
        default_factory=lambda: deque(maxlen=int(WINDOWS_S[-1] / _MINUTE_S))
    )

    def note(self, **holds: bool) -> None:
        """One look: what was well and what was not."""
        now = self.monotonic()
        self._names |= dict.fromkeys(holds)
        if not self._minutes or now - self._minutes[-1].begun_s >= _MINUTE_S:
            self._minutes.append(_Minute(now))
        minute = self._minutes[-1]
        minute.looks += 1
        for name, good in holds.items():
            minute.good[name] = minute.good.get(name, 0) + good

    def levels(self) -> tuple[Level, ...]:
        """Every level over every window."""
        return tuple(self._level(name, window) for name in self._names for window in WINDOWS_S)

    def _level(self, name: str, window_s: int) -> Level:
        first = self.monotonic() - window_s
        inside = [one for one in self._minutes if one.begun_s > first]
        looks = sum(one.looks for one in inside)
        good = sum(one.good.get(name, 0) for one in inside)
        return Level(name, window_s, good / looks if looks else None, looks)
