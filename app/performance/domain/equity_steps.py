"""The history as steps of the equity: when which members had which weights, at which marks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

from app.market.domain.segments import Redenomination
from app.portfolio.domain.event_log import (
    EventType,
    PortfolioEvent,
    instant,
    instant_text,
    number_text,
)

WEIGHS: Final = frozenset({EventType.REBALANCE, EventType.WEIGHTS})
# What moves members or weights; nothing else has a part in the equity.
MOVES: Final = WEIGHS | {EventType.ADD, EventType.REMOVE, EventType.REPLACE}

_Held = dict[str, tuple[str, int]]  # symbol and micro-percent, by symbol id


@dataclass(frozen=True, slots=True)
class Swap:
    """One member in place of another."""

    old: str
    new: str
    old_id: str = ""
    new_id: str = ""
    # Fractions of the traded value at the swap, both legs together; None: not known or not kept.
    fees: Decimal | None = None
    spread: Decimal | None = None  # half of it per leg
    improvement_z: float | None = None  # None: the operator asked for it
    threshold_z: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A committed version that moved members or weights."""

    at: datetime
    version: int
    weights: Mapping[str, int]  # micro-percent of every member after it, by symbol
    is_weighed: bool  # all weights were set anew; otherwise only those who left were closed
    marks: Mapping[str, Decimal]  # of members before and after, where known
    swaps: tuple[Swap, ...]
    # Ids of those that had no mark, by symbol; not of those whose price was not believed.
    absent: Mapping[str, str] = field(default_factory=dict)
    # By symbol, as they were known then.
    redenominated: Mapping[str, tuple[Redenomination, ...]] = field(default_factory=dict)


def steps(events: Iterable[PortfolioEvent]) -> tuple[Step, ...]:
    """Events, oldest first, as versions with weights and marks; what moves nothing is left out.

    They are the whole history, or a part that begins with a weighing: that names every member.
    """
    held: _Held = {}
    found: list[Step] = []
    moves = (event for event in events if event.type in MOVES)
    for version, group in groupby(moves, lambda event: int(event.payload["version"])):
        together = tuple(group)
        for event in together:
            held = _after(held, event.type, event.payload)
        found.append(
            Step(
                # A clock that was set back does not change the order in which things happened.
                at=max([together[-1].occurred_at, *(step.at for step in found[-1:])]),
                version=version,
                weights=dict(held.values()),
                is_weighed=any(event.type in WEIGHS for event in together),
                marks=_marks(together),
                swaps=tuple(
                    _swap(event.other_symbol, event.symbol, event.payload)
                    for event in together
                    if event.type is EventType.REPLACE and event.other_symbol and event.symbol
                ),
                absent=_absent(together),
                redenominated=_redenominated(together),
            )
        )
    return tuple(found)


def _swap(old: str, new: str, payload: Mapping[str, Any]) -> Swap:
    legs = payload.get("costs") or {"old": {}, "new": {}}

    def both(name: str) -> Decimal | None:
        texts = [legs[side].get(name) for side in ("old", "new")]
        return None if None in texts else sum((Decimal(one) for one in texts), Decimal(0))

    def number(name: str) -> float | None:
        return None if payload.get(name) is None else float(payload[name])

    return Swap(
        old=old,
        new=new,
        old_id=payload["old"]["symbol_id"],
        new_id=payload["member"]["symbol_id"],
        fees=both("fee"),
        spread=both("half_spread"),
        improvement_z=number("improvement_z"),
        threshold_z=number("threshold_z"),
    )


def _after(held: _Held, kind: EventType, payload: Mapping[str, Any]) -> _Held:
    if kind in WEIGHS:
        weights = payload["weights"].items()
        return {key: (one["symbol"], one["weight_u"]) for key, one in weights}
    member = payload["member"]
    new = (member["symbol"], member["weight_u"])
    if kind is EventType.ADD:
        return {**held, member["symbol_id"]: new}
    if kind is EventType.REMOVE:
        return {key: one for key, one in held.items() if key != member["symbol_id"]}
    gone = payload["old"]["symbol_id"]
    kept = [(member["symbol_id"], new) if key == gone else (key, held[key]) for key in held]
    # A part of the history may name a member first where it leaves.
    return dict(kept) if gone in held else {**held, member["symbol_id"]: new}


def _marks(events: Sequence[PortfolioEvent]) -> dict[str, Decimal]:
    return {
        one["symbol"]: Decimal(one["mark"])
        for event in events
        for one in event.payload.get("marks", {}).values()
        if one["mark"] is not None and Decimal(one["mark"]) > 0
    }


def redenominations_payload(changes: Iterable[Redenomination]) -> list[dict[str, str]]:
    """As an event keeps them beside a mark."""
    return [
        {
            "since": instant_text(one.since),
            "until": instant_text(one.until),
            "before": str(number_text(one.before)),
            "after": str(number_text(one.after)),
        }
        for one in changes
    ]


def _redenominated(events: Sequence[PortfolioEvent]) -> dict[str, tuple[Redenomination, ...]]:
    return {
        one["symbol"]: tuple(
            Redenomination(
                instant(kept["since"]),
                instant(kept["until"]),
                Decimal(kept["before"]),
                Decimal(kept["after"]),
            )
            for kept in one["redenominated"]
        )
        for event in events
        for one in event.payload.get("marks", {}).values()
        if "redenominated" in one
    }


def _absent(events: Sequence[PortfolioEvent]) -> dict[str, str]:
    """Where a history does not say why a mark is missing it may have been one not believed."""
    return {
        one["symbol"]: symbol_id
        for event in events
        for symbol_id, one in event.payload.get("marks", {}).items()
        if one["mark"] is None and "doubt" in one and one["doubt"] is None
    }
