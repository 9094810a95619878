"""Version of the state in memory, which validates cached responses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import is_
from typing import Final, Protocol

from app.foundation.data_status import DataStatus
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.foundation.state_version import Input, StateVersion
from app.market.services.service import MarketData
from app.market.services.service_mode import ModeState
from app.portfolio.services.state_cache import PortfolioState, PortfolioStateCache
from app.scoring.domain.board import Board

# Expiry of locks and age of order books change a response without a change of the state.
TICK_S: Final = 0.25
_SCORES: Final = Input.SCORES.value
_MARKET: Final = Input.MARKET.value
_PORTFOLIO: Final = Input.PORTFOLIO.value
_LISTED: Final = (Input.MARKET | Input.SYMBOLS).value


class MarketParts(Protocol):
    """Market in memory, each part replaced as a whole when it changes."""

    def symbols(self) -> tuple[object, ...]: ...

    def quotes(self) -> tuple[object, ...]: ...

    def stale_symbols(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LiveMarketParts:
    """Parts of the market of this process."""

    market: MarketData

    def symbols(self) -> tuple[object, ...]:
        return (self.market.registry.known, self.market.registry.sectors)

    def quotes(self) -> tuple[object, ...]:
        return (self.market.live.market, self.market.configuration(), self.market.trading)

    def stale_symbols(self) -> int:
        return self.market.stale_symbols()


class BoardParts(Protocol):
    """Score boards in memory."""

    def age_status(self, board: Board) -> DataStatus:
        """Returns the freshness by the age of the board alone."""
        ...

    def latest(self) -> Board | None: ...

    def latest_complete(self) -> Board | None: ...

    def has_complete_board(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class StateVersionSource:
    """Versions of the state, with freshness and mode as parts: their flips change the version."""

    database: Database
    states: PortfolioStateCache
    market: MarketParts
    boards: BoardParts
    clock: Clock
    mode: Callable[[], ModeState]
    _numbers: dict[int, tuple[tuple[object, ...], int]] = field(default_factory=dict, init=False)

    def version(self, depends_on: Input) -> StateVersion | None:
        """Returns the version; None if the database has to be read. Raises UnavailableError."""
        if not depends_on.value & _PORTFOLIO:
            return self._version(depends_on, None)
        state = self.states.known(self.database)
        return None if state is None else self._version(depends_on, state)

    async def load_version(self, depends_on: Input) -> StateVersion:
        """Returns a version with every commit before the call. Raises UnavailableError."""
        if Input.PORTFOLIO not in depends_on:
            return self._version(depends_on, None)
        return self._version(depends_on, await self.states.newest(self.database))

    def _version(self, depends_on: Input, state: PortfolioState | None) -> StateVersion:
        inputs, mode = depends_on.value, self.mode()  # `in` of a Flag takes ten times as long
        parts: list[object] = [mode.mode, None if state is None else state.revision]
        objects: tuple[object, ...] = ()
        if inputs & _LISTED:
            objects += self.market.symbols()
        if has_market := inputs & _MARKET:
            objects += self.market.quotes()
            tick = int(self.clock().timestamp() / TICK_S)
            parts += (mode, self.market.stale_symbols(), tick)
        if inputs & _SCORES:
            latest, in_force = self.boards.latest(), self.boards.latest_complete()
            objects += (latest, in_force)
            parts += (self.boards.has_complete_board(), self._status_of(latest))
            if in_force is not latest:
                parts.append(self._status_of(in_force))
            if not has_market:
                parts.append(mode.market.status)
        parts.append(self._numbered(inputs, objects))
        return tuple(parts)

    def _status_of(self, board: Board | None) -> DataStatus | None:
        return None if board is None else self.boards.age_status(board)

    def _numbered(self, inputs: int, objects: tuple[object, ...]) -> int:
        """Returns a number that rises when an object is another one; versions hold no object."""
        last, number = self._numbers.get(inputs, ((), 0))
        if len(last) != len(objects) or not all(map(is_, last, objects)):
            number += 1
            self._numbers[inputs] = (objects, number)
        return number
