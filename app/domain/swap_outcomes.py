"""Did each replacement pay: the path of the old symbol against that of the new one."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.equity import Valuation
from app.domain.equity_steps import Step, Swap
from app.domain.exact import to_millionths


@dataclass(frozen=True, slots=True)
class Moment:
    """Both returns since the swap; None where a price is not known."""

    at: datetime
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class SwapOutcome:
    """A swap and what came of it, up to the day the new member left, or now."""

    at: datetime
    old: str
    new: str
    path: tuple[Moment, ...]
    ended_at: datetime | None  # when the new member left; None while it is in
    delisted: tuple[str, ...]  # of the two, whose last known price stands for all later ones
    old_return: float | None
    new_return: float | None
    reason: str | None  # why it is not known

    @property
    def difference(self) -> float | None:
        """What the swap gained, as a fraction of the slot; before costs."""
        if self.old_return is None or self.new_return is None:
            return None
        return self.new_return - self.old_return

    @property
    def has_paid(self) -> bool | None:
        return None if self.difference is None else to_millionths(self.difference) > 0


def outcomes(
    changes: Sequence[Step], valuations: Sequence[Valuation], delisted: Collection[str] = ()
) -> tuple[SwapOutcome, ...]:
    """Every swap of the history, oldest first, valued at `valuations` in time order.

    What is `delisted` has realised its last price (QUANT.md section 0).
    """
    return tuple(
        _outcome(step, swap, changes[number + 1 :], valuations, delisted)
        for number, step in enumerate(changes)
        for swap in step.swaps
    )


def _outcome(
    step: Step,
    swap: Swap,
    later: Sequence[Step],
    valuations: Sequence[Valuation],
    delisted: Collection[str],
) -> SwapOutcome:
    left = next((one for one in later if swap.new not in one.weights), None)
    gone = tuple(name for name in (swap.old, swap.new) if name in delisted)
    path = tuple(_path(step, swap, left, valuations, gone))
    last = path[-1] if path else Moment(step.at, None, None)
    unknown = next((name for name in (swap.old, swap.new) if name not in step.marks), None)
    reasons = (
        (unknown is not None, f"the mark of {unknown} was not known at the swap"),
        (not path, "no price is known since"),
        (last.old is None, f"no price of {swap.old} is known"),
        (last.new is None, f"no price of {swap.new} is known"),
    )
    return SwapOutcome(
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


def _path(
    step: Step,
    swap: Swap,
    left: Step | None,
    valuations: Sequence[Valuation],
    gone: Collection[str],
) -> Iterator[Moment]:
    prices = [
        (one.at, one.prices)
        for one in valuations
        if one.at > step.at and (left is None or one.at < left.at)
    ]
    if left is not None and {swap.old, swap.new} <= left.marks.keys():
        prices.append((left.at, left.marks))
    last = {name: step.marks[name] for name in gone if name in step.marks}
    for at, told in prices:
        last |= {name: told[name] for name in gone if name in told}
        known = {**last, **told}
        returns = (
            float(known[name] / step.marks[name]) - 1.0
            if name in known and name in step.marks
            else None
            for name in (swap.old, swap.new)
        )
        yield Moment(at, *returns)
