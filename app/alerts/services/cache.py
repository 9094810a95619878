"""Cache of the stored alerts and of the facts that an evaluation of the rules reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.alerts.domain.lifecycle import Key, ResolvedAlert
from app.alerts.domain.models import Alert
from app.alerts.services.facts import (
    PairCorrelations,
    ScoreHistory,
    correlations,
    past_of,
)
from app.alerts.storage.alerts import LOOK_BACK, AlertMark, AlertRepository
from app.foundation.memoize import ViewCache
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.market.domain.models import Interval
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.state_cache import PortfolioState


@dataclass(frozen=True, slots=True)
class AlertBook:
    """Stored alerts and the score history of the members."""

    active: tuple[Alert, ...]
    ended: Mapping[Key, ResolvedAlert]
    past: ScoreHistory

    @classmethod
    async def load(
        cls,
        unit: UnitOfWork,
        portfolio: Portfolio,
        context: DecisionContext,
        before: ScoreHistory | None = None,
    ) -> "AlertBook":
        """Load the book in a transaction; `before` as in `past_of`."""
        return cls(
            await unit.get(AlertRepository).active(),
            await unit.get(AlertRepository).ended(context.at - LOOK_BACK),
            await past_of(unit, portfolio, context.configuration, before),
        )

    def ended_since(self, since: datetime) -> dict[Key, ResolvedAlert]:
        """Ends after `since`; the book may be older than that."""
        return {key: end for key, end in self.ended.items() if end.at > since}


@dataclass(slots=True)
class AlertBookCache:
    """Newest alert book, read again only after one of its tables has changed.

    Where no other process can write, a count of own commits avoids asking; otherwise one statement
    gives the mark of the tables.
    """

    _cached: tuple[int | None, AlertMark, PortfolioState, AlertBook] | None = None
    _views: ViewCache = field(default_factory=ViewCache)

    async def load(
        self, database: Database, state: PortfolioState, context: DecisionContext
    ) -> AlertBook:
        """Book with every commit before the call. Raises UnavailableError."""
        # Counted before reading: a commit during the read makes the next call read again.
        commits, cached = database.commits, self._cached
        is_of_state = cached is not None and cached[2] is state
        if cached is not None and is_of_state and commits is not None and cached[0] == commits:
            return cached[3]
        async with database.read() as unit:
            mark = await unit.get(AlertRepository).mark()
            if cached is not None and is_of_state and cached[1] == mark:
                book = cached[3]
            else:
                before = cached[3].past if cached is not None and is_of_state else None
                book = await AlertBook.load(unit, state.portfolio, context, before)
        self._cached = (commits, mark, state, book)
        return book

    def pairs(self, state: PortfolioState, context: DecisionContext) -> PairCorrelations:
        """Cached correlations of the members; they cost as much as all other facts together."""
        portfolio, panel = state.portfolio, context.market.panel(Interval.DAY)
        key = (portfolio.members, panel, context.configuration)
        return self._views.get("pairs", key, lambda: correlations(portfolio, context))
