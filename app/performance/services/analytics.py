"""Analytics: current scores of the members and risk-adjusted performance."""

from dataclasses import dataclass
from datetime import datetime

from app.foundation.decimal_math import to_millionths
from app.foundation.sql.database import Database
from app.performance.services.equity_reader import EquityQuery, load_equity
from app.portfolio.domain.returns import Figures
from app.portfolio.services.decision_context import DecisionContextFactory
from app.portfolio.services.queries import mean_known
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.services.views import portfolio_view, weakest


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


@dataclass(frozen=True, slots=True)
class PerformanceAnalytics:
    """Read-only summary of performance and risk."""

    database: Database
    contexts: DecisionContextFactory

    async def summary(self) -> Analytics:
        async with self.database.read() as unit:
            track = await load_equity(unit, self.contexts, EquityQuery(has_figures=True))
            context = await self.contexts.of(unit)
        view = portfolio_view(track.portfolio, context)
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
            figures=track.figures(),
            updated_at=None if context.board is None else context.board.calculated_at,
            facts=view.facts,
        )
