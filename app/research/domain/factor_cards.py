"""Cards of factors: a label from the evidence of several periods, never from one figure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.foundation.decimal_math import to_millionths
from app.research.domain.validation import ScoreEvidence
from app.scoring.domain.factor_evidence import (
    EvidenceLabel,
    EvidenceMeasurement,
    FactorEvidence,
    ScoreLevel,
)

PROVEN_T: Final = 3.0
WEAK_T: Final = 2.0


@dataclass(frozen=True, slots=True)
class FactorCard:
    """Evidence of one score by period; `trials` were made before."""

    name: str
    label: EvidenceLabel
    periods: tuple[ScoreEvidence, ...]
    trials: int
    level: ScoreLevel | None = None  # None for a rule that the product does not have
    whole: ScoreEvidence | None = None  # all periods as one

    @property
    def mean_ic(self) -> float | None:
        """Mean IC over the periods; None if one is unknown."""
        known = [one.ic.mean for one in self.periods if one.ic.mean is not None]
        return sum(known) / len(known) if known and len(known) == len(self.periods) else None


def label_evidence(periods: Sequence[ScoreEvidence]) -> EvidenceLabel:
    """Returns the label of a score; an unknown t counts against it. Most means two of three."""
    ts = [one.ic.t for one in periods]
    most = -(-2 * len(ts) // 3)

    def count(least: float) -> int:
        return sum(t is not None and to_millionths(t) >= to_millionths(least) for t in ts)

    wrong = sum(t is not None and to_millionths(t) <= to_millionths(-WEAK_T) for t in ts)
    if not ts:
        return EvidenceLabel.UNPROVEN
    if wrong >= most:
        return EvidenceLabel.HARMFUL
    if count(PROVEN_T) >= most and not wrong:
        return EvidenceLabel.PROVEN
    if count(WEAK_T) >= most and not wrong:
        return EvidenceLabel.WEAK
    return EvidenceLabel.UNPROVEN


def create_card(name: str, periods: Sequence[ScoreEvidence], trials: int) -> FactorCard:
    """Returns the card of a score from its evidence by period."""
    return FactorCard(name, label_evidence(periods), tuple(periods), trials)


def create_evidence(
    measurement: EvidenceMeasurement,
    level: ScoreLevel,
    name: str,
    found: ScoreEvidence,
    label: EvidenceLabel | None,
    reason: str | None = None,
    *,
    has_figures: bool = True,
) -> FactorEvidence:
    """Returns the record of one score from its evidence over the whole period.

    Without `has_figures` only the number of days is known.
    """
    blank = None if has_figures else replace(found.ic, mean=None, t=None, error=None)
    ic, spread = blank or found.ic, blank or found.spread
    return FactorEvidence(
        measurement=measurement,
        level=level,
        name=name,
        days=found.ic.count,
        ic=ic.mean,
        ic_error=ic.error,
        ic_t=ic.t,
        spread=spread.mean,
        spread_t=spread.t,
        turnover=found.turnover if has_figures else None,
        coverage=found.coverage if has_figures else None,
        decay=found.decay if has_figures else (),
        label=label,
        reason=reason,
    )
