"""Bursts of failed authentications: many within a minute, from one address or in all."""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from app.foundation.hash_chain import instant_text

WINDOW_S: Final = 60.0
REPORT_S: Final = 60.0  # a burst that goes on is reported again after this time
HOLD: Final = timedelta(minutes=15)  # after its last report a burst is over
EVERY_ADDRESS: Final = "all"  # subject of a burst from many addresses
UNKNOWN_ADDRESS: Final = "unknown"
MAX_ADDRESSES: Final = 10_000  # in memory; the one that failed longest ago is dropped
MAX_SUBJECTS: Final = 20  # reported within REPORT_S; further addresses are EVERY_ADDRESS


@dataclass(frozen=True, slots=True)
class Burst:
    """More than the limit of failures within a minute; `subject` is an address, or all."""

    subject: str
    failures: int
    occurred_at: datetime

    def fact(self) -> dict[str, Any]:
        return {"failures": self.failures, "at": instant_text(self.occurred_at)}


def read_bursts(stored: Mapping[str, Any] | None) -> tuple[Burst, ...]:
    """Bursts of the stored fact, by subject."""
    return tuple(
        Burst(subject, fact["failures"], datetime.fromisoformat(fact["at"]))
        for subject, fact in sorted((stored or {}).items())
    )


def merge_bursts(
    stored: Mapping[str, Any] | None, more: Iterable[Burst], now: datetime
) -> dict[str, Any]:
    """The fact with further bursts, without those that are over."""
    present = [one for one in read_bursts(stored) if now - one.occurred_at < HOLD]
    return {one.subject: one.fact() for one in (*present, *more)}


@dataclass(slots=True)
class BurstDetector:
    """Counts failures within a sliding minute; all times are monotonic seconds.

    Failures of an address with a burst of its own do not count for EVERY_ADDRESS.
    """

    _times: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict, init=False)
    _rest: deque[tuple[float, str]] = field(default_factory=deque, init=False)
    _reported: dict[str, float] = field(default_factory=dict, init=False)  # by subject

    def add(self, address: str, now_s: float, limit: float) -> tuple[str, int] | None:
        """Counts one failure; returns subject and number of failures of a burst to report.

        A burst has more failures within a minute than `limit`.
        """
        needed = max(1, math.floor(limit) + 1)
        times = self._times.setdefault(address, deque())
        self._times.move_to_end(address)
        times.append(now_s)
        while len(times) > needed:
            times.popleft()
        if len(self._times) > MAX_ADDRESSES:
            self._times.popitem(last=False)
        if len(times) == needed and now_s - times[0] < WINDOW_S:
            self._rest = deque(one for one in self._rest if one[1] != address)
            return self._report(address, needed, now_s)
        self._rest.append((now_s, address))
        while len(self._rest) > needed:
            self._rest.popleft()
        if len(self._rest) == needed and now_s - self._rest[0][0] < WINDOW_S:
            return self._report(EVERY_ADDRESS, needed, now_s)
        return None

    def _report(self, subject: str, failures: int, now_s: float) -> tuple[str, int] | None:
        due = {one: at_s for one, at_s in self._reported.items() if now_s - at_s < REPORT_S}
        self._reported = due
        if subject not in due and len(due) >= MAX_SUBJECTS:
            subject = EVERY_ADDRESS
        if subject in due:
            return None
        due[subject] = now_s
        return subject, failures
