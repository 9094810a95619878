"""Verifies equities and totals stored to shorten reads against the full history."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from app.foundation.decimal_math import EXACT
from app.performance.domain.backfilled_marks import (
    INDEX,
    backfilled_marks_of,
    broken_since,
    with_backfilled_marks,
)
from app.performance.domain.equity_curve import Curve, EquityStep, equity_steps, walk
from app.portfolio.domain.event_log import WEIGHS, EventType, PortfolioEvent
from app.portfolio.domain.returns import BookedTotal

_Kept = tuple[Decimal | None, str | None, datetime | None]


def equity_faults(events: Sequence[PortfolioEvent]) -> list[str]:
    """Rebalances whose stored equity differs from the one computed from the history.

    Each is computed with the mark prices known up to it: those of the changes, and the backfilled
    ones that it or an earlier rebalance names.
    """
    changes = equity_steps(events)
    curve, equities = _walked(changes)
    wrong = []
    for event in events:
        kept = event.payload.get(INDEX) if event.type in WEIGHS else None
        if kept is None:
            continue  # stored before rebalances recorded their equity
        late = backfilled_marks_of(event)
        if late:
            changes = with_backfilled_marks(changes, late)
            curve, equities = _walked(changes)
        equity = None if kept["equity"] is None else Decimal(kept["equity"])
        came_to: _Kept = (equities[int(event.payload["version"])], None, None)
        if equity is None and curve.broken is not None:
            came_to = (None, curve.broken, curve.broken_at)
        # Older rebalances do not record the start of the gap.
        since = broken_since(event) if "broken_at" in kept else came_to[2]
        if (equity, kept["broken"], since) != came_to:
            wrong.append(f"event {event.seq} keeps another equity than the history comes to")
    return wrong


def _walked(changes: Sequence[EquityStep]) -> tuple[Curve, dict[int, Decimal | None]]:
    """Curve and the equity of each version."""
    curve = walk(changes, ())
    points = zip(changes, curve.points, strict=True)
    return curve, {step.version: point.equity for step, point in points}


def total_faults(events: Iterable[PortfolioEvent], kept: Iterable[BookedTotal]) -> list[str]:
    """Symbols whose total of booked results differs from their events."""
    nets = {(one.symbol_id, one.currency): one.net for one in kept}
    booked = [one.payload["trade"] for one in events if one.type is EventType.PERFORMANCE]
    sums = dict.fromkeys(nets, Decimal(0))
    for trade in booked:
        key = (trade["symbol_id"], trade["currency"])
        sums[key] = EXACT.add(sums.get(key, Decimal(0)), Decimal(trade["net"]))
    return [
        f"the sum of {symbol_id} in {currency} is not that of its events"
        for symbol_id, currency in sorted(sums)
        if sums[symbol_id, currency] != nets.get((symbol_id, currency))
    ]
