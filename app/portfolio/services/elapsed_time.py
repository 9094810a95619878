"""Measures the time since stored stamps, whatever happens to the wall clock meanwhile."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.foundation.ports import Monotonic

# A stamp and the moment of the decision -> proven time between them.
Elapsed = Callable[[datetime, datetime], timedelta]

AGREEMENT: Final = timedelta(seconds=5)  # two clocks that are closer to one another agree
CAPACITY: Final = 4_096  # stamps; far more than pauses, members and seats at one time
_ZERO: Final = timedelta(0)


@dataclass(slots=True)
class ElapsedTime:
    """Time since a stored stamp: at first sight what both clocks prove, from then on monotonic.

    At first sight the earlier of the wall clock and the exchange's clock counts, so that one of
    them may run ahead. Later the monotonic clock counts, so that a step of either changes nothing.
    A stamp in the future was made by a wrong clock: its time begins at first sight. Before the
    exchange has said its time nothing is proven.
    """

    monotonic: Monotonic
    exchange: Callable[[], datetime | None]  # its time now; None before its first answer
    _seen: OrderedDict[datetime, tuple[timedelta, float]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    def since(self, stamp: datetime, at: datetime) -> timedelta:
        """Proven time from `stamp` to `at`, the wall time of the decision; never negative."""
        exchange, mono = self.exchange(), self.monotonic()
        if exchange is None:
            return _ZERO
        now = at if abs(at - exchange) <= AGREEMENT else min(at, exchange)
        by_clocks = max(_ZERO, now - stamp)
        first, seen = self._seen.setdefault(stamp, (by_clocks, mono))
        self._seen.move_to_end(stamp)
        if len(self._seen) > CAPACITY:
            self._seen.popitem(last=False)
        by_monotonic = first + timedelta(seconds=mono - seen)
        # Where they agree the stamp is exact, and every process comes to the same figure.
        return by_clocks if abs(by_clocks - by_monotonic) <= AGREEMENT else by_monotonic


def elapsed_by_wall(stamp: datetime, at: datetime) -> timedelta:
    """Time by the stamps alone, for compositions without an exchange."""
    return at - stamp
