"""Notional equity curve: an index from 1 that follows recorded weights and prices.

Every change of weights closes and opens positions at the marks of that moment; between changes a
position follows its price. All amounts are exact multiples of 1e-18 of the index: the gains of
the symbols add up exactly to the change of the equity.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import numpy as np

from app.foundation.decimal_math import EXACT, total
from app.market.domain.segments import Redenomination, find_crossed_change
from app.portfolio.domain.event_log import MOVES, WEIGHS, EventType, PortfolioEvent, instant
from app.portfolio.domain.models import FULL
from app.portfolio.domain.returns import Figures, compute_equity_figures, compute_figures

_Weights = dict[str, tuple[str, int]]  # symbol and micro-percent, by symbol id


@dataclass(frozen=True, slots=True)
class RecordedReplacement:
    """Replacement of one member by another, as recorded."""

    old: str
    new: str
    old_id: str = ""
    new_id: str = ""
    # Fractions of the traded value, both legs together; None: unknown or not recorded.
    fees: Decimal | None = None
    spread: Decimal | None = None  # half the spread per leg
    improvement_z: float | None = None  # None: requested by the operator
    threshold_z: float | None = None


@dataclass(frozen=True, slots=True)
class EquityStep:
    """Committed version that changed members or weights."""

    at: datetime
    version: int
    weights: Mapping[str, int]  # micro-percent of every member after it, by symbol
    is_weighed: bool  # all weights were set; False: only positions of leavers were closed
    marks: Mapping[str, Decimal]  # of members before and after, where known
    replacements: tuple[RecordedReplacement, ...]
    # Ids of members without a mark by symbol; quarantined prices are not among them.
    absent: Mapping[str, str] = field(default_factory=dict)
    # Redenominations by symbol, as known at the change.
    redenominated: Mapping[str, tuple[Redenomination, ...]] = field(default_factory=dict)


def equity_steps(events: Iterable[PortfolioEvent]) -> tuple[EquityStep, ...]:
    """Converts events, oldest first, to versions with weights and marks; others are skipped.

    The events are the whole history or start with a rebalance, which names every member.
    """
    weights: _Weights = {}
    steps: list[EquityStep] = []
    moves = (event for event in events if event.type in MOVES)
    for version, group in groupby(moves, lambda event: int(event.payload["version"])):
        same_version = tuple(group)
        for event in same_version:
            weights = _apply_event(weights, event.type, event.payload)
        steps.append(
            EquityStep(
                # A clock that was set back does not change the order of events.
                at=max([same_version[-1].occurred_at, *(step.at for step in steps[-1:])]),
                version=version,
                weights=dict(weights.values()),
                is_weighed=any(event.type in WEIGHS for event in same_version),
                marks=_marks(same_version),
                replacements=tuple(
                    _recorded_replacement(event.other_symbol, event.symbol, event.payload)
                    for event in same_version
                    if event.type is EventType.REPLACE and event.other_symbol and event.symbol
                ),
                absent=_absent(same_version),
                redenominated=_redenominated(same_version),
            )
        )
    return tuple(steps)


def _recorded_replacement(old: str, new: str, payload: Mapping[str, Any]) -> RecordedReplacement:
    legs = payload.get("costs") or {"old": {}, "new": {}}

    def both(name: str) -> Decimal | None:
        texts = [legs[side].get(name) for side in ("old", "new")]
        return None if None in texts else sum((Decimal(one) for one in texts), Decimal(0))

    def number(name: str) -> float | None:
        return None if payload.get(name) is None else float(payload[name])

    return RecordedReplacement(
        old=old,
        new=new,
        old_id=payload["old"]["symbol_id"],
        new_id=payload["member"]["symbol_id"],
        fees=both("fee"),
        spread=both("half_spread"),
        improvement_z=number("improvement_z"),
        threshold_z=number("threshold_z"),
    )


def _apply_event(present: _Weights, kind: EventType, payload: Mapping[str, Any]) -> _Weights:
    if kind in WEIGHS:
        weights = payload["weights"].items()
        return {key: (one["symbol"], one["weight_u"]) for key, one in weights}
    member = payload["member"]
    new = (member["symbol"], member["weight_u"])
    if kind is EventType.ADD:
        return {**present, member["symbol_id"]: new}
    if kind is EventType.REMOVE:
        return {key: one for key, one in present.items() if key != member["symbol_id"]}
    old_id = payload["old"]["symbol_id"]
    replaced = [
        (member["symbol_id"], new) if key == old_id else (key, present[key]) for key in present
    ]
    # In a partial history the first event of a member may be its removal.
    return dict(replaced) if old_id in present else {**present, member["symbol_id"]: new}


def _marks(events: Sequence[PortfolioEvent]) -> dict[str, Decimal]:
    return {
        one["symbol"]: Decimal(one["mark"])
        for event in events
        for one in event.payload.get("marks", {}).values()
        if one["mark"] is not None and Decimal(one["mark"]) > 0
    }


def _redenominated(events: Sequence[PortfolioEvent]) -> dict[str, tuple[Redenomination, ...]]:
    return {
        one["symbol"]: tuple(
            Redenomination(
                instant(change["since"]),
                instant(change["until"]),
                Decimal(change["before"]),
                Decimal(change["after"]),
            )
            for change in one["redenominated"]
        )
        for event in events
        for one in event.payload.get("marks", {}).values()
        if "redenominated" in one
    }


def _absent(events: Sequence[PortfolioEvent]) -> dict[str, str]:
    """Members without a mark, unless the price was quarantined or the reason is not recorded."""
    return {
        one["symbol"]: symbol_id
        for event in events
        for symbol_id, one in event.payload.get("marks", {}).items()
        if one["mark"] is None and "doubt" in one and one["doubt"] is None
    }


ONE: Final = Decimal(1)
_GRAIN: Final = Decimal(1).scaleb(-18)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Valuation:
    """Prices at a moment between steps: daily closes or current marks."""

    at: datetime
    prices: Mapping[str, Decimal]
    redenominated: Mapping[str, tuple[Redenomination, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """Notional position since weights were last set, in units of the index."""

    opened_at: datetime
    entry: Decimal  # mark price at the opening
    notional: Decimal  # value at the opening
    value: Decimal  # value at the last known price

    def at_price(self, price: Decimal) -> Decimal:
        value = EXACT.divide(EXACT.multiply(self.notional, price), self.entry)
        return value.quantize(_GRAIN, context=EXACT)

    def redenominated(
        self, changes: Iterable[Redenomination], at: datetime, price: Decimal
    ) -> str | None:
        """Returns the redenomination that makes `price` incomparable, as text; None without one."""
        change = find_crossed_change(changes, (self.opened_at, self.entry), (at, price))
        return None if change is None else f"was redenominated after {change.since:%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Point:
    """Equity at one moment; None, with the reason, if a price was unknown.

    `gains` are the gains of each symbol since its last valuation; 1 plus all gains up to a known
    point is its equity.
    """

    at: datetime
    equity: Decimal | None
    gains: Mapping[str, Decimal]
    reason: str | None
    is_step: bool
    values: Mapping[str, Decimal] = field(default_factory=dict)  # of the positions before a step


@dataclass(frozen=True, slots=True)
class Day:
    """Equity at the start, at the end of a day or now; pnl since the previous one."""

    at: datetime
    equity: Decimal | None
    pnl: Decimal | None
    change: float | None  # simple return since the previous one
    reason: str | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Equity curve: points in time order and the positions after the last step."""

    points: tuple[Point, ...]
    positions: Mapping[str, Position]
    cash: Decimal
    broken: str | None  # reason for an unknown equity
    broken_at: datetime | None = None  # time of the change since which it is unknown


@dataclass(frozen=True, slots=True)
class EquityOpening:
    """Equity right after a rebalance, from which the curve can continue.

    `begun_at` is the inclusion of the first member; None omits the beginning from the curve.
    """

    equity: Decimal | None
    broken: str | None  # reason for an unknown equity
    begun_at: datetime | None
    broken_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _State:
    cash: Decimal
    positions: Mapping[str, Position]
    broken: str | None = None
    broken_at: datetime | None = None


def build_curve(
    changes: Sequence[EquityStep],
    valuations: Sequence[Valuation],
    opening: EquityOpening | None = None,
) -> Curve:
    """Computes the equity at every step and, from the first step on, at every valuation.

    With an `opening` the first of `changes` is its rebalance and the curve begins there; every
    later point equals the one computed from the whole history.
    """
    if not changes:
        return Curve((), {}, ONE, None)
    first = changes[0]
    points: list[Point] = []
    queue: list[EquityStep | Valuation] = [*changes]
    state = _State(ONE, {})
    if opening is not None:
        queue.remove(first)
        state, points = _opening(opening, first)
    queue += (one for one in valuations if one.at > first.at or (opening and one.at == first.at))
    # A step comes before a valuation of the same moment; the sort is stable.
    for item in sorted(queue, key=lambda one: one.at):
        if isinstance(item, EquityStep):
            state, point = _apply_step(state, item)
        else:
            state, point = _value_positions(state, item, item.prices, is_step=False)
        points.append(point)
    return Curve(tuple(points), state.positions, state.cash, state.broken, state.broken_at)


def daily_equity(curve: Curve) -> tuple[Day, ...]:
    """Returns the start and every valuation; P&L and return across a gap are unknown."""
    days: list[Day] = []
    for point in curve.points:
        if point.is_step and days:
            continue
        before = days[-1].equity if days else None
        pnl = change = None
        if before is not None and point.equity is not None:
            pnl = _difference(point.equity, before)
            change = float(pnl) / float(before) if before > 0 else None
        days.append(Day(point.at, point.equity, pnl, change, point.reason))
    return tuple(days)


@dataclass(frozen=True, slots=True)
class KnownEquity:
    """Equity recorded by a rebalance before the curve."""

    at: datetime
    equity: Decimal


def compute_track_figures(
    curve: Curve,
    earlier: Sequence[KnownEquity] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> Figures:
    """Computes performance figures at or after `since` and before `until`.

    Growth and drawdown use every known point from the last one at or before `since` on: start,
    changes of weights, closes, and now. Returns are taken between consecutive closes, and from the
    first and to the last point. A partial day and a gap count as one observation each, so that no
    gain or loss is left out. A change of weights divides a gap.
    """
    known = _known_points(curve, earlier, since, until)
    if not known:
        return compute_figures(np.empty(0))
    observed = known[:1]
    for one in known[1:]:
        if not one[2] or one[0] - observed[-1][0] >= _DAY or one is known[-1]:
            observed.append(one)
    worth = np.array([float(equity) for _, equity, _ in known])
    ends = np.array([float(equity) for _, equity, _ in observed])
    above = ends[:-1] > 0.0  # no return from zero equity
    returns = ends[1:][above] / ends[:-1][above] - 1.0
    return compute_equity_figures(worth, returns, (known[-1][0] - known[0][0]) / _DAY)


def known_equity(
    curve: Curve,
    earlier: Sequence[KnownEquity] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[KnownEquity, ...]:
    """Returns the points behind growth and drawdown of `compute_track_figures`, in time order."""
    points = _known_points(curve, earlier, since, until)
    return tuple(KnownEquity(at, equity) for at, equity, _ in points)


def _known_points(
    curve: Curve,
    earlier: Sequence[KnownEquity],
    since: datetime | None,
    until: datetime | None,
) -> list[tuple[datetime, Decimal, bool]]:
    """Time, equity and whether it is a step, from the last point at or before `since` on."""
    known = [(one.at, one.equity, True) for one in earlier]
    known += [
        (point.at, point.equity, point.is_step)
        for point in curve.points
        if point.equity is not None
    ]
    known.sort(key=lambda one: one[0])  # stable: a step stays before a valuation of the same moment
    known = [one for one in known if until is None or one[0] < until]
    if since is None:
        return known
    return known[max((at for at, one in enumerate(known) if one[0] <= since), default=0) :]


def find_drawdown(curve: Curve, earlier: Sequence[KnownEquity] = ()) -> float | None:
    """Returns the fall of the last point from the highest known one, as a positive fraction.

    None if the last point is unknown, there is none, or no point is above zero.
    """
    last = curve.points[-1].equity if curve.points else None
    if last is None:
        return None
    known = [one.equity for one in earlier]
    known += [point.equity for point in curve.points if point.equity is not None]
    peak = max(known)
    return float(1 - last / peak) if peak > 0 else None


def _opening(opening: EquityOpening, first: EquityStep) -> tuple[_State, list[Point]]:
    begun_at, equity = opening.begun_at, opening.equity
    start = () if begun_at is None else (Point(begun_at, ONE, {}, None, is_step=True),)
    points = [*start, Point(first.at, equity, {}, opening.broken, is_step=True)]
    if equity is None:
        return _State(ONE, {}, opening.broken, opening.broken_at), points
    weights = {symbol: weight for symbol, weight in first.weights.items() if weight > 0}
    return _open_positions(equity, weights, first), points


def _apply_step(state: _State, step: EquityStep) -> tuple[_State, Point]:
    state, point = _value_positions(state, step, step.marks, is_step=True)
    leavers = [symbol for symbol in state.positions if symbol not in step.weights]
    if state.broken is not None or not (step.is_weighed or leavers):
        return state, point
    weights = {symbol: weight for symbol, weight in step.weights.items() if weight > 0}
    closed = list(state.positions) if step.is_weighed else leavers
    needed = [*closed, *weights] if step.is_weighed else leavers
    missing = next((symbol for symbol in needed if symbol not in step.marks), None)
    positions = {name: state.positions[name] for name in closed}
    redenominated = _redenomination_reason(positions, step, step.marks)
    if missing is not None or redenominated is not None:
        reason = redenominated or f"the mark of {missing} at version {step.version} is unknown"
        unknown = point if point.reason is None else replace(point, reason=reason)
        return replace(state, broken=reason, broken_at=step.at), unknown
    if step.is_weighed:
        return _open_positions(_equity(state), weights, step), point
    # Positions of leavers are closed even if a remaining member has no price.
    proceeds = {name: state.positions[name].at_price(step.marks[name]) for name in leavers}
    gains = {name: _difference(proceeds[name], state.positions[name].value) for name in leavers}
    remaining = {name: one for name, one in state.positions.items() if name in step.weights}
    after = _State(total((state.cash, *proceeds.values())), remaining)
    return after, replace(point, gains={**gains, **point.gains})


def _open_positions(equity: Decimal, weights: Mapping[str, int], step: EquityStep) -> _State:
    positions = {}
    for symbol, weight_u in weights.items():
        share = EXACT.divide(EXACT.multiply(equity, Decimal(weight_u)), Decimal(FULL))
        notional = share.quantize(_GRAIN, context=EXACT)
        positions[symbol] = Position(step.at, step.marks[symbol], notional, notional)
    invested = total(one.notional for one in positions.values())
    return _State(_difference(equity, invested), positions)


def _redenomination_reason(
    positions: Mapping[str, Position], moment: EquityStep | Valuation, prices: Mapping[str, Decimal]
) -> str | None:
    """Reason why a redenominated position has no value; None without one."""
    for symbol, position in positions.items():
        changes = moment.redenominated.get(symbol, ())
        if changes and symbol in prices:
            reason = position.redenominated(changes, moment.at, prices[symbol])
            if reason is not None:
                return f"{symbol} {reason}, so its gain is unknown"
    return None


def _value_positions(
    state: _State, moment: EquityStep | Valuation, prices: Mapping[str, Decimal], *, is_step: bool
) -> tuple[_State, Point]:
    at = moment.at
    if state.broken is not None:
        return state, Point(at, None, {}, state.broken, is_step)
    missing = next((symbol for symbol in state.positions if symbol not in prices), None)
    if missing is not None:
        return state, Point(at, None, {}, f"no price of {missing} is known", is_step)
    redenominated = _redenomination_reason(state.positions, moment, prices)
    if redenominated is not None:
        return state, Point(at, None, {}, redenominated, is_step)
    after = {
        symbol: replace(one, value=one.at_price(prices[symbol]))
        for symbol, one in state.positions.items()
    }
    gains = {
        symbol: _difference(one.value, state.positions[symbol].value)
        for symbol, one in after.items()
    }
    valued = replace(state, positions=after)
    values = {symbol: one.value for symbol, one in after.items()}
    return valued, Point(at, _equity(valued), gains, None, is_step, values)


def _equity(state: _State) -> Decimal:
    return total((state.cash, *(one.value for one in state.positions.values())))


def _difference(one: Decimal, other: Decimal) -> Decimal:
    return EXACT.subtract(one, other)


@dataclass(frozen=True, slots=True)
class ValuationSnapshot:
    """Valuation at one scheduled time; later revisions of prices do not change it.

    `equity` is the value of the notional index, None with the reason if a price was unknown;
    `prices` are the known mark prices of the members.
    """

    slot: datetime
    at: datetime
    version: int
    equity: Decimal | None
    reason: str | None
    prices: Mapping[str, Decimal]
