"""Portfolio metrics and analytics: scores, sectors, performance, risk and correlation."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, stdev
from typing import Final

from app.foundation.decimal_math import to_millionths
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.performance.services.custom_figures import (
    CustomAnalytics,
    analytics_input,
    compute_custom_figures,
)
from app.performance.services.equity_reader import EquityHistory, EquityQuery, load_equity
from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.returns import Figures
from app.portfolio.domain.risk import Risk, compute_risk
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.queries import CorrelationReport, correlation_report, mean_known
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.services.views import portfolio_view, weakest

_PLACES: Final = 4  # decimals of the weights (fractions) for the risk figures


@dataclass(frozen=True, slots=True)
class Concentration:
    """Sector concentration of the invested weight; None without investment."""

    weights_u: Mapping[str, int]  # micro-percent by sector
    hhi: float | None  # sum of the squared shares

    @property
    def diversification(self) -> float | None:
        return None if self.hhi is None else 1.0 - self.hhi


@dataclass(frozen=True, slots=True)
class PortfolioMetrics:
    """Metrics of one moment; None if a figure is undefined."""

    scores: tuple[float, ...]
    score_spread: float | None  # sample standard deviation
    sectors: Concentration
    moves: tuple[float, ...]  # performance since inclusion, where known
    risk: Risk
    correlation: CorrelationReport
    facts: DataFacts
    figures: Figures  # by the weights of each day

    @property
    def share_of_gainers(self) -> float | None:
        """Share of the members above their inclusion price."""
        return fmean(move > 0.0 for move in self.moves) if self.moves else None


@dataclass(frozen=True, slots=True)
class MetricsService:
    """Read-only metrics of one consistent snapshot."""

    database: Database
    contexts: DecisionContextFactory

    async def metrics(self) -> PortfolioMetrics:
        """Returns the metrics of one state and one market. Raises UnavailableError."""
        async with self.database.read() as unit:
            history = await load_equity(unit, self.contexts, EquityQuery(has_figures=True))
            context = await self.contexts.of(unit)
        portfolio, daily = history.portfolio, context.market.panel(Interval.DAY)
        view = portfolio_view(portfolio, context)
        scores = tuple(one.score for one in view.members if one.score is not None)
        by_sector: dict[str, int] = {}
        for member in portfolio.members:
            sector = context.sector(member.symbol)
            by_sector[sector] = by_sector.get(sector, 0) + member.weight_u
        invested = sum(by_sector.values())
        hhi = sum((one / invested) ** 2 for one in by_sector.values()) if invested else None
        moves = (one.figures.performance for one in view.members)
        weights = present_weights(portfolio, context)
        return PortfolioMetrics(
            scores=scores,
            score_spread=stdev(scores) if len(scores) > 1 else None,
            sectors=Concentration(dict(sorted(by_sector.items())), hhi),
            moves=tuple(move for move in moves if move is not None),
            # Depends on daily bars and weights alone, and costs more than all other metrics.
            risk=self.contexts.views.get(
                "metrics_risk",
                (daily, tuple(weights.items())),
                lambda: compute_risk(daily, weights),
            ),
            correlation=correlation_report(portfolio, context),
            facts=view.facts,
            figures=history.figures(),
        )


def present_weights(portfolio: Portfolio, context: DecisionContext) -> dict[str, float]:
    """Returns drifted weights as fractions, rounded to 0.01 percentage points.

    More digits would change with every quote.
    """
    members = context.at_current_prices(portfolio).members
    return {member.symbol: round(member.weight_u / FULL, _PLACES) for member in members}


@dataclass(frozen=True, slots=True)
class Analytics:
    """Current scores of the members and figures by the weights of each day."""

    portfolio_size: int
    average_score: float | None
    total_score: float | None
    average_performance: float | None
    average_volatility: float | None
    replacement_candidates: tuple[str, ...]
    top_performers: tuple[tuple[str, float], ...]
    lowest_scorers: tuple[tuple[str, float], ...]
    figures: Figures
    updated_at: datetime | None
    facts: DataFacts
    custom: Mapping[str, float | None]  # figures of plug-ins


@dataclass(frozen=True, slots=True)
class PerformanceAnalytics:
    """Read-only summary of performance and risk."""

    database: Database
    contexts: DecisionContextFactory
    plugins: Sequence[CustomAnalytics] = ()

    async def summary(self) -> Analytics:
        async with self.database.read() as unit:
            history = await load_equity(unit, self.contexts, EquityQuery(has_figures=True))
            context = await self.contexts.of(unit)
        custom = await self._compute_custom(history)
        view = portfolio_view(history.portfolio, context)
        scores = [(one.member.symbol, one.score) for one in view.members if one.score is not None]
        moves = [
            (one.member.symbol, one.figures.performance)
            for one in view.members
            if one.figures.performance is not None
        ]
        known = [score for _, score in scores]
        return Analytics(
            portfolio_size=len(view.members),
            average_score=mean_known(known),
            total_score=sum(known) if known else None,
            average_performance=mean_known([move for _, move in moves]),
            average_volatility=mean_known([one.figures.volatility for one in view.members]),
            replacement_candidates=weakest(view.portfolio, context),
            top_performers=tuple(
                sorted(moves, key=lambda one: (-to_millionths(one[1]), one[0]))[:3]
            ),
            lowest_scorers=tuple(
                sorted(scores, key=lambda one: (to_millionths(one[1]), one[0]))[:3]
            ),
            figures=history.figures(),
            updated_at=None
            if context.complete_board is None
            else context.complete_board.calculated_at,
            facts=view.facts,
            custom=custom,
        )

    async def custom_figures(self) -> Mapping[str, float | None]:
        """Returns the figures of all plug-ins, computed now. Raises UnavailableError."""
        if not self.plugins:
            return {}
        async with self.database.read() as unit:
            history = await load_equity(unit, self.contexts, EquityQuery(has_figures=True))
        return await self._compute_custom(history)

    async def _compute_custom(self, history: EquityHistory) -> Mapping[str, float | None]:
        if not self.plugins:
            return {}
        given = analytics_input(history)
        return await asyncio.to_thread(compute_custom_figures, self.plugins, given)
