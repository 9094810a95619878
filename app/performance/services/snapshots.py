"""Notes what the portfolio is worth, slot by slot; what was noted is not made up afterwards."""

from dataclasses import dataclass
from datetime import datetime

from app.performance.domain.equity_curve import ValuationSnapshot
from app.performance.services.equity_reader import EquityQuery, load_equity
from app.performance.services.service import Performance
from app.performance.storage.snapshots import ValuationSnapshotRepository
from app.portfolio.storage.history import HistoryRepository


@dataclass(frozen=True, slots=True)
class ValuationSnapshots:
    """Records scheduled valuations; times without a running service stay without one."""

    performance: Performance

    async def note(self, slot: datetime) -> ValuationSnapshot | None:
        """Valuation of a scheduled time, recorded now unless it exists.

        None without a portfolio, and for a time before its first member.
        """
        async with self.performance.database.write() as unit:
            begun = await unit.get(HistoryRepository).first_move_at()
            if begun is None or slot < begun:
                return None
            context = self.performance.contexts
            # Only the moment of now is asked for: the history is read from the last weighing on.
            track = await load_equity(unit, context, EquityQuery(has_days=False))
            if not track.days:
                return None
            now = track.days[-1]
            marks = {one.symbol: track.context.mark(one.symbol) for one in track.portfolio.members}
            mark = ValuationSnapshot(
                slot=slot,
                at=track.context.at,
                version=track.portfolio.version,
                equity=now.equity,
                reason=now.reason,
                prices={symbol: price for symbol, price in marks.items() if price is not None},
            )
            await unit.get(ValuationSnapshotRepository).note(mark)
        return mark

    async def page(
        self,
        limit: int,
        after: datetime | None,
        since: datetime | None,
        until: datetime | None,
    ) -> tuple[ValuationSnapshot, ...]:
        """Oldest first."""
        async with self.performance.database.read() as unit:
            return await unit.get(ValuationSnapshotRepository).page(limit, after, since, until)
