"""The report of the portfolio: equity, positions, who earned what, and whether swaps paid."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.attribution import Attribution
from app.domain.equity import Day, track_record
from app.domain.performance import Figures, Trade
from app.domain.report import SwapOutcome, outcomes
from app.services.performance import HeldPosition, Performance, attributed, held
from app.services.trading import DataFacts

_DAYS = 30  # of the attribution where no period is given
_TRADES = 50


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one moment, from one snapshot of the database."""

    made_at: datetime
    version: int
    since: datetime | None
    until: datetime | None
    days: tuple[Day, ...]
    figures: Figures  # of the daily returns that are known
    positions: tuple[HeldPosition, ...]
    ledgers: tuple[Attribution, ...]
    trades: tuple[Trade, ...]  # the last ones
    swaps: tuple[SwapOutcome, ...]
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class Reporting:
    """Puts the report together; it changes nothing."""

    performance: Performance

    async def report(self, since: datetime | None, until: datetime | None) -> Report:
        """Over the period; without one the whole curve, and the last 30 days attributed."""
        async with self.performance.database.read() as unit:
            track = await self.performance.load(unit)
            booked = [trade.result for trade in await unit.trades.between(None, None)]
            trades = await unit.trades.page(None, _TRADES, since=since, until=until)
        end = track.grounds.at if until is None else min(until, track.grounds.at)
        begin = end - timedelta(days=_DAYS) if since is None else since
        inside = [
            one
            for one in booked
            if (since is None or one.occurred_at >= since)
            and (until is None or one.occurred_at < until)
        ]
        shown = tuple(
            day
            for day in track.days
            if (since is None or day.at >= since) and (until is None or day.at < until)
        )
        return Report(
            made_at=track.grounds.at,
            version=track.portfolio.version,
            since=since,
            until=until,
            days=shown,
            figures=track_record(shown),
            positions=tuple(held(one, track, inside) for one in track.portfolio.members),
            ledgers=attributed(track, booked, begin, end),
            trades=trades,
            swaps=outcomes(track.changes, track.valuations),
            facts=track.facts,
        )
