"""Replacing a weak member: an improvement beyond noise and cost, confirmed, with what blocks it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import hypot
from typing import Final

from scipy.special import ndtr

from app.configuration.domain.model import Configuration, ReplacementSettings
from app.foundation.decimal_math import is_above, to_millionths
from app.market.domain.models import DAYS_A_YEAR
from app.portfolio.domain.candidate_selection import Candidate, Correlation, crowded, refuse

_BP: Final = 10_000.0


class Block(StrEnum):
    """Why a swap is not carried out now."""

    MARKET_DATA_STALE = "market_data_stale"
    MARKET_HALTED = "market_halted"
    TRADING_DISABLED = "trading_disabled"
    NO_CANDIDATE = "no_candidate"
    NOISE_UNKNOWN = "noise_unknown"
    COST_UNKNOWN = "cost_unknown"
    IMPROVEMENT_TOO_SMALL = "improvement_too_small"
    UNCONFIRMED = "unconfirmed"
    MIN_HOLDING = "min_holding"
    COOLDOWN = "cooldown"
    PINNED = "pinned"
    CONTRACT_PAUSED = "contract_paused"
    CYCLE_LIMIT = "cycle_limit"


@dataclass(frozen=True, slots=True)
class Contender:
    """One side of a swap as it stands now; None is not known."""

    symbol: str
    sector: str
    score: float | None
    z: float | None
    confidence: float | None
    trading_cost: float | None  # fraction of the traded value, one way
    funding: float | None = None  # that longs pay, annualised fraction


@dataclass(frozen=True, slots=True)
class Leaver:
    """A member that may have to go."""

    contender: Contender
    held: timedelta
    forced: str | None  # why it cannot stay, or None
    is_pinned: bool
    is_paused: bool = False  # no order is taken in its contract now


@dataclass(frozen=True, slots=True)
class Entrant:
    """A symbol of the board that may come in."""

    contender: Contender
    candidate: Candidate  # not tradeable if it is banned


@dataclass(frozen=True, slots=True)
class Tally:
    """How often in a row `candidate` was found better than the member by more than the threshold.

    `is_confirmed`: nothing stood in the way at the last count; such a member is not funded.
    """

    symbol: str  # the member
    candidate: str
    count: int
    input_hash: str  # of the board that was counted last
    counted_at: datetime
    is_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Vacancy:
    """The seat of a member that was forced out while no complete board named a replacement."""

    symbol: str  # of that member
    reason: str  # why it could not stay
    vacated_at: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidate against the member in composite z; None where something is not known."""

    improvement: float | None
    noise: float | None  # of the difference
    cost: float | None  # what the swap costs, in z

    def threshold(self, rules: ReplacementSettings) -> float | None:
        if self.noise is None or self.cost is None:
            return None
        return rules.noise_multiple * self.noise + self.cost

    def exceeds(self, rules: ReplacementSettings) -> bool:
        """Strictly more than the threshold; no if anything is unknown."""
        limit = self.threshold(rules)
        if limit is None or self.improvement is None:
            return False
        return is_above(self.improvement, limit)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A member, the best symbol in its place, and what blocks the swap; nothing: it is due."""

    leaver: Leaver
    candidate: Contender | None
    comparison: Comparison
    threshold: float | None  # z
    strength: float | None  # 0..1
    confirmations: int
    blocked_by: tuple[Block, ...]

    @property
    def is_due(self) -> bool:
        return not self.blocked_by

    @property
    def is_forced(self) -> bool:
        return self.leaver.forced is not None

    @property
    def score_improvement(self) -> float | None:
        old = self.leaver.contender.score
        new = None if self.candidate is None else self.candidate.score
        return None if old is None or new is None else new - old


def noise_of(measured: float | None, rules: ReplacementSettings) -> float | None:
    """The measured noise of a composite z, else the default of the settings; None: not known."""
    return rules.noise_default or None if measured is None else measured


def admissible(
    entrants: Iterable[Entrant],
    leaver: Leaver,
    others: Sequence[Contender],
    correlation: Correlation,
    configuration: Configuration,
) -> Iterable[Entrant]:
    """Those who may take the leaver's place beside `others`, in the given order."""
    names = tuple(other.symbol for other in others)
    least = to_millionths(configuration.replacement.min_confidence)
    for entrant in entrants:
        one = entrant.contender
        confidence = one.confidence
        if (
            confidence is not None
            and to_millionths(confidence) >= least
            and not crowds(one.sector, leaver.contender.sector, others, configuration)
            and refuse(entrant.candidate, names, correlation, configuration) is None
        ):
            yield entrant


def crowds(
    sector: str, left: str, others: Iterable[Contender], configuration: Configuration
) -> bool:
    """Whether one of `sector` in place of one of `left` is more than a sector may hold.

    Like for like makes nothing worse.
    """
    return sector != left and crowded(sector, (other.sector for other in others), configuration)


def preferred(
    entrants: Iterable[Entrant], pending: Tally | None, wanted: Callable[[Entrant], bool]
) -> Entrant | None:
    """The best one, or the one being confirmed while it is still `wanted`; None of no entrants.

    Without that preference two equal rivals would take turns and neither be confirmed.
    """
    best: Entrant | None = None
    for entrant in entrants:
        if pending is None:
            return entrant
        best = best or entrant
        if entrant.contender.symbol == pending.candidate and wanted(entrant):
            return entrant
    return best


def compare(
    old: Contender, new: Contender, noise: Mapping[str, float], rules: ReplacementSettings
) -> Comparison:
    """Improvement, noise and cost of putting `new` in place of `old`, all in z.

    The cost of both legs, and on request what funding differs, is spread over the return that a
    unit of z brings within the horizon. Source: QUANT section 7.
    """
    improvement = None if old.z is None or new.z is None else new.z - old.z
    sides = noise.get(old.symbol), noise.get(new.symbol)
    costs = [old.trading_cost, new.trading_cost]
    if rules.count_funding:
        known = old.funding is not None and new.funding is not None
        dearer = (new.funding or 0.0) - (old.funding or 0.0)
        costs.append(dearer * rules.horizon_days / DAYS_A_YEAR if known else None)
    paid = [one for one in costs if one is not None]
    return Comparison(
        improvement,
        None if sides[0] is None or sides[1] is None else hypot(sides[0], sides[1]),
        None
        if len(paid) < len(costs)
        else sum(paid) * _BP / (rules.return_per_z * rules.horizon_days),
    )


def counted(
    former: Tally | None,
    old: str,
    new: str,
    input_hash: str,
    at: datetime,
    interval: timedelta,
    *,
    since: timedelta | None = None,
    exceeds: bool,
) -> Tally | None:
    """The tally after one more look, None where it does not exceed.

    A board counts once, and within `interval` of a counted look no other is counted. `since` is
    the proven time since that look, by default that between the stamps. A look that is still to
    come by its stamp was stamped by a wrong clock: it counts as one of now.
    """
    if not exceeds:
        return None
    if former is None or former.candidate != new:
        return Tally(old, new, 1, input_hash, at)
    if former.counted_at > at:
        return replace(former, counted_at=at)
    passed = at - former.counted_at if since is None else since
    if former.input_hash == input_hash or passed < interval:
        return former
    return replace(former, count=former.count + 1, input_hash=input_hash, counted_at=at)


def propose(
    leaver: Leaver,
    candidate: Contender | None,
    noise: Mapping[str, float],
    tally: Tally | None,
    since_swap: timedelta | None,
    rules: ReplacementSettings,
) -> Proposal:
    """Judge one pair; `since_swap` is the time since the last swap, None if there was none.

    A forced one needs a candidate and nothing else; but what the operator pins stays.
    """
    if candidate is None:
        nothing = Comparison(None, None, None)
        return Proposal(leaver, None, nothing, None, None, 0, (Block.NO_CANDIDATE,))
    comparison = compare(leaver.contender, candidate, noise, rules)
    known = tally is not None and tally.candidate == candidate.symbol
    confirmations = tally.count if tally is not None and known else 0
    blocks = _blocks(leaver, comparison, confirmations, since_swap, rules)
    return Proposal(
        leaver=leaver,
        candidate=candidate,
        comparison=comparison,
        threshold=comparison.threshold(rules),
        strength=_strength(leaver, candidate, comparison),
        confirmations=confirmations,
        blocked_by=blocks,
    )


def within_cycle(proposals: Iterable[Proposal], rules: ReplacementSettings) -> tuple[Proposal, ...]:
    """The same, with those blocked that are more than one cycle may carry out; forced come free."""
    out: list[Proposal] = []
    left = rules.max_per_cycle
    for proposal in proposals:
        counts = proposal.is_due and not proposal.is_forced
        out.append(
            replace(proposal, blocked_by=(Block.CYCLE_LIMIT,)) if counts and not left else proposal
        )
        left -= counts and left > 0
    return tuple(out)


def _blocks(
    leaver: Leaver,
    comparison: Comparison,
    confirmations: int,
    since_swap: timedelta | None,
    rules: ReplacementSettings,
) -> tuple[Block, ...]:
    if leaver.forced is not None:
        return (Block.PINNED,) if leaver.is_pinned else ()
    known = comparison.threshold(rules) is not None
    cooled = since_swap is None or since_swap >= timedelta(seconds=rules.cooldown_s)
    told = (
        (leaver.is_pinned, Block.PINNED),
        (leaver.is_paused, Block.CONTRACT_PAUSED),
        (comparison.noise is None, Block.NOISE_UNKNOWN),
        (comparison.cost is None, Block.COST_UNKNOWN),
        (known and not comparison.exceeds(rules), Block.IMPROVEMENT_TOO_SMALL),
        (confirmations < rules.confirmations, Block.UNCONFIRMED),
        (leaver.held < timedelta(seconds=rules.min_holding_s), Block.MIN_HOLDING),
        (not cooled, Block.COOLDOWN),
    )
    return tuple(block for applies, block in told if applies)


def _strength(leaver: Leaver, candidate: Contender, comparison: Comparison) -> float | None:
    """How likely the improvement pays for its cost, given the noise, times the confidence."""
    if leaver.forced is not None:
        return 1.0
    gain, noise, cost = comparison.improvement, comparison.noise, comparison.cost
    if gain is None or noise is None or cost is None or candidate.confidence is None:
        return None
    sure = float(ndtr((gain - cost) / noise)) if noise > 0.0 else float(is_above(gain, cost))
    return sure * candidate.confidence
