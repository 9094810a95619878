"""How far back the equity has to be read: to the last weighing before what is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.foundation.sql.unit_of_work import UnitOfWork
from app.performance.domain.equity_curve import Curve, KnownEquity, Opening, Valuation, walk
from app.performance.domain.equity_steps import WEIGHS, Step, steps
from app.performance.domain.late_marks import (
    INDEX,
    LateMark,
    broken_since,
    completed,
    is_given_up,
    kept_by,
    missed,
    payload_of,
)
from app.portfolio.domain.event_log import (
    Draft,
    PortfolioEvent,
    Stamp,
    instant_text,
    number_text,
    seal,
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The latest part of the history; without an opening it is the whole of it."""

    changes: tuple[Step, ...]
    opening: Opening | None
    late: tuple[LateMark, ...] = ()  # marks of these changes that were found later
    is_given_up: bool = False  # what is missing is not looked up any more


async def stretch(
    unit: UnitOfWork, until: datetime, begun_at: datetime, *, has_start: bool
) -> Stretch:
    """The changes from the last weighing at or before `until` on, which says what was before.

    The history began at `begun_at`; `has_start` puts that into the opening. Weighings that were
    stored before they kept their equity make it the whole history; one that did not know its
    equity, for a mark that may still be found, makes it begin before that mark was missed.
    """
    weighing = await _sound(unit, await unit.history.last_weighing(until))
    if weighing is not None and weighing.occurred_at <= begun_at:
        weighing = None  # it is the beginning itself
    return await _from(unit, weighing, begun_at if has_start else None)


async def followed(
    unit: UnitOfWork, read: Stretch, valuations: Sequence[Valuation]
) -> tuple[Stretch, Curve]:
    """The curve, and what it was made of: marks that it breaks for want of are looked up."""
    curve = walk(read.changes, valuations, read.opening)
    is_lost = read.opening is not None and read.opening.broken is not None
    if curve.broken is None or is_lost or read.is_given_up:
        return read, curve
    wanted = missed(read.changes)
    closes = await unit.hourly_bars.closes({(one.symbol_id, one.opened_ms) for one in wanted})
    found = [
        LateMark.of(one, closes[one.symbol_id, one.opened_ms])
        for one in wanted
        if (one.symbol_id, one.opened_ms) in closes
    ]
    if not found:
        return read, curve
    whole = replace(read, changes=completed(read.changes, found), late=(*read.late, *found))
    return whole, walk(whole.changes, valuations, whole.opening)


async def weighed_before(unit: UnitOfWork, version: int) -> tuple[KnownEquity, ...]:
    """The equities that weighings before that version have kept, oldest first."""
    found = []
    for at, made, index in await unit.history.weighed(INDEX):
        if made < version and index is not None and index["equity"] is not None:
            found.append(KnownEquity(at, Decimal(index["equity"])))
    return tuple(found)


async def indexed(unit: UnitOfWork, drafts: Sequence[Draft], stamp: Stamp) -> tuple[Draft, ...]:
    """The drafts, those that weigh with the equity of that moment: later reads begin there.

    What that rests on and no event has named yet goes along, so that the history proves it.
    """
    if not any(draft.type in WEIGHS for draft in drafts):
        return tuple(drafts)
    before = await _from(unit, await _sound(unit, await unit.history.last_weighing()), None)
    # Its place in the chain is not known yet, and has no part in the equity.
    step = steps(seal(drafts, stamp, None))[-1]
    read = replace(before, changes=(*before.changes, step))
    whole, curve = await followed(unit, read, ())
    equity = None if curve.broken is not None else curve.points[-1].equity
    index: dict[str, Any] = {"equity": number_text(equity), "broken": curve.broken}
    if curve.broken_at is not None:
        index["broken_at"] = instant_text(curve.broken_at)
    if whole.late != before.late:
        index["late_marks"] = payload_of(whole.late[len(before.late) :])
    *others, last = drafts
    return (*others, replace(last, payload={**last.payload, INDEX: index}))


async def _sound(unit: UnitOfWork, weighing: PortfolioEvent | None) -> PortfolioEvent | None:
    """The weighing, or the last one before its equity was lost where that may still be found."""
    while weighing is not None and not is_given_up(weighing):
        since = broken_since(weighing)
        if since is None:
            break
        earlier = await unit.history.last_weighing(since - datetime.resolution)
        # Where a clock was set back a later one may bear an earlier time.
        weighing = earlier if earlier is not None and earlier.seq < weighing.seq else None
    return weighing


async def _from(
    unit: UnitOfWork, weighing: PortfolioEvent | None, begun_at: datetime | None
) -> Stretch:
    index = None if weighing is None else weighing.payload.get(INDEX)
    if weighing is None or index is None:
        events = await unit.history.moves()
        return _stretch(events, steps(events), None)
    equity = None if index["equity"] is None else Decimal(index["equity"])
    opening = Opening(equity, index["broken"], begun_at, broken_since(weighing))
    events = await unit.history.moves(weighing=weighing)
    version = int(weighing.payload["version"])
    changes = tuple(step for step in steps(events) if step.version >= version)
    return _stretch(events, changes, opening)


def _stretch(
    events: Sequence[PortfolioEvent], changes: tuple[Step, ...], opening: Opening | None
) -> Stretch:
    late = tuple(one for event in events for one in kept_by(event))
    given_up = any(is_given_up(event) for event in events)
    return Stretch(completed(changes, late), opening, late, given_up)
