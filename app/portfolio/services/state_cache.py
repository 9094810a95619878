"""Cache of the committed state of the portfolio, for reads from memory."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.concurrency import SingleFlight
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.controls import Controls
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.returns import BookedSinceInclusion
from app.portfolio.domain.target_weights import read_mark_prices
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import (
    ControlRepository,
    PortfolioRepository,
    Revision,
    RevisionRepository,
)
from app.portfolio.storage.trades import TradeRepository


@dataclass(frozen=True, slots=True, eq=False)
class PortfolioState:
    """Consistent state of portfolio, settings, controls and booked results; equal by identity."""

    revision: Revision
    portfolio: Portfolio
    configuration: Configuration
    controls: Controls  # as stored, with locks that have expired
    # Mark prices when weights were last set, by symbol.
    set_at: Mapping[str, Decimal]
    rebalanced_at: datetime | None  # when a rebalance last set them
    realized: Mapping[str, Decimal]  # booked results by symbol id, in their own currencies
    booked: BookedSinceInclusion  # of the members

    @classmethod
    async def load(
        cls, unit: UnitOfWork, revision: Revision, before: "PortfolioState | None" = None
    ) -> "PortfolioState":
        """Loads the state; of an earlier state `before` the booked results are continued."""
        portfolio = await unit.get(PortfolioRepository).load()
        known = None if before is None else before.booked
        weighed = await unit.get(HistoryRepository).last_weighting()
        return cls(
            revision=revision,
            portfolio=portfolio,
            configuration=await unit.get(ConfigurationRepository).current(),
            controls=await unit.get(ControlRepository).load(),
            set_at={} if weighed is None else read_mark_prices(weighed.payload),
            rebalanced_at=await unit.get(HistoryRepository).last_rebalance(),
            realized=await unit.get(TradeRepository).realized(),
            booked=await unit.get(TradeRepository).since_inclusion(portfolio.members, known),
        )


@dataclass(slots=True)
class PortfolioStateCache:
    """Newest committed state, loaded again after it has changed.

    Where no other process can write, a count of own commits says whether that can be so. Otherwise
    each read asks the database for the revision, once for all concurrent reads.
    """

    _flight: SingleFlight[PortfolioState] = field(default_factory=SingleFlight, init=False)
    _cached: tuple[Database, int | None, PortfolioState] | None = field(default=None, init=False)

    def known(self, database: Database) -> PortfolioState | None:
        """Newest state if no statement is needed to be sure of it, else None.

        Raises UnavailableError once the database is closed.
        """
        cached, commits = self._cached, database.commits
        if cached is None or cached[0] is not database:
            return None
        return None if commits is None or cached[1] != commits else cached[2]

    async def newest(self, database: Database) -> PortfolioState:
        """State with every commit before the call. Raises UnavailableError."""
        await asyncio.sleep(0)  # a caller that reads in a loop must not hold up all others
        known = self.known(database)
        return await self._flight(lambda: self._load(database)) if known is None else known

    async def _load(self, database: Database) -> PortfolioState:
        # Counted before reading, so that a commit meanwhile invalidates the cache.
        commits = database.commits
        async with database.read() as unit:
            revision = await unit.get(RevisionRepository).now()
            state = self._cached[2] if self._cached and self._cached[0] is database else None
            if state is None or state.revision != revision:
                state = await PortfolioState.load(unit, revision, state)
        self._cached = (database, commits, state)
        return state
