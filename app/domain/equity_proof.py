"""What is kept to shorten reads, against the history that it is made of."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from app.domain.equity import walk
from app.domain.equity_steps import WEIGHS, steps
from app.domain.exact import EXACT
from app.domain.history import EventType, PortfolioEvent
from app.domain.performance import BookedTotal


def equity_faults(events: Sequence[PortfolioEvent]) -> list[str]:
    """The weighings of a whole history that keep another equity than the history comes to."""
    changes = steps(events)
    curve = walk(changes, ())
    points = zip(changes, curve.points, strict=True)
    equities = {step.version: point.equity for step, point in points}
    wrong = []
    for event in events:
        kept = event.payload.get("index") if event.type in WEIGHS else None
        if kept is None:
            continue  # stored before weighings kept their equity
        equity = None if kept["equity"] is None else Decimal(kept["equity"])
        came_to: tuple[Decimal | None, str | None] = (equities[int(event.payload["version"])], None)
        if equity is None and curve.broken is not None:
            came_to = (None, curve.broken)
        if (equity, kept["broken"]) != came_to:
            wrong.append(f"event {event.seq} keeps another equity than the history comes to")
    return wrong


def total_faults(events: Iterable[PortfolioEvent], kept: Iterable[BookedTotal]) -> list[str]:
    """The symbols whose sum of booked results is not that of their events."""
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
