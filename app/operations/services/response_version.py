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
from app.market.services.service_mode import MarketLevel
from app.portfolio.services.state_cache import PortfolioState, PortfolioStateCache
from app.scoring.domain.board import Board

# Expiry of locks and age of order books change a response without a change of the state.
TICK_S: Final = 0.25


class MarketParts(Protocol):
    """Market in memory, each part replaced as a whole when it changes."""

    def symbols(self) -> tuple[object, ...]: ...

    def quotes(self) -> tuple[object, ...]: ...

    def status(self) -> DataStatus: ...

    def level(self) -> MarketLevel: ...


@dataclass(frozen=True, slots=True)
class LiveMarketParts:
    """Parts of the market of this process."""

    market: MarketData

    def symbols(self) -> tuple[object, ...]:
        return (self.market.registry.known, self.market.registry.sectors)

    def quotes(self) -> tuple[object, ...]:
        return (self.market.live.market, self.market.configuration(), self.market.trading)

    def status(self) -> DataStatus:
        return self.market.status()

    def level(self) -> MarketLevel:
        return self.market.level()


class BoardParts(Protocol):
    """Score boards in memory."""

    def own_status_of(self, board: Board) -> DataStatus:
        """Returns the freshness by the age of the board alone."""
        ...

    def latest(self) -> Board | None: ...

    def in_force(self) -> Board | None: ...

    def is_whole(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class StateVersionSource:
    """Versions of the state, with freshness and mode as parts: their flips change the version."""

    database: Database
    states: PortfolioStateCache
    market: MarketParts
    boards: BoardParts
    clock: Clock
    mode: Callable[[], object] = lambda: None
    _numbers: dict[str, tuple[tuple[object, ...], int]] = field(default_factory=dict, init=False)

    def version(self, depends_on: Input) -> StateVersion | None:
        """Returns the version; None if the database has to be read. Raises UnavailableError."""
        if Input.PORTFOLIO not in depends_on:
            return self._version(depends_on, None)
        state = self.states.known(self.database)
        return None if state is None else self._version(depends_on, state)

    async def load_version(self, depends_on: Input) -> StateVersion:
        """Returns a version with every commit before the call. Raises UnavailableError."""
        if Input.PORTFOLIO not in depends_on:
            return self._version(depends_on, None)
        return self._version(depends_on, await self.states.newest(self.database))

    def _version(self, depends_on: Input, state: PortfolioState | None) -> StateVersion:
        parts: list[object] = [None if state is None else state.revision]
        has_market = Input.MARKET in depends_on
        if has_market or Input.SYMBOLS in depends_on:
            parts.append(self._numbered("symbols", self.market.symbols()))
        if has_market:
            level = self.market.level()
            parts.append(self._numbered("quotes", self.market.quotes()))
            parts += (level.status, level.stale_symbols, level.is_clock_safe)
            parts += (self.mode(), int(self.clock().timestamp() / TICK_S))
        if Input.SCORES in depends_on:
            latest, in_force = self.boards.latest(), self.boards.in_force()
            parts.append(self._numbered("boards", (latest, in_force)))
            parts += (self.boards.is_whole(), self._status_of(latest))
            if in_force is not latest:
                parts.append(self._status_of(in_force))
            if not has_market:  # its level has the status
                parts.append(self.market.status())
        return tuple(parts)

    def _status_of(self, board: Board | None) -> DataStatus | None:
        return None if board is None else self.boards.own_status_of(board)

    def _numbered(self, name: str, parts: tuple[object, ...]) -> int:
        """Returns a number that rises when a part is another object; versions hold no object."""
        last, number = self._numbers.get(name, ((), 0))
        if len(last) != len(parts) or not all(map(is_, last, parts)):
            number += 1
            self._numbers[name] = (parts, number)
        return number
