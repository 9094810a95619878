"""How far back the equity has to be read: to the last weighing before what is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from app.domain.equity import Opening, walk
from app.domain.equity_steps import WEIGHS, Step, steps
from app.domain.history import Draft, PortfolioEvent, Stamp, number_text, seal
from app.storage.unit_of_work import UnitOfWork

_INDEX: Final = "index"  # in the payload of a weighing: the equity that its weights are shares of


@dataclass(frozen=True, slots=True)
class Stretch:
    """The latest part of the history; without an opening it is the whole of it."""

    changes: tuple[Step, ...]
    opening: Opening | None


async def stretch(
    unit: UnitOfWork, until: datetime, begun_at: datetime, *, has_start: bool
) -> Stretch:
    """The changes from the last weighing at or before `until` on, which says what was before.

    The history began at `begun_at`; `has_start` puts that into the opening. Weighings that were
    stored before they kept their equity make it the whole history.
    """
    weighing = await unit.history.last_weighing(until)
    if weighing is not None and weighing.occurred_at <= begun_at:
        weighing = None  # it is the beginning itself
    return await _from(unit, weighing, begun_at if has_start else None)


async def indexed(unit: UnitOfWork, drafts: Sequence[Draft], stamp: Stamp) -> tuple[Draft, ...]:
    """The drafts, those that weigh with the equity of that moment: later reads begin there."""
    if not any(draft.type in WEIGHS for draft in drafts):
        return tuple(drafts)
    before = await _from(unit, await unit.history.last_weighing(), None)
    # Its place in the chain is not known yet, and has no part in the equity.
    step = steps(seal(drafts, stamp, None))[-1]
    curve = walk((*before.changes, step), (), before.opening)
    equity = None if curve.broken is not None else curve.points[-1].equity
    index = {"equity": number_text(equity), "broken": curve.broken}
    *others, last = drafts
    return (*others, replace(last, payload={**last.payload, _INDEX: index}))


async def _from(
    unit: UnitOfWork, weighing: PortfolioEvent | None, begun_at: datetime | None
) -> Stretch:
    index = None if weighing is None else weighing.payload.get(_INDEX)
    if weighing is None or index is None:
        return Stretch(steps(await unit.history.moves()), None)
    equity = None if index["equity"] is None else Decimal(index["equity"])
    opening = Opening(equity, index["broken"], begun_at)
    read = steps(await unit.history.moves(weighing=weighing))
    version = int(weighing.payload["version"])
    return Stretch(tuple(step for step in read if step.version >= version), opening)
