"""Reads over the portfolio as a whole: statistics, analytics, correlation, history, integrity."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from operator import itemgetter
from statistics import fmean

from app.alerts.domain.models import Rule
from app.alerts.domain.rules import in_force
from app.configuration.domain.model import CorrelationBasis
from app.foundation.decimal_math import is_above, to_millionths
from app.foundation.sql.database import Database
from app.market.domain.return_statistics import NotApplicable
from app.operations.services.integrity import Integrity, invariants
from app.performance.services.equity_reader import Need, track_of
from app.performance.services.service import Performance
from app.portfolio.domain.candidate_selection import Correlation
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.returns import Figures
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.portfolio.services.member_views import MemberView, PortfolioView, portfolio_view, weakest
from app.portfolio.services.replacement_candidates import correlation_of
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository
from app.scoring.storage.runs import ScoringRepository


@dataclass(frozen=True, slots=True)
class Statistics:
    """Averages are over the members for which the figure is known; None where there are none."""

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
class Analytics:
    """Scores of the members now, and figures of what was held: the weights in force each day."""

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
class CorrelationReport:
    days: int
    basis: str
    correlations: Mapping[str, float | None]  # "A-B" in rank order; None is not applicable
    not_applicable: Mapping[str, str]  # why, by pair
    raw: Mapping[str, float]  # of returns as they are, whatever the basis
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


@dataclass(frozen=True, slots=True)
class PortfolioOverview:
    """What is told about the portfolio; nothing here changes it."""

    database: Database
    grounds: GroundsNow
    performance: Performance

    async def statistics(self) -> Statistics:
        view, grounds = await self._view()
        scores = [one.score for one in view.members if one.score is not None]
        return Statistics(
            total_symbols=len(view.members),
            max_portfolio_size=view.max_size,
            replacement_candidates=len(weakest(view.portfolio, grounds)),
            average_score=_mean(scores),
            score_range=(min(scores), max(scores)) if scores else None,
            sector_distribution=_sectors(view.portfolio, grounds),
            average_performance=_mean([one.figures.performance for one in view.members]),
            average_drawdown=_mean([one.figures.max_drawdown for one in view.members]),
            average_volatility=_mean([one.figures.volatility for one in view.members]),
            updated_at=None if grounds.board is None else grounds.board.calculated_at,
            facts=view.facts,
        )

    async def analytics(self) -> Analytics:
        async with self.database.read() as unit:
            track = await track_of(unit, self.grounds, Need(has_figures=True))
            grounds = await self.grounds.of(unit)
        view = portfolio_view(track.portfolio, grounds)
        scores = [(one.member.symbol, one.score) for one in view.members if one.score is not None]
        moves = [
            (one.member.symbol, one.figures.performance)
            for one in view.members
            if one.figures.performance is not None
        ]
        known = [score for _, score in scores]
        return Analytics(
            portfolio_size=len(view.members),
            average_score=_mean(known),
            total_score=sum(known) if known else None,
            average_performance=_mean([move for _, move in moves]),
            average_volatility=_mean([one.figures.volatility for one in view.members]),
            replacement_candidates=weakest(view.portfolio, grounds),
            top_performers=tuple(
                sorted(moves, key=lambda one: (-to_millionths(one[1]), one[0]))[:3]
            ),
            lowest_scorers=tuple(
                sorted(scores, key=lambda one: (to_millionths(one[1]), one[0]))[:3]
            ),
            figures=track.figures(),
            updated_at=None if grounds.board is None else grounds.board.calculated_at,
            facts=view.facts,
        )

    async def correlation(self, days: int | None = None) -> CorrelationReport:
        """Of all pairs of members over `days` (default: the window of the alert)."""
        return correlation_report(*await self._view(), days)

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
                grounds = await self.grounds.of(unit)
                name = grounds.resolve(symbol).symbol
            return await unit.get(HistoryRepository).page(before_seq, limit, symbol=name, kind=kind)

    async def integrity(self) -> Integrity:
        """Check the invariants, the chain, and that the history folds to the state."""
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            events = await unit.get(HistoryRepository).all()
            grounds = await self.grounds.of(unit)
            stored = await unit.get(ScoringRepository).latest_composites(
                one.symbol for one in portfolio.members
            )
            totals = await unit.get(TradeRepository).totals()
        # Every event is hashed anew: that takes longer than a request may hold up the others.
        checks = await asyncio.to_thread(invariants, portfolio, events, grounds, stored, totals)
        return Integrity(
            ok=all(check.ok for check in checks),
            version=portfolio.version,
            events=len(events),
            checked_at=grounds.at,
            invariants=checks,
        )

    async def _view(self) -> tuple[PortfolioView, Grounds]:
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            grounds = await self.grounds.of(unit)
        return portfolio_view(portfolio, grounds), grounds


def _sectors(portfolio: Portfolio, grounds: Grounds) -> dict[str, int]:
    counts = Counter(grounds.sector(member.symbol) for member in portfolio.members)
    return dict(sorted(counts.items()))


def _mean(values: "list[float | None] | list[float]") -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def correlation_report(
    view: PortfolioView, grounds: Grounds, days: int | None = None
) -> CorrelationReport:
    """Of all pairs of members over `days` (default: the window of the alert)."""
    rules = grounds.configuration.correlation
    window = rules.days if days is None else days
    symbols = tuple(one.member.symbol for one in view.members)
    pairs = tuple(combinations(symbols, 2))
    rho_of = correlation_of(symbols, grounds, window)
    raw_of = correlation_of(symbols, grounds, window, CorrelationBasis.RAW)
    said = {pair: rho for pair in pairs if (rho := rho_of(*pair)) is not None}
    known = {pair: rho for pair, rho in said.items() if isinstance(rho, float)}
    raw = {pair: rho for pair in pairs if isinstance(rho := raw_of(*pair), float)}
    limit = in_force(Rule.HIGH_RAW_CORRELATION, grounds.configuration).limit
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
        raw_average=_mean(raw_values),
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
                if limit is not None
                and is_above(rho, limit)
                and rules.basis is not CorrelationBasis.RAW
            ),
        ),
        unknown=tuple("-".join(pair) for pair in pairs if pair not in said),
        average=_mean(values),
        highest=max(values, default=None),
        symbols=symbols,
        matrix=_matrix(symbols, rho_of),
        facts=view.facts,
    )


def _matrix(symbols: tuple[str, ...], rho_of: Correlation) -> tuple[tuple[float | None, ...], ...]:
    """None where a correlation is not known or not applicable."""

    def known(one: str, other: str) -> float | None:
        rho = rho_of(one, other)
        return rho if isinstance(rho, float) else None

    return tuple(tuple(known(row, column) for column in symbols) for row in symbols)
