"""Defences against luck against their published figures and skfolio."""

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata
from skfolio.measures import deflated_sharpe_ratio, probabilistic_sharpe_ratio

from app.research.domain.luck import (
    ReturnMoments,
    deflated_sharpe,
    expected_maximum_sharpe,
    overfitting_probability,
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
