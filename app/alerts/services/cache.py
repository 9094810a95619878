"""What an evaluation of the alert rules rests on, read and worked out anew only when it changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from app.alerts.domain.facts import PortfolioFacts
from app.alerts.domain.lifecycle import Calm, Ended, Key
from app.alerts.domain.models import Alert
from app.alerts.services.facts import (
    PairCorrelations,
    Past,
    correlations,
    past_of,
    portfolio_facts,
)
from app.alerts.storage.alerts import LOOK_BACK, AlertMark, AlertRepository
from app.foundation.memoize import Basis, Views
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.market.domain.models import Interval
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.state_cache import Committed
from app.portfolio.services.view_cache import held_basis
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.scoring.storage.runs import ScoringRepository


@dataclass(frozen=True, slots=True)
class AlertBook:
    """What is stored of alerts, and what was before with the members."""

    active: tuple[Alert, ...]
    ended: Mapping[Key, Ended]
    past: Past

    @classmethod
    async def load(
        cls, unit: UnitOfWork, portfolio: Portfolio, grounds: Grounds, before: Past | None = None
    ) -> "AlertBook":
        """What a transaction sees; `before` as in `past_of`."""
        return cls(
            await unit.get(AlertRepository).active(),
            await unit.get(AlertRepository).ended(grounds.at - LOOK_BACK),
            await past_of(unit, portfolio, grounds.configuration, before),
        )

    def ended_since(self, since: datetime) -> dict[Key, Ended]:
        """It may have been read a while ago."""
        return {key: end for key, end in self.ended.items() if end.at > since}


# What an alert book is read from.
_RESTS_ON: Final = (
    AlertRepository,
    ScoringRepository,
    ReplacementRepository,
    HistoryRepository,
    PortfolioRepository,
)


@dataclass(slots=True)
class AlertMemory:
    """What is stored of alerts is read again only where something of it was committed since.

    Where no other process can write, the counts of our own commits say so; else one statement.
    `calm` are the rules that had nothing to say at the last look.
    """

    calm: Calm | None = None
    _kept: tuple[int | AlertMark, Committed, AlertBook] | None = None
    _views: Views = field(default_factory=Views)

    async def book(self, database: Database, state: Committed, grounds: Grounds) -> AlertBook:
        """Nothing that was committed before the call is missing. Raises UnavailableError."""
        # Before reading: what comes after it is read again.
        commits, kept = database.changed(*_RESTS_ON), self._kept
        if commits is not None and kept is not None and kept[:2] == (commits, state):
            return kept[2]
        before = kept[2].past if kept is not None and kept[1] is state else None
        async with database.read() as unit:
            mark = await unit.get(AlertRepository).mark() if commits is None else commits
            if kept is not None and kept[:2] == (mark, state):
                return kept[2]
            book = await AlertBook.load(unit, state.portfolio, grounds, before)
        self._kept = (mark, state, book)
        return book

    def facts(self, state: Committed, grounds: Grounds, past: Past) -> PortfolioFacts:
        """Of the members, as one object while all that they rest on is the same."""
        rests_on = held_basis(state, grounds)
        own = Basis((*rests_on.things, past), rests_on.facts)
        return self._views.of(
            "members",
            own,
            lambda: portfolio_facts(state.portfolio, grounds, past, self._pairs(state, grounds)),
        )

    def _pairs(self, state: Committed, grounds: Grounds) -> PairCorrelations:
        """They take as long as all other facts, and prices of the day have no part in them."""
        portfolio, panel = state.portfolio, grounds.market.panel(Interval.DAY)
        rests_on = Basis((portfolio.members, panel, grounds.configuration), ())
        return self._views.of("pairs", rests_on, lambda: correlations(portfolio, grounds))
