"""Defences against luck: deflated Sharpe ratio, overfitting, permutations and purged folds."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from app.foundation.decimal_math import all_to_millionths
from app.market.domain.models import Floats, Ints
from app.research.domain.validation import MIN_NAMES
from app.scoring.domain.factors import average_ranks

_EULER: Final = 0.5772156649015329
BLOCKS: Final = 16  # of the combinatorially symmetric cross-validation
PERMUTATIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class ReturnMoments:
    """Sharpe ratio per period, skewness and raw kurtosis of a return series."""

    sharpe: float
    skewness: float
    kurtosis: float
    count: int

    @staticmethod
    def of(returns: Floats) -> "ReturnMoments | None":
        """Returns the moments (population convention) of the finite returns; None without any."""
        known = returns[np.isfinite(returns)]
        if len(known) < 2:
            return None
        away = known - known.mean()
        variance = float((away * away).mean())
        if variance <= 0.0:
            return None
        sample = math.sqrt(variance * len(known) / (len(known) - 1))
        return ReturnMoments(
            float(known.mean()) / sample,
            float((away**3).mean()) / variance**1.5,
            float((away**4).mean()) / variance**2,
            len(known),
        )


def probabilistic_sharpe(moments: ReturnMoments, benchmark: float = 0.0) -> float:
    """Returns the probability that the true Sharpe ratio per period exceeds `benchmark`.

    Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014).
    """
    sharpe = moments.sharpe
    variance = 1.0 - moments.skewness * sharpe + (moments.kurtosis - 1.0) / 4.0 * sharpe * sharpe
    if variance <= 0.0:
        return math.nan
    return float(ndtr((sharpe - benchmark) * math.sqrt(moments.count - 1) / math.sqrt(variance)))


def expected_maximum_sharpe(trials: int, deviation: float) -> float:
    """Returns the Sharpe ratio that the best of `trials` without skill reaches on average.

    `deviation` is the standard deviation of the trials' Sharpe ratios per period.
    """
    if trials <= 1:
        return 0.0
    high = (1.0 - _EULER) * ndtri(1.0 - 1.0 / trials)
    return deviation * float(high + _EULER * ndtri(1.0 - 1.0 / (trials * math.e)))


def deflated_sharpe(moments: ReturnMoments, trial_sharpes: Sequence[float]) -> float:
    """Returns the probability of skill after as many trials; `trial_sharpes` per period, all."""
    trials = np.asarray(trial_sharpes, np.float64)
    deviation = float(trials.std(ddof=1)) if len(trials) > 1 else 0.0
    return probabilistic_sharpe(moments, expected_maximum_sharpe(len(trials), deviation))


def overfitting_probability(returns: Floats, blocks: int = BLOCKS) -> float | None:
    """Returns the probability of backtest overfitting of (T, M) returns of M trials.

    Combinatorially symmetric cross-validation: the share of halves whose best trial inside ranks
    at or below the median outside. None with fewer than two trials or `2 * blocks` rows. Rows with
    a missing return are left out.
    """
    known = returns[np.isfinite(returns).all(axis=1)]
    rows, trials = known.shape
    if trials < 2 or rows < 2 * blocks or blocks % 2:
        return None
    edges = np.linspace(0, rows, blocks + 1).astype(np.int64)
    parts = [known[begin:end] for begin, end in itertools.pairwise(edges)]
    sums = np.array(
        [[len(part) * np.ones(trials), part.sum(0), (part * part).sum(0)] for part in parts]
    )
    halves = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    whole, overfit = sums.sum(axis=0), 0
    for half in halves:
        inside = sums[half].sum(axis=0)
        best = int(np.argmax(_sharpes(inside)))
        outside = _sharpes(whole - inside)
        below = int((outside < outside[best]).sum())
        ties = int((outside == outside[best]).sum()) - 1
        overfit += 1.0 + below + ties / 2.0 <= (trials + 1) / 2.0
    return overfit / len(halves)


def _sharpes(sums: Floats) -> Floats:
    """Returns (M,) ratios from the counts, sums and sums of squares (3, M)."""
    count, total, square = sums
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean * mean, 0.0))
    return np.where(deviation > 0.0, mean / np.where(deviation > 0.0, deviation, 1.0), 0.0)


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """Mean rank IC beside that of permuted scores.

    `p_value` is one-sided: the share of permutations, the observed one included, whose mean IC is
    at least the observed one. `high` is the 95 % quantile of the permuted means.
    """

    mean_ic: float
    p_value: float
    high: float
    permutations: int
    days: int


def permute_scores(
    scores: Floats,
    returns: Floats,
    generator: np.random.Generator,
    permutations: int = PERMUTATIONS,
    least: int = MIN_NAMES,
) -> PermutationTest | None:
    """Tests the mean rank IC of (D, N) scores of D days against scores permuted within each day.

    The windows of the returns must not overlap, else the days depend on each other. A pair with a
    NaN is left out, and so is a day with fewer than `least` pairs or without a difference in
    scores or returns. None without such a day. Ranks do not change by a permutation, so that
    shuffling them equals shuffling the scores; ties take their mean rank. Means are compared in
    millionths.
    """
    both = np.isfinite(scores) & np.isfinite(returns)
    observed, permuted, days = 0.0, np.zeros(permutations), 0
    for day in np.flatnonzero(both.sum(axis=1) >= least):
        names = both[day]
        ranks = [average_ranks(values[day, names]) for values in (scores, returns)]
        left, right = (one - one.mean() for one in ranks)
        scale = math.sqrt(float((left * left).sum() * (right * right).sum()))
        if scale == 0.0:
            continue
        shuffled = generator.permuted(np.tile(left, (permutations, 1)), axis=1)
        observed += float((left * right).sum()) / scale
        permuted += (shuffled * right).sum(axis=1) / scale
        days += 1
    if not days:
        return None
    reached = all_to_millionths(permuted / days) >= all_to_millionths(np.array(observed / days))
    return PermutationTest(
        observed / days,
        (1 + int(reached.sum())) / (1 + permutations),
        float(np.quantile(permuted / days, 0.95)),
        permutations,
        days,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Rows of one step of a walk-forward."""

    training: Ints
    test: Ints


def walk_forward_folds(
    rows: int, folds: int, horizon: int, embargo: int | None = None
) -> list[Fold]:
    """Returns folds whose training rows end before the test, purged by labels and embargo.

    The first of `folds + 1` equal parts only trains. A training row whose label, from its next
    bar over `horizon` bars, reaches the test is dropped, and `embargo` (default horizon + 1)
    further rows. Raises ValueError if a fold has no rows.
    """
    gap = horizon + 1 + (horizon + 1 if embargo is None else embargo)
    edges = np.linspace(0, rows, folds + 2).astype(np.int64)
    found = []
    for begin, end in itertools.pairwise(edges[1:]):
        training = np.arange(0, max(int(begin) - gap, 0))
        test = np.arange(int(begin), int(end))
        if not len(training) or not len(test):
            raise ValueError(f"{rows} rows are too few for {folds} folds of horizon {horizon}")
        found.append(Fold(training, test))
    return found
