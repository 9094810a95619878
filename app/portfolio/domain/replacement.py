"""Replacement of a weak member: improvement beyond noise and cost, confirmations, blocks."""

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
from app.portfolio.domain.candidate_selection import (
    Correlation,
    ScoredCandidate,
    exceeds_sector_limit,
    find_refusal,
)

_BP: Final = 10_000.0


class ReplacementBlock(StrEnum):
    """Reason that blocks a replacement."""

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
class ReplacementSide:
    """One side of a replacement, outgoing or incoming; None means unknown."""

    symbol: str
    sector: str
    score: float | None
    z: float | None
    confidence: float | None
    trading_cost: float | None  # fraction of the traded value, one way
    funding: float | None = None  # paid by longs, annualised fraction


@dataclass(frozen=True, slots=True)
class OutgoingMember:
    """Member that may be replaced."""

    side: ReplacementSide
    held: timedelta
    forced: str | None  # reason that it cannot stay, or None
    is_pinned: bool
    is_paused: bool = False  # its contract takes no orders now


@dataclass(frozen=True, slots=True)
class IncomingCandidate:
    """Symbol of the board that may enter."""

    side: ReplacementSide
    candidate: ScoredCandidate  # not tradeable if it is banned


@dataclass(frozen=True, slots=True)
class ConfirmationCount:
    """Consecutive evaluations in which `candidate` beat the member by more than the threshold.

    `is_confirmed`: nothing blocked the swap at the last count; such a member is not funded.
    """

    symbol: str  # the member
    candidate: str
    count: int
    input_hash: str  # of the board that was counted last
    counted_at: datetime
    is_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Vacancy:
    """Seat of a member that was forced out while no complete board named a replacement."""

    symbol: str  # of that member
    reason: str  # of the forced exit
    vacated_at: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate against member in composite z; None means unknown."""

    improvement: float | None
    noise: float | None  # of the difference
    cost: float | None  # of the swap, in z

    def threshold(self, rules: ReplacementSettings) -> float | None:
        if self.noise is None or self.cost is None:
            return None
        return rules.noise_multiple * self.noise + self.cost

    def exceeds(self, rules: ReplacementSettings) -> bool:
        """True if the improvement is above the threshold; False if anything is unknown."""
        limit = self.threshold(rules)
        if limit is None or self.improvement is None:
            return False
        return is_above(self.improvement, limit)


@dataclass(frozen=True, slots=True)
class ReplacementProposal:
    """Member, best candidate and the blocks of the swap; due without blocks."""

    outgoing: OutgoingMember
    candidate: ReplacementSide | None
    comparison: Comparison
    threshold: float | None  # z
    strength: float | None  # 0..1
    confirmations: int
    blocked_by: tuple[ReplacementBlock, ...]

    @property
    def is_due(self) -> bool:
        return not self.blocked_by

    @property
    def is_forced(self) -> bool:
        return self.outgoing.forced is not None

    @property
    def score_improvement(self) -> float | None:
        old = self.outgoing.side.score
        new = None if self.candidate is None else self.candidate.score
        return None if old is None or new is None else new - old


def noise_or_default(measured: float | None, rules: ReplacementSettings) -> float | None:
    """Measured noise of a composite z, else the default of the settings; None if unknown."""
    return rules.noise_default or None if measured is None else measured


def filter_admissible(
    incoming: Iterable[IncomingCandidate],
    outgoing: OutgoingMember,
    others: Sequence[ReplacementSide],
    correlation: Correlation,
    configuration: Configuration,
) -> Iterable[IncomingCandidate]:
    """Candidates that may replace `outgoing` beside `others`, in the given order."""
    names = tuple(other.symbol for other in others)
    least = to_millionths(configuration.replacement.min_confidence)
    for candidate in incoming:
        one = candidate.side
        confidence = one.confidence
        if (
            confidence is not None
            and to_millionths(confidence) >= least
            and not adds_to_full_sector(one.sector, outgoing.side.sector, others, configuration)
            and find_refusal(candidate.candidate, names, correlation, configuration) is None
        ):
            yield candidate


def adds_to_full_sector(
    sector: str, left: str, others: Iterable[ReplacementSide], configuration: Configuration
) -> bool:
    """True if replacing sector `left` by `sector` exceeds the sector limit.

    A swap within a sector is always allowed.
    """
    return sector != left and exceeds_sector_limit(
        sector, (other.sector for other in others), configuration
    )


def select_preferred(
    incoming: Iterable[IncomingCandidate],
    pending: ConfirmationCount | None,
    wanted: Callable[[IncomingCandidate], bool],
) -> IncomingCandidate | None:
    """Best candidate, or the one being confirmed while it is `wanted`; None without candidates.

    Without that preference two equal candidates would alternate and neither would be confirmed.
    """
    best: IncomingCandidate | None = None
    for candidate in incoming:
        if pending is None:
            return candidate
        best = best or candidate
        if candidate.side.symbol == pending.candidate and wanted(candidate):
            return candidate
    return best


def compare_symbols(
    old: ReplacementSide,
    new: ReplacementSide,
    noise: Mapping[str, float],
    rules: ReplacementSettings,
) -> Comparison:
    """Improvement, noise and cost of putting `new` in place of `old`, all in z.

    The cost covers both legs and, with `count_funding`, the difference of funding. It is divided
    by the return of one unit of z over the horizon. Source: QUANT section 7.
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


def count_confirmation(
    former: ConfirmationCount | None,
    old: str,
    new: str,
    input_hash: str,
    at: datetime,
    interval: timedelta,
    *,
    since: timedelta | None = None,
    exceeds: bool,
) -> ConfirmationCount | None:
    """Count after one more evaluation; None if the improvement does not exceed the threshold.

    A board counts once, and at most one evaluation counts per `interval`. `since` is the proven
    time since the last count, by default the difference of the timestamps. A last count in the
    future comes from a wrong clock and is moved to `at`.
    """
    if not exceeds:
        return None
    if former is None or former.candidate != new:
        return ConfirmationCount(old, new, 1, input_hash, at)
    if former.counted_at > at:
        return replace(former, counted_at=at)
    passed = at - former.counted_at if since is None else since
    if former.input_hash == input_hash or passed < interval:
        return former
    return replace(former, count=former.count + 1, input_hash=input_hash, counted_at=at)


def propose_replacement(
    outgoing: OutgoingMember,
    candidate: ReplacementSide | None,
    noise: Mapping[str, float],
    tally: ConfirmationCount | None,
    since_swap: timedelta | None,
    rules: ReplacementSettings,
) -> ReplacementProposal:
    """Evaluate one pair; `since_swap` is the time since the last swap, None if there was none.

    A forced replacement only needs a candidate and a member that is not pinned.
    """
    if candidate is None:
        nothing = Comparison(None, None, None)
        return ReplacementProposal(
            outgoing, None, nothing, None, None, 0, (ReplacementBlock.NO_CANDIDATE,)
        )
    comparison = compare_symbols(outgoing.side, candidate, noise, rules)
    known = tally is not None and tally.candidate == candidate.symbol
    confirmations = tally.count if tally is not None and known else 0
    blocks = _blocks(outgoing, comparison, confirmations, since_swap, rules)
    return ReplacementProposal(
        outgoing=outgoing,
        candidate=candidate,
        comparison=comparison,
        threshold=comparison.threshold(rules),
        strength=_strength(outgoing, candidate, comparison),
        confirmations=confirmations,
        blocked_by=blocks,
    )


def limit_per_cycle(
    proposals: Iterable[ReplacementProposal], rules: ReplacementSettings
) -> tuple[ReplacementProposal, ...]:
    """Block due proposals beyond the limit per cycle; forced ones do not count."""
    out: list[ReplacementProposal] = []
    left = rules.max_per_cycle
    for proposal in proposals:
        counts = proposal.is_due and not proposal.is_forced
        out.append(
            replace(proposal, blocked_by=(ReplacementBlock.CYCLE_LIMIT,))
            if counts and not left
            else proposal
        )
        left -= counts and left > 0
    return tuple(out)


def _blocks(
    outgoing: OutgoingMember,
    comparison: Comparison,
    confirmations: int,
    since_swap: timedelta | None,
    rules: ReplacementSettings,
) -> tuple[ReplacementBlock, ...]:
    if outgoing.forced is not None:
        return (ReplacementBlock.PINNED,) if outgoing.is_pinned else ()
    known = comparison.threshold(rules) is not None
    cooled = since_swap is None or since_swap >= timedelta(seconds=rules.cooldown_s)
    rules_hit = (
        (outgoing.is_pinned, ReplacementBlock.PINNED),
        (outgoing.is_paused, ReplacementBlock.CONTRACT_PAUSED),
        (comparison.noise is None, ReplacementBlock.NOISE_UNKNOWN),
        (comparison.cost is None, ReplacementBlock.COST_UNKNOWN),
        (known and not comparison.exceeds(rules), ReplacementBlock.IMPROVEMENT_TOO_SMALL),
        (confirmations < rules.confirmations, ReplacementBlock.UNCONFIRMED),
        (outgoing.held < timedelta(seconds=rules.min_holding_s), ReplacementBlock.MIN_HOLDING),
        (not cooled, ReplacementBlock.COOLDOWN),
    )
    return tuple(block for applies, block in rules_hit if applies)


def _strength(
    outgoing: OutgoingMember, candidate: ReplacementSide, comparison: Comparison
) -> float | None:
    """Probability that the improvement exceeds its cost, given the noise, times the confidence."""
    if outgoing.forced is not None:
        return 1.0
    gain, noise, cost = comparison.improvement, comparison.noise, comparison.cost
    if gain is None or noise is None or cost is None or candidate.confidence is None:
        return None
    sure = float(ndtr((gain - cost) / noise)) if noise > 0.0 else float(is_above(gain, cost))
    return sure * candidate.confidence
