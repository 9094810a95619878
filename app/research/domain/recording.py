"""A tape of the exchange's own words: its clock, what was done with them, and the boards of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.configuration.domain.model import IntervalSettings

RETRY_S: Final = 5.0  # after a first fill that did not come to its end
LOOK_S: Final = 1.0


class TapeError(Exception):
    """The tape cannot be used: it is none, of another version, or tells another story."""


class EndOfTapeError(TapeError):
    """There is nothing more on it."""


class Step(StrEnum):
    """What is done with the market; one after the other, never two at once."""

    FILL = "first_fill"
    CATCH_UP = "catch_up"  # what a new connection has missed; when one asks for it
    LOOK = "look"  # at the stream: what is wanted of it, and who may be deaf
    MARKET = "market"
    CANDLES = "candles"
    BOOKS = "books"
    FUNDING = "funding"
    SCORING = "scoring"


@dataclass(slots=True)
class TapeClock:
    """Time as the tape tells it: it stands still between two entries and never goes back.

    `started` is the wall clock at the monotonic second `zero`; a step of the wall clock while the
    tape runs is not on it.
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
class BoardLine:
    """One board by its fingerprints: equal inputs, equal scores, equal hashes."""

    number: int  # from 1
    as_of: datetime  # exchange time
    scored: int
    unavailable: int
    quarantined: tuple[str, ...]  # symbols whose prices are not believed
    input_hash: str
    board_hash: str


@dataclass(slots=True)
class Schedule:
    """What is due when; of several that are due the first one in the order of `Step`.

    Until the first fill has come to its end nothing else is done.
    """

    intervals: IntervalSettings
    board_every_s: float | None = None  # None: the cadence of scoring
    is_streaming: bool = False  # else the market is only ever asked
    is_filled: bool = field(default=False, init=False)
    _last: dict[Step, float] = field(default_factory=dict, init=False)

    def due(self, now: float) -> tuple[Step, float]:
        """The next step, and the monotonic second from which on it is due."""
        if not self.is_filled:
            last = self._last.get(Step.FILL)
            return Step.FILL, now if last is None else last + RETRY_S
        every = self._every()
        found = {step: self._last.get(step, now - every[step]) + every[step] for step in every}
        for step, at in found.items():
            if at <= now:
                return step, at
        return min(found.items(), key=lambda pair: pair[1])

    def began(self, step: Step, at: float) -> None:
        self._last[step] = at

    def filled(self, at: float) -> None:
        """All of it has just been asked for; due are the first board and the stream."""
        self.is_filled = True
        done = self._every().keys() - {Step.SCORING, Step.LOOK}
        self._last |= dict.fromkeys(done, at)

    def _every(self) -> Mapping[Step, float]:
        intervals = self.intervals
        looks = {Step.LOOK: LOOK_S} if self.is_streaming else {}
        return looks | {
            Step.MARKET: intervals.market_s,
            Step.CANDLES: intervals.candle_check_s,
            Step.BOOKS: intervals.order_book_check_s,
            Step.FUNDING: intervals.funding_s,
            Step.SCORING: self.board_every_s or intervals.scoring_s,
        }
