"""Builds the portfolio report: equity, positions, attribution and replacement outcomes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    outcomes,
    replacement_ledger,
)
from app.performance.services.active_return import active_return
from app.performance.services.analytics import present_weights
from app.performance.services.equity_reader import EquityHistory, EquityQuery, load_equity
from app.performance.services.service import (
    Performance,
    PositionPerformance,
    attribution_ledgers,
    position_performance,
    realized_in,
)
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.returns import Figures, Trade
from app.portfolio.domain.risk import compute_risk
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

    made_at: datetime
    version: int
    since: datetime | None
    until: datetime | None
    days: tuple[Day, ...]
    figures: Figures  # of the positions held in the period
    hypothetical: Figures  # of today's weights over the past: not earned
    positions: tuple[PositionPerformance, ...]
    ledgers: tuple[Attribution, ...]
    active: ActiveReturn  # against the universe
    trades: tuple[Trade, ...]  # newest first
    swaps: tuple[ReplacementOutcome, ...]
    facts: DataFacts
    late_marks: tuple[BackfilledMark, ...] = ()  # backfilled marks of changes in the period


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

    async def replacements(self) -> ReplacementReport:
        """Ledger of all replacements, net of fees, spread and funding."""
        async with self.performance.database.read() as unit:
            swapped = equity_steps(await unit.get(HistoryRepository).moves(without=_REBALANCE))
            track = await load_equity(unit, self.performance.contexts, EquityQuery(), swapped)
            rates = await _funding_since(unit, swapped)
        ledger = replacement_ledger(_outcomes(swapped, track, rates))
        return ReplacementReport(track.portfolio.version, ledger, track.facts)

    async def report(self, since: datetime | None, until: datetime | None) -> Report:
        """Report over the period; by default the whole curve and 30 days of attribution."""
        async with self.performance.database.read() as unit:
            earliest, _ = _attributed_over(since, until, self.performance.contexts.clock())
            portfolio = await unit.get(PortfolioRepository).load()
            included = [member.included_at for member in portfolio.members]
            # A rebalance moves no member and does not affect replacements.
            swapped = equity_steps(
                await unit.get(HistoryRepository).moves(since=since, without=_REBALANCE)
            )
            gains_since = min((earliest, *included))
            need = EquityQuery(days_since=since, gains_since=gains_since, has_figures=True)
            track = await load_equity(unit, self.performance.contexts, need, swapped)
            # The period ends at the last valuation, or that one would be left out.
            begin, end = _attributed_over(since, until, track.context.at)
            ledgers = await attribution_ledgers(unit, track, begin, end)
            realized = await realized_in(unit, portfolio, since, until)
            trades = await unit.get(TradeRepository).page(None, _TRADES, since=since, until=until)
            rates = await _funding_since(unit, swapped)
        active = await asyncio.to_thread(active_return, track, begin, end)
        daily = track.context.market.panel(Interval.DAY)
        weights = present_weights(portfolio, track.context)
        risk = await asyncio.to_thread(compute_risk, daily, weights)
        shown = track.within(since, until)
        outcomes_since = _outcomes(swapped, track, rates)
        return Report(
            made_at=track.context.at,
            version=track.portfolio.version,
            since=since,
            until=until,
            days=shown,
            figures=track.figures(since, until),
            positions=tuple(
                position_performance(one, track, realized) for one in track.portfolio.members
            ),
            ledgers=ledgers,
            active=active,
            trades=trades,
            swaps=tuple(
                outcome for outcome in outcomes_since if until is None or outcome.at < until
            ),
            hypothetical=risk.hypothetical,
            late_marks=track.late_within(since, until),
            facts=track.facts,
        )


async def _funding_since(
    unit: UnitOfWork, changes: Sequence[EquityStep]
) -> dict[str, tuple[Funding, ...]]:
    """Settled funding rates of replaced symbols by id, from a day before the first replacement."""
    swapped = [step for step in changes if step.swaps]
    if not swapped:
        return {}
    ids = sorted(
        {key for step in swapped for one in step.swaps for key in (one.old_id, one.new_id)}
    )
    since = swapped[0].at - timedelta(days=1)
    return await unit.get(MarketRepository).funding(ids, round(since.timestamp() * 1000))


def _outcomes(
    swapped: tuple[EquityStep, ...], track: EquityHistory, rates: Mapping[str, Sequence[Funding]]
) -> tuple[ReplacementOutcome, ...]:
    names = {name for step in swapped for one in step.swaps for name in (one.old, one.new)}
    delisted = {name for name in names if track.context.status_of(name) in DELISTED}
    return outcomes(with_backfilled_marks(swapped, track.late), track.valuations, delisted, rates)


def _attributed_over(
    since: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    end = now if until is None else min(until, now)
    return end - timedelta(days=_DAYS) if since is None else since, end
