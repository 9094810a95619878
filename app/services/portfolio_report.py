"""The report of the portfolio: equity, positions, who earned what, and whether swaps paid."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.attribution import Attribution
from app.domain.brinson import ActiveReturn
from app.domain.equity import Day
from app.domain.equity_steps import steps
from app.domain.history import EventType
from app.domain.late_marks import LateMark, completed
from app.domain.market import DELISTED, Interval
from app.domain.performance import Figures, Trade
from app.domain.portfolio_risk import risk_of
from app.domain.swap_outcomes import SwapOutcome, outcomes
from app.services.active_return import active_return
from app.services.equity_track import Need, track_of
from app.services.metrics import present_weights
from app.services.performance import HeldPosition, Performance, attributed, held, realized_in
from app.services.trading import DataFacts

_DAYS = 30  # of the attribution where no period is given
_TRADES = 50
_REBALANCE = frozenset({EventType.REBALANCE})


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one moment, from one snapshot; trades, days and swaps of the period."""

    made_at: datetime
    version: int
    since: datetime | None
    until: datetime | None
    days: tuple[Day, ...]
    figures: Figures  # of what was held in the period
    hypothetical: Figures  # of today's weights over the past: not earned
    positions: tuple[HeldPosition, ...]
    ledgers: tuple[Attribution, ...]
    active: ActiveReturn  # against the universe
    trades: tuple[Trade, ...]  # the last ones
    swaps: tuple[SwapOutcome, ...]
    facts: DataFacts
    late_marks: tuple[LateMark, ...] = ()  # of changes in the period, not known in their time


@dataclass(frozen=True, slots=True)
class Reporting:
    """Puts the report together; it changes nothing."""

    performance: Performance

    async def report(self, since: datetime | None, until: datetime | None) -> Report:
        """Over the period; without one the whole curve, and the last 30 days attributed."""
        async with self.performance.database.read() as unit:
            earliest, _ = _attributed_over(since, until, self.performance.grounds.clock())
            portfolio = await unit.portfolio.load()
            included = [member.included_at for member in portfolio.members]
            # A rebalance moves no member: without it a swap is all the same what it was.
            swapped = steps(await unit.history.moves(since=since, without=_REBALANCE))
            gains_since = min((earliest, *included))
            need = Need(days_since=since, gains_since=gains_since, has_figures=True)
            track = await track_of(unit, self.performance.grounds, need, swapped)
            # Its last valuation is of its own moment: to end before that would leave it out.
            begin, end = _attributed_over(since, until, track.grounds.at)
            ledgers = await attributed(unit, track, begin, end)
            realized = await realized_in(unit, portfolio, since, until)
            trades = await unit.trades.page(None, _TRADES, since=since, until=until)
        active = await asyncio.to_thread(active_return, track, begin, end)
        daily = track.grounds.market.panel(Interval.DAY)
        weights = present_weights(portfolio, track.grounds)
        risk = await asyncio.to_thread(risk_of, daily, weights)
        shown = track.within(since, until)
        names = {name for step in swapped for one in step.swaps for name in (one.old, one.new)}
        delisted = {name for name in names if track.grounds.status_of(name) in DELISTED}
        told = outcomes(completed(swapped, track.late), track.valuations, delisted)
        return Report(
            made_at=track.grounds.at,
            version=track.portfolio.version,
            since=since,
            until=until,
            days=shown,
            figures=track.figures(since, until),
            positions=tuple(held(one, track, realized) for one in track.portfolio.members),
            ledgers=ledgers,
            active=active,
            trades=trades,
            swaps=tuple(one for one in told if until is None or one.at < until),
            hypothetical=risk.hypothetical,
            late_marks=track.late_within(since, until),
            facts=track.facts,
        )


def _attributed_over(
    since: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    end = now if until is None else min(until, now)
    return end - timedelta(days=_DAYS) if since is None else since, end
