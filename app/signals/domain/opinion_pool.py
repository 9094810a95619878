"""Pooling of probabilities by weighted log-odds, and the skill that earns a weight."""

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Final

# Nobody is that sure: one vote of 0 or 1 would decide alone.
LEAST: Final = 0.02
MOST: Final = 0.98
CHANCE: Final = 0.25  # the Brier score of who always says one half
PRIOR: Final = 50.0  # outcomes of chance that stand before the first own one


def clip_probability(probability: float) -> float:
    """Within [0.02, 0.98]."""
    return min(max(probability, LEAST), MOST)


def pool_probabilities(
    probabilities: Sequence[float], weights: Sequence[float], amplification: float = 1.0
) -> float | None:
    """The probability whose log-odds are the weighted mean of theirs, times `amplification`.

    Weights are taken in proportion; None where none is above zero. Raises ValueError for a
    negative weight or numbers that do not belong together.
    """
    if len(probabilities) != len(weights) or any(weight < 0.0 for weight in weights):
        raise ValueError("each probability needs a weight that is not negative")
    # In the order of their size: who voted first must not show in the last digit.
    pairs = sorted(zip(weights, map(clip_probability, probabilities), strict=True))
    total = sum(weight for weight, _ in pairs)
    if total <= 0.0:
        return None
    odds = sum(weight * log(one / (1.0 - one)) for weight, one in pairs)
    return 1.0 / (1.0 + exp(-amplification * odds / total))


def amplification(voters: int, correlation: float) -> float:
    """How much the pooled log-odds of equicorrelated voters are stretched.

    1 where they say the same thing (a plain mean), their number where they are independent.
    Source: QUANT section 14.
    """
    return voters / (1.0 + (voters - 1) * correlation)


def brier_score(probabilities: Sequence[float], outcomes: Sequence[bool]) -> float | None:
    """Mean squared distance of what was said from what came; None without any outcome."""
    if not outcomes:
        return None
    pairs = zip(probabilities, outcomes, strict=True)
    return sum((said - came) ** 2 for said, came in pairs) / len(outcomes)


def shrunk_brier_score(total: float, outcomes: int) -> float:
    """The Brier score with `PRIOR` outcomes of chance added; `total` is the sum of the squares."""
    return (total + PRIOR * CHANCE) / (outcomes + PRIOR)


def brier_skill(shrunk: float) -> float:
    """1 - BS / 0.25: 0 is chance, below it is worse than that."""
    return 1.0 - shrunk / CHANCE


def weights_from_skill(skills: Mapping[str, float]) -> dict[str, float] | None:
    """Weights that follow skill and add up to 1; None while nobody has any."""
    positive = {name: max(0.0, one) for name, one in skills.items()}
    total = sum(positive.values())
    if total <= 0.0:
        return None
    return {name: one / total for name, one in positive.items()}
