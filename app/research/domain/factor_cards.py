"""Cards of factors: a label from the evidence of several periods, never from one figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.foundation.decimal_math import to_millionths
from app.research.domain.validation import ScoreEvidence

PROVEN_T: Final = 3.0
WEAK_T: Final = 2.0


class EvidenceLabel(StrEnum):
    """Judgement of a factor by its rank correlations with later returns."""

    PROVEN = "proven"  # t of 3 in most periods, and nowhere significantly wrong
    WEAK = "weak"  # t of 2 in most periods
    UNPROVEN = "unproven"
    HARMFUL = "harmful"  # t of -2 or less in most periods


@dataclass(frozen=True, slots=True)
class FactorCard:
    """Evidence of one factor, family or composite by period; `trials` were made before."""

    name: str
    label: EvidenceLabel
    periods: tuple[ScoreEvidence, ...]
    trials: int

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
