"""Defences against luck against their published figures and skfolio."""

import itertools

import numpy as np
import pytest
from scipy.stats import kstest, rankdata, spearmanr
from scipy.stats import permutation_test as scipy_permutation_test
from skfolio.measures import deflated_sharpe_ratio, probabilistic_sharpe_ratio

from app.research.domain.luck import (
    PermutationTest,
    ReturnMoments,
    deflated_sharpe,
    expected_maximum_sharpe,
    overfitting_probability,
    permute_scores,
    probabilistic_sharpe,
    walk_forward_folds,
)


def test_golden_figures_of_the_deflated_sharpe_ratio() -> None:
    moments = ReturnMoments(0.05, -0.11, 5.6, 793)
    expected = expected_maximum_sharpe(30, 0.5 / np.sqrt(365))
    assert probabilistic_sharpe(moments) == pytest.approx(0.9194331983, abs=1e-10)
    assert expected == pytest.approx(0.0542631567, abs=1e-10)
    assert probabilistic_sharpe(moments, expected) == pytest.approx(0.4524488887, abs=1e-10)


def test_ratios_equal_those_of_skfolio() -> None:
    generator = np.random.default_rng(4)
    returns = generator.standard_t(4, size=793) * 0.01 + 0.0005
    trials = generator.normal(size=30) * 0.03
    moments = ReturnMoments.of(returns)
    assert moments is not None
    assert probabilistic_sharpe(moments) == pytest.approx(
        float(probabilistic_sharpe_ratio(returns)), abs=1e-12
    )
    assert deflated_sharpe(moments, trials.tolist()) == pytest.approx(
        float(deflated_sharpe_ratio(returns, trials)), abs=1e-12
    )


def test_one_trial_deflates_nothing_and_more_trials_deflate_more() -> None:
    returns = np.random.default_rng(6).normal(0.001, 0.02, 500)
    moments = ReturnMoments.of(returns)
    assert moments is not None
    alone = deflated_sharpe(moments, [moments.sharpe])
    assert alone == probabilistic_sharpe(moments)
    spread = [0.0, 0.02, -0.02]
    assert alone > deflated_sharpe(moments, spread) > deflated_sharpe(moments, spread * 20)


def test_constant_or_missing_returns_have_no_moments() -> None:
    assert ReturnMoments.of(np.zeros(50)) is None
    assert ReturnMoments.of(np.full(50, np.nan)) is None


def test_overfitting_probability_equals_its_definition() -> None:
    returns = np.random.default_rng(1).normal(size=(120, 5))
    found = overfitting_probability(returns, blocks=4)
    parts = np.array_split(returns, 4)
    count = total = 0
    for inside in itertools.combinations(range(4), 2):
        chosen = np.vstack([parts[one] for one in inside])
        rest = np.vstack([parts[one] for one in range(4) if one not in inside])
        best = int(np.argmax(chosen.mean(0) / chosen.std(0)))
        rank = rankdata(rest.mean(0) / rest.std(0))[best] / 6.0
        count += np.log(rank / (1.0 - rank)) <= 0.0
        total += 1
    assert found == count / total


def test_true_skill_is_not_called_overfitting() -> None:
    returns = np.random.default_rng(2).normal(0.0, 0.01, (640, 8))
    returns[:, 3] += 0.01
    assert overfitting_probability(returns, blocks=8) == 0.0
    assert overfitting_probability(returns[:, :1], blocks=8) is None
    assert overfitting_probability(returns[:15], blocks=8) is None


def test_folds_are_purged_by_label_and_embargo() -> None:
    folds = walk_forward_folds(400, 3, horizon=7)
    assert [int(one.test[0]) for one in folds] == [100, 200, 300]
    assert np.concatenate([one.test for one in folds]).tolist() == list(range(100, 400))
    for one in folds:
        label_end = int(one.training[-1]) + 1 + 7
        assert label_end + 8 < int(one.test[0]) + 1
    with pytest.raises(ValueError, match="too few"):
        walk_forward_folds(20, 3, horizon=7)


def _scores_and_returns(
    seed: int, days: int = 40, names: int = 60, ic: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (D, N) normal scores and returns with a planted correlation."""
    generator = np.random.default_rng(seed)
    scores, noise = generator.normal(size=(2, days, names))
    return scores, ic * scores + np.sqrt(1.0 - ic * ic) * noise


def _permutation(seed: int, ic: float = 0.0, days: int = 40, names: int = 60) -> PermutationTest:
    scores, returns = _scores_and_returns(seed, days, names, ic)
    found = permute_scores(scores, returns, np.random.default_rng((seed, 1)), permutations=500)
    assert found is not None
    return found


def test_permutation_test_equals_the_exact_distribution_of_scipy() -> None:
    """Each of two days with four names has 24 permutations: 576 cases in all."""
    generator = np.random.default_rng(3)
    for shift in (0.0, 0.8):
        scores = generator.normal(size=(2, 4))
        returns = generator.normal(size=(2, 4)) + shift * scores

        def mean_ic(*days: np.ndarray, returns: np.ndarray = returns) -> float:
            pairs = zip(days, returns, strict=True)
            return float(np.mean([np.corrcoef(one, rankdata(other))[0, 1] for one, other in pairs]))

        exact = scipy_permutation_test(
            tuple(rankdata(scores, axis=1)), mean_ic, permutation_type="pairings",
            alternative="greater", n_resamples=20_000,
        )  # fmt: skip
        found = permute_scores(scores, returns, np.random.default_rng(1), 40_000, least=4)
        assert found is not None
        assert found.mean_ic == pytest.approx(exact.statistic, abs=1e-12)
        error = np.sqrt(exact.pvalue * (1.0 - exact.pvalue) / 40_000)
        assert abs(found.p_value - exact.pvalue) < 4.0 * error + 1e-4


def test_permutation_test_equals_a_loop_over_names_with_ties_and_gaps() -> None:
    generator = np.random.default_rng(8)
    scores = np.round(generator.normal(size=(5, 20)), 1)  # ties
    returns = generator.normal(size=(5, 20))
    scores[0, :7] = np.nan  # 13 pairs are too few
    returns[1, 2:5] = np.nan
    scores[2] = 1.0  # no difference in scores
    found = permute_scores(scores, returns, np.random.default_rng(2), 200)
    assert found is not None
    assert found.days == 3
    means = np.zeros(200)
    same = np.random.default_rng(2)
    for day in (1, 3, 4):
        names = np.isfinite(scores[day]) & np.isfinite(returns[day])
        own, other = rankdata(scores[day, names]), rankdata(returns[day, names])
        for draw, order in enumerate(same.permuted(np.tile(own, (200, 1)), axis=1)):
            means[draw] += spearmanr(order, other).statistic / 3.0
    observed = np.mean([
        spearmanr(scores[day], returns[day], nan_policy="omit").statistic for day in (1, 3, 4)
    ])  # fmt: skip
    assert found.mean_ic == pytest.approx(observed, abs=1e-12)
    assert found.p_value == (1 + (means >= observed - 1e-9).sum()) / 201
    assert found.high == pytest.approx(np.quantile(means, 0.95), abs=1e-12)


def test_scores_without_skill_have_uniform_p_values() -> None:
    ps = [_permutation(seed, days=12, names=20).p_value for seed in range(200)]
    assert kstest(ps, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.array(ps) <= 0.05) <= 0.09


def test_planted_skill_of_five_hundredths_is_found() -> None:
    found = [_permutation(seed, ic=0.05, days=104, names=60) for seed in range(10)]
    assert np.mean([one.mean_ic for one in found]) == pytest.approx(0.05, abs=0.01)
    assert sum(one.p_value < 0.05 for one in found) >= 9
    wrong = _permutation(3, ic=-0.2)
    assert wrong.p_value > 0.99  # one-sided: a wrong sign is no skill


def test_permutation_test_is_deterministic_and_needs_a_day() -> None:
    assert _permutation(4) == _permutation(4)
    scores, returns = _scores_and_returns(1)
    assert permute_scores(scores[:, :14], returns[:, :14], np.random.default_rng(1)) is None
