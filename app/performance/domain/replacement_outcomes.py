"""Outcome of each replacement: returns of the old and the new symbol, net of costs."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from math import fsum, sqrt
from statistics import stdev
from types import MappingProxyType
from typing import Final

from scipy.special import stdtrit

from app.foundation.decimal_math import to_millionths
from app.market.domain.models import Funding
from app.market.domain.panel import Redenomination, find_crossed_change
from app.performance.domain.equity_curve import EquityStep, RecordedReplacement, Valuation

_UPPER: Final = 0.975
_USUAL_MS: Final = 8 * 3_600_000  # for a rate without an interval
_LATE_MS: Final = 2 * 3_600_000  # settlements are polled once an hour


@dataclass(frozen=True, slots=True)
class ReturnPair:
    """Returns of both symbols since the replacement; None where a price is unknown."""

    at: datetime
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class ReplacementOutcome:
    """Outcome of a replacement until the new member left, or now."""

    at: datetime
    old: str
    new: str
    path: tuple[ReturnPair, ...]
    ended_at: datetime | None  # removal of the new member; None while it is a member
    delisted: tuple[str, ...]  # delisted ones of the two; their last known price is used later
    old_return: float | None
    new_return: float | None
    reason: str | None  # reason for unknown returns
    # Fractions of the slot; None: unknown, see `cost_reason`.
    fees: float | None = None
    spread: float | None = None
    funding: float | None = None  # paid by the new symbol minus the old one since
    cost_reason: str | None = None
    improvement_z: float | None = None  # at the replacement; None if requested by the operator
    threshold_z: float | None = None

    @property
    def difference(self) -> float | None:
        """Gain of the replacement before costs, as a fraction of the slot."""
        if self.old_return is None or self.new_return is None:
            return None
        return self.new_return - self.old_return

    @property
    def net(self) -> float | None:
        """Gain after fees, spread and funding."""
        gained, costs = self.difference, (self.fees, self.spread, self.funding)
        known = [one for one in costs if one is not None]
        return None if gained is None or len(known) < len(costs) else gained - sum(known)

    @property
    def net_reason(self) -> str | None:
        """Reason for an unknown net figure."""
        return self.reason or self.cost_reason

    @property
    def outperformed(self) -> bool | None:
        """Whether the net gain is positive; None if unknown."""
        return None if self.net is None else to_millionths(self.net) > 0


@dataclass(frozen=True, slots=True)
class ReplacementLedger:
    """All replacements with the sum of the known net gains and its interval."""

    lines: tuple[ReplacementOutcome, ...]
    total: float | None  # fractions of a slot; None where no net figure is known
    low: float | None  # 95 % interval by Student's t; None below two figures
    high: float | None
    counted: int
    reason: str | None  # replacements missing from the total

    @property
    def unknown(self) -> int:
        return len(self.lines) - self.counted


def replacement_ledger(lines: Sequence[ReplacementOutcome]) -> ReplacementLedger:
    """Ledger of replacements, which count as independent of one another."""
    nets = [one.net for one in lines if one.net is not None]
    count, missing = len(nets), len(lines) - len(nets)
    reason = f"{missing} of {len(lines)} have no net figure and are not in it" if missing else None
    if not nets:
        return ReplacementLedger(tuple(lines), None, None, None, 0, reason or "there were none")
    total, half = fsum(nets), None
    if count > 1:
        half = float(stdtrit(count - 1, _UPPER)) * stdev(nets) * sqrt(count)
    low, high = (None, None) if half is None else (total - half, total + half)
    return ReplacementLedger(tuple(lines), total, low, high, count, reason)


def outcomes(
    changes: Sequence[EquityStep],
    valuations: Sequence[Valuation],
    delisted: Collection[str] = (),
    rates: Mapping[str, Sequence[Funding]] = MappingProxyType({}),
) -> tuple[ReplacementOutcome, ...]:
    """Outcome of every replacement, oldest first, valued at `valuations` in time order.

    A `delisted` symbol has realised its last price (QUANT.md section 0). `rates` are the settled
    funding rates by symbol id, oldest first, from before the first replacement on.
    """
    return tuple(
        _outcome(step, swap, changes[number + 1 :], valuations, delisted, rates)
        for number, step in enumerate(changes)
        for swap in step.swaps
    )


def _outcome(
    step: EquityStep,
    swap: RecordedReplacement,
    later: Sequence[EquityStep],
    valuations: Sequence[Valuation],
    delisted: Collection[str],
    rates: Mapping[str, Sequence[Funding]],
) -> ReplacementOutcome:
    left = next((one for one in later if swap.new not in one.weights), None)
    gone = tuple(name for name in (swap.old, swap.new) if name in delisted)
    moments = _moments(step, swap, left, valuations)
    path = tuple(_path(step, swap, moments, gone))
    pair = (swap.old, swap.new)
    changed = next((name for name in pair if moments and _is_changed(step, name, *moments[-1])), "")
    last = path[-1] if path else ReturnPair(step.at, None, None)
    unknown = next((name for name in (swap.old, swap.new) if name not in step.marks), None)
    reasons = (
        (unknown is not None, f"the mark of {unknown} was not known at the swap"),
        (not path, "no price is known since"),
        (changed != "", f"{changed} was redenominated since: its return is not known"),
        (last.old is None, f"no price of {swap.old} is known"),
        (last.new is None, f"no price of {swap.new} is known"),
    )
    old_paid = _paid(rates.get(swap.old_id, ()), step.at, [(one.at, one.old) for one in path],
                     is_over=swap.old in gone)  # fmt: skip
    new_paid = _paid(rates.get(swap.new_id, ()), step.at, [(one.at, one.new) for one in path],
                     is_over=swap.new in gone)  # fmt: skip
    costs = (
        (swap.fees is None, "the fees at the swap are not known"),
        (swap.spread is None, "the spread at the swap is not known"),
        (old_paid is None, f"the funding of {swap.old} since the swap is not known"),
        (new_paid is None, f"the funding of {swap.new} since the swap is not known"),
    )
    return ReplacementOutcome(
        fees=None if swap.fees is None else float(swap.fees),
        spread=None if swap.spread is None else float(swap.spread),
        funding=None if old_paid is None or new_paid is None else new_paid - old_paid,
        cost_reason=next((why for applies, why in costs if applies), None),
        improvement_z=swap.improvement_z,
        threshold_z=swap.threshold_z,
        at=step.at,
        old=swap.old,
        new=swap.new,
        path=path,
        ended_at=None if left is None else left.at,
        delisted=gone,
        old_return=last.old,
        new_return=last.new,
        reason=next((why for applies, why in reasons if applies), None),
    )


def _paid(
    rates: Sequence[Funding],
    begin: datetime,
    returns: Sequence[tuple[datetime, float | None]],
    *,
    is_over: bool,
) -> float | None:
    """Funding paid by a long from `begin` to the last of `returns`, as a fraction of `begin`.

    None where a settlement may be missing: no rate before `begin`, two rates further apart than
    their interval, or a last one older than the interval plus the polling time.
    """
    if not returns:
        return None
    begin_ms, end_ms = (round(one.timestamp() * 1000) for one in (begin, returns[-1][0]))
    past = [one for one in rates if one.settled_ms <= begin_ms]
    since = [one for one in rates if begin_ms < one.settled_ms <= end_ms]
    chain = [*past[-1:], *since]
    if not past or any(
        two.settled_ms - one.settled_ms > (two.interval_ms or _USUAL_MS) + _LATE_MS
        for one, two in pairwise(chain)
    ):
        return None
    if (
        not is_over
        and end_ms - chain[-1].settled_ms > (chain[-1].interval_ms or _USUAL_MS) + _LATE_MS
    ):
        return None
    total = 0.0
    for one in since:
        known = [
            gain
            for at, gain in returns
            if gain is not None and at.timestamp() * 1000 <= one.settled_ms
        ]
        total += float(one.rate) * (1.0 + (known[-1] if known else 0.0))
    return total


_Changes = Mapping[str, tuple[Redenomination, ...]]
_PricesAt = tuple[datetime, Mapping[str, Decimal], _Changes]


def _moments(
    step: EquityStep,
    swap: RecordedReplacement,
    left: EquityStep | None,
    valuations: Sequence[Valuation],
) -> list[_PricesAt]:
    found: list[_PricesAt] = [
        (one.at, one.prices, one.redenominated)
        for one in valuations
        if one.at > step.at and (left is None or one.at < left.at)
    ]
    if left is not None and {swap.old, swap.new} <= left.marks.keys():
        found.append((left.at, left.marks, left.redenominated))
    return found


def _is_changed(
    step: EquityStep, name: str, at: datetime, prices: Mapping[str, Decimal], changes: _Changes
) -> bool:
    """Whether a redenomination lies between the mark at the replacement and the price."""
    if name not in prices or name not in step.marks:
        return False
    first, last = (step.at, step.marks[name]), (at, prices[name])
    return find_crossed_change(changes.get(name, ()), first, last) is not None


def _path(
    step: EquityStep, swap: RecordedReplacement, moments: Sequence[_PricesAt], gone: Collection[str]
) -> Iterator[ReturnPair]:
    last = {name: step.marks[name] for name in gone if name in step.marks}
    for at, prices, changes in moments:
        last |= {name: prices[name] for name in gone if name in prices}
        known = {**last, **prices}
        returns = (
            float(known[name] / step.marks[name]) - 1.0
            if name in known
            and name in step.marks
            and not _is_changed(step, name, at, known, changes)
            else None
            for name in (swap.old, swap.new)
        )
        yield ReturnPair(at, *returns)
