"""What reads from memory rest on: told apart at once, so that an answer can be given again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Flag, auto
from typing import Final, Protocol

from app.foundation.data_status import DataStatus
from app.foundation.ports import Clock, Monotonic
from app.foundation.sql.database import Database
from app.market.services.service import MarketData
from app.market.services.service_mode import MarketLevel
from app.portfolio.services.state_cache import Memory
from app.scoring.domain.board import Board

# What only the clock changes is seen so much later: ages, books that grow old, ends of locks.
KEEP_S: Final = 0.25
# For so long nobody looks again whether something has grown too old while nothing has changed.
YOUNG_S: Final = 0.02


class Rests(Flag):
    """What an answer is made of besides scores, settings and names, which all of them may be."""

    SCORES = 0
    COMMITTED = auto()
    QUOTES = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Stand:
    """All that answers are made of, at one moment."""

    committed: object | None  # None where the database has to be asked
    quotes: object  # replaced many times a second: an answer without them lasts longer
    things: tuple[object, ...]  # they never change: the same only if one object
    verdicts: tuple[object, ...]  # on ages, as they are now: the same if they are equal
    at: datetime
    mono: float  # seconds

    def serves(self, now: "Stand", rests_on: Rests) -> bool:
        """Whether what was answered then, out of what it `rests_on`, can be said now."""
        return (
            (Rests.COMMITTED not in rests_on or self._is_of(now.committed))
            and (Rests.QUOTES not in rests_on or self.quotes is now.quotes)
            and 0.0 <= now.mono - self.mono <= KEEP_S
            and timedelta(0) <= now.at - self.at <= timedelta(seconds=KEEP_S)
            and all(one is two for one, two in zip(self.things, now.things, strict=True))
            and self.verdicts == now.verdicts
        )

    def is_of(self, known: object | None, quotes: object, things: tuple[object, ...]) -> bool:
        """Whether it is made of just these."""
        same = all(one is two for one, two in zip(self.things, things, strict=True))
        return same and self.committed is known and self.quotes is quotes

    def _is_of(self, committed: object | None) -> bool:
        return committed is not None and self.committed is committed


class MarketStand(Protocol):
    """The market in memory, replaced as a whole whenever it changes."""

    def quotes(self) -> object:
        """One immutable value."""
        ...

    def things(self) -> tuple[object, ...]:
        """The others that what is said of the market is made of: immutable, always as many."""
        ...

    def level(self) -> MarketLevel: ...


@dataclass(frozen=True, slots=True)
class MarketThings:
    """Those of the market of this process, whoever fills it."""

    market: MarketData

    def quotes(self) -> object:
        return self.market.live.market

    def things(self) -> tuple[object, ...]:
        known = self.market.registry
        return (
            known.known,
            known.sectors,
            self.market.configuration(),
            self.market.trading,
        )

    def level(self) -> MarketLevel:
        return self.market.level()


class BoardStand(Protocol):
    """The scores in memory."""

    def own_status_of(self, board: Board) -> DataStatus:
        """By its age alone: how the market is, stands beside it in a Stand."""
        ...

    def latest(self) -> Board | None: ...

    def in_force(self) -> Board | None: ...

    def is_whole(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Takes the present stand; what is committed is in it, by whichever process."""

    database: Database
    memory: Memory
    market: MarketStand
    boards: BoardStand
    clock: Clock
    monotonic: Monotonic
    mode: Callable[[], object] = lambda: None
    _last: list[Stand] = field(default_factory=list, init=False)  # at most one

    def now(self) -> Stand:
        """Without waiting. Raises UnavailableError once the database is closed."""
        return self._of(self.memory.known(self.database))

    async def asked(self) -> Stand:
        """The same, having asked. Raises UnavailableError."""
        return self._of(await self.memory.newest(self.database))

    def _of(self, known: object | None) -> Stand:
        board, quotes, mono = self.boards.latest(), self.market.quotes(), self.monotonic()
        in_force, is_whole = self.boards.in_force(), self.boards.is_whole()
        things = (*self.market.things(), board, in_force, is_whole)
        for last in self._last:
            if 0.0 <= mono - last.mono < YOUNG_S and last.is_of(known, quotes, things):
                return last
        own = (None if one is None else self.boards.own_status_of(one) for one in (board, in_force))
        verdicts = (self.market.level(), *own, self.mode())
        self._last[:] = [Stand(known, quotes, things, verdicts, self.clock(), mono)]
        return self._last[0]
