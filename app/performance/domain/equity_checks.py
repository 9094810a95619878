"""Verifies equities and totals stored to shorten reads against the full history."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from app.foundation.decimal_math import EXACT
from app.performance.domain.backfilled_marks import (
    INDEX,
    marks_from_event,
    unknown_since,
    with_backfilled_marks,
)
from app.performance.domain.equity_curve import Curve, EquityStep, build_curve, equity_steps
from app.portfolio.domain.event_log import WEIGHS, EventType, PortfolioEvent
from app.portfolio.domain.returns import BookedTotal

_StoredEquity = tuple[Decimal | None, str | None, datetime | None]


def equity_faults(events: Sequence[PortfolioEvent]) -> list[str]:
    """Finds rebalances whose stored equity differs from the one computed from the history.

    Each is computed with the mark prices known up to it: marks of the changes, and backfilled
    marks in the payload of it or of an earlier rebalance.
    """
    changes = equity_steps(events)
    curve, equities = _compute_equities(changes)
    faults = []
    for event in events:
        stored = event.payload.get(INDEX) if event.type in WEIGHS else None
        if stored is None:
            continue  # from before rebalances recorded their equity
        late = marks_from_event(event)
        if late:
            changes = with_backfilled_marks(changes, late)
            curve, equities = _compute_equities(changes)
        equity = None if stored["equity"] is None else Decimal(stored["equity"])
        computed: _StoredEquity = (equities[int(event.payload["version"])], None, None)
        if equity is None and curve.broken is not None:
            computed = (None, curve.broken, curve.broken_at)
        # Older rebalances do not record the start of the gap.
        since = unknown_since(event) if "broken_at" in stored else computed[2]
        if (equity, stored["broken"], since) != computed:
            faults.append(f"event {event.seq} stores another equity than the history gives")
    return faults


def _compute_equities(changes: Sequence[EquityStep]) -> tuple[Curve, dict[int, Decimal | None]]:
    """Computes the curve and the equity of each version."""
    curve = build_curve(changes, ())
    points = zip(changes, curve.points, strict=True)
    return curve, {step.version: point.equity for step, point in points}


def total_faults(events: Iterable[PortfolioEvent], totals: Iterable[BookedTotal]) -> list[str]:
    """Finds symbols whose stored total of booked results differs from their events."""
    nets = {(one.symbol_id, one.currency): one.net for one in totals}
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
