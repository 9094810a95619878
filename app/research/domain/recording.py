"""Recording of a session with the exchange: clock, steps, schedule and board fingerprints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.configuration.domain.model import IntervalSettings

RETRY_S: Final = 5.0  # after a failed first fill
STREAM_CHECK_S: Final = 1.0


class RecordingError(Exception):
    """The recording is invalid, of another version, or does not match the replay."""


class EndOfRecordingError(RecordingError):
    """The recording has no further entry."""


class SessionStep(StrEnum):
    """Step of a session; steps run one after the other."""

    FILL = "first_fill"
    CATCH_UP = "catch_up"  # loads updates missed by a new connection, on its request
    LOOK = "look"  # checks the stream: wanted topics and stale ones
    MARKET = "market"
    CANDLES = "candles"
    BOOKS = "books"
    FUNDING = "funding"
    SCORING = "scoring"


@dataclass(slots=True)
class RecordingClock:
    """Clock of a recording: it advances with the entries only and never goes back.

    `started` is the wall clock at the monotonic second `zero`; adjustments of the wall clock
    during the session are not recorded.
    """

    started: datetime
    zero: float
    mono: float

    def move(self, mono: float) -> None:
        self.mono = max(self.mono, mono)

    def monotonic(self) -> float:
        return self.mono

    def now(self) -> datetime:
        return self.started + timedelta(seconds=self.mono - self.zero)


@dataclass(frozen=True, slots=True)
class BoardFingerprint:
    """Hashes and counts of one board: equal inputs and scores give equal fingerprints."""

    number: int  # from 1
    as_of: datetime  # exchange time
    scored: int
    unavailable: int
    quarantined: tuple[str, ...]  # symbols with quarantined prices
    input_hash: str
    board_hash: str


@dataclass(slots=True)
class Schedule:
    """Schedule of a session; of several due steps the first in the order of `SessionStep` runs.

    No other step runs before the first fill has succeeded.
    """

    intervals: IntervalSettings
    board_interval_s: float | None = None  # None: the scoring interval
    is_streaming: bool = False  # False: polling only
    is_filled: bool = field(default=False, init=False)
    _last: dict[SessionStep, float] = field(default_factory=dict, init=False)

    def next_due(self, now: float) -> tuple[SessionStep, float]:
        """Returns the next step and the monotonic second at which it is due."""
        if not self.is_filled:
            last = self._last.get(SessionStep.FILL)
            return SessionStep.FILL, now if last is None else last + RETRY_S
        intervals = self._intervals()
        due = {
            step: self._last.get(step, now - interval) + interval
            for step, interval in intervals.items()
        }
        for step, at in due.items():
            if at <= now:
                return step, at
        return min(due.items(), key=lambda pair: pair[1])

    def start_step(self, step: SessionStep, at: float) -> None:
        self._last[step] = at

    def finish_fill(self, at: float) -> None:
        """Marks all data as requested at `at`; the first board and the stream check are due."""
        self.is_filled = True
        done = self._intervals().keys() - {SessionStep.SCORING, SessionStep.LOOK}
        self._last |= dict.fromkeys(done, at)

    def _intervals(self) -> Mapping[SessionStep, float]:
        intervals = self.intervals
        checks = {SessionStep.LOOK: STREAM_CHECK_S} if self.is_streaming else {}
        return checks | {
            SessionStep.MARKET: intervals.market_s,
            SessionStep.CANDLES: intervals.candle_check_s,
            SessionStep.BOOKS: intervals.order_book_check_s,
            SessionStep.FUNDING: intervals.funding_s,
            SessionStep.SCORING: self.board_interval_s or intervals.scoring_s,
        }
