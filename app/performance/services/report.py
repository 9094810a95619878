"""Builds the portfolio report: equity, positions, attribution and replacement outcomes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.foundation.sql.database import UnitOfWork
from app.market.domain.models import DELISTED, Funding, Interval
from app.market.storage.market_data import MarketRepository
from app.performance.domain.attribution import ActiveReturn, Attribution
from app.performance.domain.backfilled_marks import BackfilledMark, with_backfilled_marks
from app.performance.domain.equity_curve import Day, EquityStep, equity_steps
from app.performance.domain.replacement_outcomes import (
    ReplacementLedger,
    ReplacementOutcome,
    compute_outcomes,
    create_ledger,
)
from app.performance.domain.tear_sheet import (
    DrawdownPeriod,
    MonthReturn,
    find_drawdown_periods,
    monthly_returns,
)
from app.performance.services.active_return import compute_active_return
from app.performance.services.analytics import present_weights
from app.performance.services.custom_figures import (
    CustomAnalytics,
    analytics_input,
    compute_custom_figures,
)
from app.performance.services.equity_reader import EquityHistory, EquityQuery, load_equity
from app.performance.services.service import (
    Performance,
    PositionPerformance,
    attribution_ledgers,
    load_realized,
    position_performance,
)
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.returns import Figures, Trade
from app.portfolio.domain.risk import compute_risk
from app.portfolio.services.queries import CorrelationReport, correlation_report
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository

_DAYS = 30  # default period of the attribution
_TRADES = 50
_REBALANCE = frozenset({EventType.REBALANCE})


@dataclass(frozen=True, slots=True)
class Report:
    """Report of one snapshot; trades, days and replacements belong to the period."""

    created_at: datetime
    version: int
    since: datetime | None
    until: datetime | None
    days: tuple[Day, ...]
    figures: Figures  # of the positions held in the period
    hypothetical: Figures  # of today's weights over the past: not earned
    correlation: CorrelationReport  # of the members now
    positions: tuple[PositionPerformance, ...]
    ledgers: tuple[Attribution, ...]
    active: ActiveReturn  # against the universe
    trades: tuple[Trade, ...]  # newest first
    replacements: tuple[ReplacementOutcome, ...]
    facts: DataFacts
    drawdowns: tuple[DrawdownPeriod, ...] = ()  # the deepest first
    months: tuple[MonthReturn, ...] = ()
    late_marks: tuple[BackfilledMark, ...] = ()  # backfilled marks of changes in the period
    custom: Mapping[str, float | None] = field(default_factory=dict)  # figures of plug-ins


@dataclass(frozen=True, slots=True)
class ReplacementReport:
    """Replacement ledger of the portfolio at `version`."""

    version: int
    ledger: ReplacementLedger
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class ReportService:
    """Read-only use cases of the report."""

    performance: Performance
    plugins: Sequence[CustomAnalytics] = ()

    async def replacements(self) -> ReplacementReport:
        """Returns the ledger of all replacements, net of fees, spread and funding."""
        async with self.performance.database.read() as unit:
            replacing_steps = equity_steps(
                await unit.get(HistoryRepository).moves(without=_REBALANCE)
            )
            history = await load_equity(
                unit, self.performance.contexts, EquityQuery(), replacing_steps
            )
            rates = await _funding_since(unit, replacing_steps)
        ledger = create_ledger(_outcomes(replacing_steps, history, rates))
        return ReplacementReport(history.portfolio.version, ledger, history.facts)

    async def report(self, since: datetime | None, until: datetime | None) -> Report:
        """Builds the report of a period; by default the whole curve and 30 days of attribution."""
        contexts = self.performance.contexts
        known = await contexts.memory.newest(self.performance.database)
        async with self.performance.database.read() as unit:
            earliest, _ = _attribution_period(since, until, contexts.clock())
            portfolio = await unit.get(PortfolioRepository).load()
            included = [member.included_at for member in portfolio.members]
            # A rebalance changes no member and does not affect replacements.
            replacing_steps = equity_steps(
                await unit.get(HistoryRepository).moves(since=since, without=_REBALANCE)
            )
            gains_since = min((earliest, *included))
            query = EquityQuery(days_since=since, gains_since=gains_since, has_figures=True)
            history = await load_equity(unit, contexts, query, replacing_steps)
            # The period ends at the last valuation, so that it is included.
            begin, end = _attribution_period(since, until, history.context.at)
            ledgers = await attribution_ledgers(unit, history, begin, end)
            realized = await load_realized(unit, portfolio, since, until)
            booked = await unit.get(TradeRepository).since_inclusion(
                history.portfolio.members, known.booked
            )
            trades = await unit.get(TradeRepository).page(None, _TRADES, since=since, until=until)
            rates = await _funding_since(unit, replacing_steps)
        active = await asyncio.to_thread(compute_active_return, history, begin, end)
        daily = history.context.market.panel(Interval.DAY)
        weights = present_weights(portfolio, history.context)
        risk = await asyncio.to_thread(compute_risk, daily, weights)
        pairs = await asyncio.to_thread(correlation_report, history.portfolio, history.context)
        custom: Mapping[str, float | None] = {}
        if self.plugins:
            given = analytics_input(history, since, until)
            custom = await asyncio.to_thread(compute_custom_figures, self.plugins, given)
        days = history.within(since, until)
        outcomes_since = _outcomes(replacing_steps, history, rates)
        return Report(
            created_at=history.context.at,
            version=history.portfolio.version,
            since=since,
            until=until,
            days=days,
            figures=history.figures(since, until),
            drawdowns=find_drawdown_periods(history.known(since, until)),
            months=monthly_returns(history.known(since, until)),
            positions=tuple(
                position_performance(one, history, realized, booked.totals)
                for one in history.portfolio.members
            ),
            ledgers=ledgers,
            active=active,
            trades=trades,
            replacements=tuple(
                outcome for outcome in outcomes_since if until is None or outcome.at < until
            ),
            hypothetical=risk.hypothetical,
            correlation=pairs,
            late_marks=history.late_within(since, until),
            facts=history.facts,
            custom=custom,
        )


async def _funding_since(
    unit: UnitOfWork, changes: Sequence[EquityStep]
) -> dict[str, tuple[Funding, ...]]:
    """Settled funding rates of replaced symbols by id, from a day before the first replacement."""
    replacing_steps = [step for step in changes if step.replacements]
    if not replacing_steps:
        return {}
    ids = sorted(
        {
            key
            for step in replacing_steps
            for one in step.replacements
            for key in (one.old_id, one.new_id)
        }
    )
    since = replacing_steps[0].at - timedelta(days=1)
    return await unit.get(MarketRepository).funding(ids, round(since.timestamp() * 1000))


def _outcomes(
    replacing_steps: tuple[EquityStep, ...],
    history: EquityHistory,
    rates: Mapping[str, Sequence[Funding]],
) -> tuple[ReplacementOutcome, ...]:
    names = {
        name for step in replacing_steps for one in step.replacements for name in (one.old, one.new)
    }
    delisted = {name for name in names if history.context.status_of(name) in DELISTED}
    return compute_outcomes(
        with_backfilled_marks(replacing_steps, history.late), history.valuations, delisted, rates
    )


def _attribution_period(
    since: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    end = now if until is None else min(until, now)
    return end - timedelta(days=_DAYS) if since is None else since, end
