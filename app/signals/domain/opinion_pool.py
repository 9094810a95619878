"""Pooling of probabilities by weighted log-odds, and weights from forecast skill."""

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Final

# Bounds of a probability, because a single vote of 0 or 1 would decide alone.
MIN_PROBABILITY: Final = 0.02
MAX_PROBABILITY: Final = 0.98
CHANCE_BRIER: Final = 0.25  # Brier score of a constant one half
PRIOR_OUTCOMES: Final = 50.0  # outcomes of chance in the prior


def clip_probability(probability: float) -> float:
    """Clips a probability to [0.02, 0.98]."""
    return min(max(probability, MIN_PROBABILITY), MAX_PROBABILITY)


def pool_probabilities(
    probabilities: Sequence[float], weights: Sequence[float], amplification: float = 1.0
) -> float | None:
    """Pools probabilities by their weighted mean log-odds times `amplification`.

    Weights need not add up to 1; None without a positive weight. Raises ValueError for a negative
    weight or different lengths.
    """
    if len(probabilities) != len(weights) or any(weight < 0.0 for weight in weights):
        raise ValueError("each probability needs a non-negative weight")
    # Sorted, so that the order of votes does not change the last digit.
    pairs = sorted(zip(weights, map(clip_probability, probabilities), strict=True))
    total = sum(weight for weight, _ in pairs)
    if total <= 0.0:
        return None
    odds = sum(weight * log(one / (1.0 - one)) for weight, one in pairs)
    return 1.0 / (1.0 + exp(-amplification * odds / total))


def amplification(voters: int, correlation: float) -> float:
    """Factor of the pooled log-odds of equicorrelated voters.

    1 for identical voters (a plain mean), their number for independent ones. Source: QUANT
    section 14.
    """
    return voters / (1.0 + (voters - 1) * correlation)


def brier_score(probabilities: Sequence[float], outcomes: Sequence[bool]) -> float | None:
    """Mean squared distance of forecasts from outcomes; None without any outcome."""
    if not outcomes:
        return None
    pairs = zip(probabilities, outcomes, strict=True)
    return sum((forecast - occurred) ** 2 for forecast, occurred in pairs) / len(outcomes)


def shrunk_brier_score(total: float, outcomes: int) -> float:
    """Brier score with `PRIOR_OUTCOMES` outcomes of chance; `total` is the sum of squares."""
    return (total + PRIOR_OUTCOMES * CHANCE_BRIER) / (outcomes + PRIOR_OUTCOMES)


def brier_skill(shrunk: float) -> float:
    """1 - BS / 0.25: 0 is chance, below it is worse than chance."""
    return 1.0 - shrunk / CHANCE_BRIER


def weights_from_skill(skills: Mapping[str, float]) -> dict[str, float] | None:
    """Weights in proportion to positive skill that add up to 1; None without any skill."""
    positive = {name: max(0.0, one) for name, one in skills.items()}
    total = sum(positive.values())
    if total <= 0.0:
        return None
    return {name: one / total for name, one in positive.items()}
