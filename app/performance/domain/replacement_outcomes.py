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
from app.market.domain.segments import Redenomination, find_crossed_change
from app.performance.domain.equity_curve import EquityStep, RecordedReplacement, Valuation

_UPPER: Final = 0.975
_DEFAULT_INTERVAL_MS: Final = 8 * 3_600_000  # of a rate without an interval
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
        gross, costs = self.difference, (self.fees, self.spread, self.funding)
        known = [cost for cost in costs if cost is not None]
        return None if gross is None or len(known) < len(costs) else gross - sum(known)

    @property
    def net_reason(self) -> str | None:
        """Reason for an unknown net figure."""
        return self.reason or self.cost_reason

    @property
    def outperformed(self) -> bool | None:
        """True if the net gain is positive; None if unknown."""
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


def create_ledger(lines: Sequence[ReplacementOutcome]) -> ReplacementLedger:
    """Creates the ledger of replacements, which count as independent of one another."""
    nets = [one.net for one in lines if one.net is not None]
    count, missing = len(nets), len(lines) - len(nets)
    reason = f"{missing} of {len(lines)} have no net figure and are left out" if missing else None
    if not nets:
        return ReplacementLedger(
            tuple(lines), None, None, None, 0, reason or "there are no replacements"
        )
    total, half = fsum(nets), None
    if count > 1:
        half = float(stdtrit(count - 1, _UPPER)) * stdev(nets) * sqrt(count)
    low, high = (None, None) if half is None else (total - half, total + half)
    return ReplacementLedger(tuple(lines), total, low, high, count, reason)


def compute_outcomes(
    changes: Sequence[EquityStep],
    valuations: Sequence[Valuation],
    delisted: Collection[str] = (),
    rates: Mapping[str, Sequence[Funding]] = MappingProxyType({}),
) -> tuple[ReplacementOutcome, ...]:
    """Computes the outcome of every replacement, oldest first, at `valuations` in time order.

    A `delisted` symbol has realised its last price (QUANT.md section 0). `rates` are the settled
    funding rates by symbol id, oldest first, from before the first replacement on.
    """
    return tuple(
        _outcome(step, replacement, changes[number + 1 :], valuations, delisted, rates)
        for number, step in enumerate(changes)
        for replacement in step.replacements
    )


def _outcome(
    step: EquityStep,
    replacement: RecordedReplacement,
    later: Sequence[EquityStep],
    valuations: Sequence[Valuation],
    delisted: Collection[str],
    rates: Mapping[str, Sequence[Funding]],
) -> ReplacementOutcome:
    left = next((one for one in later if replacement.new not in one.weights), None)
    ended = tuple(name for name in (replacement.old, replacement.new) if name in delisted)
    moments = _valuation_moments(step, replacement, left, valuations)
    path = tuple(_path(step, replacement, moments, ended))
    pair = (replacement.old, replacement.new)
    changed = next(
        (name for name in pair if moments and _is_redenominated(step, name, *moments[-1])), ""
    )
    last = path[-1] if path else ReturnPair(step.at, None, None)
    unknown = next(
        (name for name in (replacement.old, replacement.new) if name not in step.marks), None
    )
    reasons = (
        (unknown is not None, f"the mark of {unknown} at the replacement is unknown"),
        (not path, "no price is known since"),
        (changed != "", f"{changed} was redenominated since, so its return is unknown"),
        (last.old is None, f"no price of {replacement.old} is known"),
        (last.new is None, f"no price of {replacement.new} is known"),
    )
    old_paid = _funding_paid(
        rates.get(replacement.old_id, ()),
        step.at,
        [(moment.at, moment.old) for moment in path],
        is_delisted=replacement.old in ended,
    )
    new_paid = _funding_paid(
        rates.get(replacement.new_id, ()),
        step.at,
        [(moment.at, moment.new) for moment in path],
        is_delisted=replacement.new in ended,
    )
    costs = (
        (replacement.fees is None, "the fees at the replacement are unknown"),
        (replacement.spread is None, "the spread at the replacement is unknown"),
        (old_paid is None, f"the funding of {replacement.old} since the replacement is unknown"),
        (new_paid is None, f"the funding of {replacement.new} since the replacement is unknown"),
    )
    return ReplacementOutcome(
        fees=None if replacement.fees is None else float(replacement.fees),
        spread=None if replacement.spread is None else float(replacement.spread),
        funding=None if old_paid is None or new_paid is None else new_paid - old_paid,
        cost_reason=next((reason for applies, reason in costs if applies), None),
        improvement_z=replacement.improvement_z,
        threshold_z=replacement.threshold_z,
        at=step.at,
        old=replacement.old,
        new=replacement.new,
        path=path,
        ended_at=None if left is None else left.at,
        delisted=ended,
        old_return=last.old,
        new_return=last.new,
        reason=next((reason for applies, reason in reasons if applies), None),
    )


def _funding_paid(
    rates: Sequence[Funding],
    begin: datetime,
    returns: Sequence[tuple[datetime, float | None]],
    *,
    is_delisted: bool,
) -> float | None:
    """Funding paid by a long from `begin` to the last of `returns`, as a fraction of `begin`.

    None if a settlement may be missing: no rate before `begin`, two rates further apart than
    their interval, or a last one older than the interval plus the polling time.
    """
    if not returns:
        return None
    begin_ms, end_ms = (round(one.timestamp() * 1000) for one in (begin, returns[-1][0]))
    past = [rate for rate in rates if rate.settled_ms <= begin_ms]
    since = [rate for rate in rates if begin_ms < rate.settled_ms <= end_ms]
    chain = [*past[-1:], *since]
    if not past or any(
        second.settled_ms - first.settled_ms
        > (second.interval_ms or _DEFAULT_INTERVAL_MS) + _LATE_MS
        for first, second in pairwise(chain)
    ):
        return None
    if (
        not is_delisted
        and end_ms - chain[-1].settled_ms
        > (chain[-1].interval_ms or _DEFAULT_INTERVAL_MS) + _LATE_MS
    ):
        return None
    total = 0.0
    for rate in since:
        known = [
            gain
            for at, gain in returns
            if gain is not None and at.timestamp() * 1000 <= rate.settled_ms
        ]
        total += float(rate.rate) * (1.0 + (known[-1] if known else 0.0))
    return total


_Changes = Mapping[str, tuple[Redenomination, ...]]
_PricesAt = tuple[datetime, Mapping[str, Decimal], _Changes]


def _valuation_moments(
    step: EquityStep,
    replacement: RecordedReplacement,
    left: EquityStep | None,
    valuations: Sequence[Valuation],
) -> list[_PricesAt]:
    moments: list[_PricesAt] = [
        (one.at, one.prices, one.redenominated)
        for one in valuations
        if one.at > step.at and (left is None or one.at < left.at)
    ]
    if left is not None and {replacement.old, replacement.new} <= left.marks.keys():
        moments.append((left.at, left.marks, left.redenominated))
    return moments


def _is_redenominated(
    step: EquityStep, name: str, at: datetime, prices: Mapping[str, Decimal], changes: _Changes
) -> bool:
    """True if a redenomination lies between the mark at the replacement and the price."""
    if name not in prices or name not in step.marks:
        return False
    first, last = (step.at, step.marks[name]), (at, prices[name])
    return find_crossed_change(changes.get(name, ()), first, last) is not None


def _path(
    step: EquityStep,
    replacement: RecordedReplacement,
    moments: Sequence[_PricesAt],
    gone: Collection[str],
) -> Iterator[ReturnPair]:
    last = {name: step.marks[name] for name in gone if name in step.marks}
    for at, prices, changes in moments:
        last |= {name: prices[name] for name in gone if name in prices}
        known = {**last, **prices}
        returns = (
            float(known[name] / step.marks[name]) - 1.0
            if name in known
            and name in step.marks
            and not _is_redenominated(step, name, at, known, changes)
            else None
            for name in (replacement.old, replacement.new)
        )
        yield ReturnPair(at, *returns)
