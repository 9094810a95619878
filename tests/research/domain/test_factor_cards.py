"""Labels of factors follow from most of the periods, and unknown evidence counts against them."""

from dataclasses import replace

import numpy as np
import pytest

from app.research.domain.factor_cards import create_card, label_evidence
from app.research.domain.validation import MeanEstimate, ScoreEvidence, evaluate_scores
from app.scoring.domain.factor_evidence import EvidenceLabel


def _periods(*ts: float | None) -> list[ScoreEvidence]:
    opened = np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, (40, 20)), axis=0))
    found = evaluate_scores(np.ones((40, 20)), opened, opened, 7)
    return [replace(found, ic=MeanEstimate(None if t is None else t / 50.0, t, 40)) for t in ts]


@pytest.mark.parametrize(
    ("ts", "label"),
    [
        ((3.0, 3.0, 0.0), EvidenceLabel.PROVEN),
        ((3.0, 2.9, 9.0), EvidenceLabel.PROVEN),
        ((3.0, 2.9, 2.9), EvidenceLabel.WEAK),
        ((9.0, 9.0, -2.0), EvidenceLabel.UNPROVEN),  # significantly wrong once
        ((2.0, 2.0, 1.0), EvidenceLabel.WEAK),
        ((2.0, 1.9, 1.9), EvidenceLabel.UNPROVEN),
        ((-2.0, -2.0, 5.0), EvidenceLabel.HARMFUL),
        ((-2.0, -1.9, 0.0), EvidenceLabel.UNPROVEN),
        ((None, None, 9.0), EvidenceLabel.UNPROVEN),
        ((3.0,), EvidenceLabel.PROVEN),
        ((), EvidenceLabel.UNPROVEN),
    ],
)
def test_label_follows_from_most_periods(ts: tuple[float | None, ...], label: str) -> None:
    assert label_evidence(_periods(*ts)) is label


def test_card_has_the_mean_of_all_periods_or_none() -> None:
    card = create_card("a", _periods(3.0, 6.0), 7)
    assert card.mean_ic == pytest.approx(0.09)
    assert (card.name, card.trials, len(card.periods)) == ("a", 7, 2)
    assert create_card("a", _periods(3.0, None), 0).mean_ic is None
