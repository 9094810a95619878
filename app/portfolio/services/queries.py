"""Reads over the portfolio as a whole: statistics, correlation, weakest members, history."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from operator import itemgetter
from statistics import fmean
from typing import Final

from app.configuration.domain.model import CorrelationBasis
from app.foundation.decimal_math import is_above
from app.foundation.sql.database import Database
from app.market.domain.return_statistics import NotApplicable
from app.portfolio.domain.candidate_selection import Correlation
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.replacement_candidates import correlation_of
from app.portfolio.services.tradeability import DataFacts, describe_data
from app.portfolio.services.views import MemberView, PortfolioView, portfolio_view, weakest
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of the members; an average uses the known figures, None without any."""

    total_symbols: int
    max_portfolio_size: int
    replacement_candidates: int
    average_score: float | None
    score_range: tuple[float, float] | None
    sector_distribution: Mapping[str, int]
    average_performance: float | None
    average_drawdown: float | None
    average_volatility: float | None
    updated_at: datetime | None  # when the board behind the scores was made
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class PairCorrelation:
    """Correlation of two members on the configured basis beside the raw one."""

    pair: str  # "A-B" in rank order
    correlation: float | None
    raw_correlation: float | None
    reason: str | None  # why there is no correlation


NOT_ENOUGH_HISTORY: Final = "not_enough_history"


@dataclass(frozen=True, slots=True)
class CorrelationReport:
    days: int
    basis: str
    correlations: Mapping[str, float | None]  # "A-B" in rank order; None is not applicable
    not_applicable: Mapping[str, str]  # reason by pair
    raw: Mapping[str, float]  # of raw returns, independent of the basis
    raw_average: float | None
    raw_highest: float | None
    raw_matrix: tuple[tuple[float | None, ...], ...]
    warnings: tuple[str, ...]
    unknown: tuple[str, ...]  # pairs without enough common history
    average: float | None
    highest: float | None
    symbols: tuple[str, ...]  # in rank order: rows and columns of the matrix
    matrix: tuple[tuple[float | None, ...], ...]  # None is unknown
    facts: DataFacts

    @property
    def pairs(self) -> tuple[PairCorrelation, ...]:
        """All pairs in rank order."""
        return tuple(
            PairCorrelation(pair, rho, self.raw.get(pair), None if rho is not None else why)
            for pair in map("-".join, combinations(self.symbols, 2))
            for rho in (self.correlations.get(pair),)
            for why in (self.not_applicable.get(pair, NOT_ENOUGH_HISTORY),)
        )


@dataclass(frozen=True, slots=True)
class PortfolioQueries:
    """Reads over the members."""

    database: Database
    contexts: DecisionContextFactory

    async def statistics(self) -> Statistics:
        view, context = await self._view()
        scores = [one.score for one in view.members if one.score is not None]
        return Statistics(
            total_symbols=len(view.members),
            max_portfolio_size=view.max_size,
            replacement_candidates=len(weakest(view.portfolio, context)),
            average_score=mean_known(scores),
            score_range=(min(scores), max(scores)) if scores else None,
            sector_distribution=_sectors(view.portfolio, context),
            average_performance=mean_known([one.figures.performance for one in view.members]),
            average_drawdown=mean_known([one.figures.max_drawdown for one in view.members]),
            average_volatility=mean_known([one.figures.volatility for one in view.members]),
            updated_at=None
            if context.complete_board is None
            else context.complete_board.calculated_at,
            facts=view.facts,
        )

    async def correlation(self, days: int | None = None) -> CorrelationReport:
        """Correlations of all pairs of members over `days` (default: the window of the alert)."""
        view, context = await self._view()
        return correlation_report(view.portfolio, context, days)

    async def replacement_candidates(self) -> tuple[tuple[MemberView, ...], DataFacts]:
        """The weakest members, priority 1 first."""
        view, _ = await self._view()
        found = [
            (one.replacement_priority, one)
            for one in view.members
            if one.replacement_priority is not None
        ]
        return tuple(one for _, one in sorted(found, key=itemgetter(0))), view.facts

    async def history(
        self,
        before_seq: int | None,
        limit: int,
        symbol: str | None = None,
        kind: EventType | None = None,
    ) -> tuple[PortfolioEvent, ...]:
        """Newest first; raises RefusedError for a symbol that is not known."""
        name = None
        async with self.database.read() as unit:
            if symbol is not None:
                context = await self.contexts.of(unit)
                name = context.resolve(symbol).symbol
            return await unit.get(HistoryRepository).page(before_seq, limit, symbol=name, kind=kind)

    async def _view(self) -> tuple[PortfolioView, DecisionContext]:
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            context = await self.contexts.of(unit)
        return portfolio_view(portfolio, context), context


def _sectors(portfolio: Portfolio, context: DecisionContext) -> dict[str, int]:
    counts = Counter(context.sector(member.symbol) for member in portfolio.members)
    return dict(sorted(counts.items()))


def mean_known(values: "list[float | None] | list[float]") -> float | None:
    """Mean of the known values; None without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def correlation_report(
    portfolio: Portfolio, context: DecisionContext, days: int | None = None
) -> CorrelationReport:
    """Correlations of all pairs of members over `days` (default: the window of the alert)."""
    rules = context.configuration.correlation
    window = rules.days if days is None else days
    symbols = tuple(member.symbol for member in portfolio.members)
    pairs = tuple(combinations(symbols, 2))
    rho_of = correlation_of(symbols, context, window)
    raw_of = correlation_of(symbols, context, window, CorrelationBasis.RAW)
    said = {pair: rho for pair in pairs if (rho := rho_of(*pair)) is not None}
    known = {pair: rho for pair, rho in said.items() if isinstance(rho, float)}
    raw = {pair: rho for pair in pairs if isinstance(rho := raw_of(*pair), float)}
    limit = context.configuration.alerts.rules.high_raw_correlation.limit
    values, raw_values = list(known.values()), list(raw.values())
    return CorrelationReport(
        days=window,
        basis=rules.basis.value,
        correlations={"-".join(pair): known.get(pair) for pair in said},
        not_applicable={
            "-".join(pair): rho.value
            for pair, rho in said.items()
            if isinstance(rho, NotApplicable)
        },
        raw={"-".join(pair): rho for pair, rho in raw.items()},
        raw_average=mean_known(raw_values),
        raw_highest=max(raw_values, default=None),
        raw_matrix=_matrix(symbols, raw_of),
        warnings=(
            *(
                f"{'-'.join(pair)}: {rho:.3f} is above {rules.alert:g}"
                for pair, rho in known.items()
                if is_above(rho, rules.alert)
            ),
            *(
                f"{'-'.join(pair)}: raw {rho:.3f} is above {limit:g}"
                for pair, rho in raw.items()
                if is_above(rho, limit) and rules.basis is not CorrelationBasis.RAW
            ),
        ),
        unknown=tuple("-".join(pair) for pair in pairs if pair not in said),
        average=mean_known(values),
        highest=max(values, default=None),
        symbols=symbols,
        matrix=_matrix(symbols, rho_of),
        facts=describe_data(context),
    )


def _matrix(symbols: tuple[str, ...], rho_of: Correlation) -> tuple[tuple[float | None, ...], ...]:
    """Correlation of a pair; None if unknown or not applicable."""

    def known(one: str, other: str) -> float | None:
        rho = rho_of(one, other)
        return rho if isinstance(rho, float) else None

    return tuple(tuple(known(row, column) for column in symbols) for row in symbols)
