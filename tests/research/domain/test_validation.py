"""Evidence of scores against reference libraries, and the cases that they do not cover."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import spearmanr

from app.research.domain.validation import (
    MIN_NAMES,
    evaluate_scores,
    forward_returns,
    newey_west,
    quantile_of,
    rank_correlations,
)


def _walk(rows: int, names: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(generator.normal(0.0, 0.03, (rows, names)), axis=0))
    return np.vstack([close[:1], close[:-1]]), close  # each bar opens at the close before


@pytest.mark.parametrize("lag", [0, 5, 12])
def test_t_equals_a_regression_of_statsmodels(lag: int) -> None:
    values = np.random.default_rng(lag).normal(0.1, 1.0, 400)
    values[7] = np.nan
    found = newey_west(values, lag)
    known = values[np.isfinite(values)]
    fit = sm.OLS(known, np.ones(len(known))).fit(
        cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False}
    )
    assert found.mean == pytest.approx(fit.params[0], rel=1e-12)
    assert found.t == pytest.approx(fit.tvalues[0], rel=1e-12)
    assert found.count == 399


def test_rank_correlation_equals_scipy_with_ties_and_missing_names() -> None:
    generator = np.random.default_rng(3)
    one, other = generator.integers(0, 9, (4, 40)).astype(float), generator.normal(size=(4, 40))
    one[1, :5], other[2, 3] = np.nan, np.nan
    found = rank_correlations(one, other)
    for row in range(4):
        both = np.isfinite(one[row]) & np.isfinite(other[row])
        assert found[row] == pytest.approx(
            spearmanr(one[row, both], other[row, both])[0], abs=1e-12
        )
    few = np.full((1, 40), np.nan)
    few[0, : MIN_NAMES - 1] = np.arange(MIN_NAMES - 1)
    assert np.isnan(rank_correlations(few, other[:1])).all()
    assert np.isnan(rank_correlations(np.ones((1, 40)), other[:1])).all()  # no order


def test_return_begins_at_the_next_open_and_ends_with_the_coin() -> None:
    opened = np.array([[10.0, 5.0], [11.0, 6.0], [12.0, np.nan], [13.0, np.nan]])
    close = np.array([[10.5, 5.5], [11.5, 3.0], [12.5, np.nan], [13.5, np.nan]])
    found = forward_returns(opened, close, 1)
    assert found[0].tolist() == pytest.approx([12.0 / 11.0 - 1.0, 3.0 / 6.0 - 1.0])
    assert found[1, 0] == pytest.approx(13.0 / 12.0 - 1.0)
    assert np.isnan(found[1, 1])  # no open to buy at
    assert np.isnan(found[2:]).all()  # the window passes the end


def test_gap_within_the_window_gives_no_return() -> None:
    opened = np.array([[1.0], [2.0], [np.nan], [4.0]])
    assert np.isnan(forward_returns(opened, opened, 1)[0]).all()


def test_quantiles_are_equal_in_size_and_ties_go_by_column() -> None:
    scores = np.vstack([np.arange(17.0)[::-1], np.zeros(17)])
    found = quantile_of(scores)
    assert np.bincount(found[0]).tolist() == [4, 3, 4, 3, 3]
    assert found[0, 0] == 4
    assert found[1].tolist() == sorted(found[1].tolist())
    assert (quantile_of(scores[:, : MIN_NAMES - 1]) == -1).all()


def test_score_that_knows_the_future_has_every_sign_of_it() -> None:
    opened, close = _walk(200, 40, 5)
    scores = forward_returns(opened, close, 3)
    found = evaluate_scores(scores, opened, close, 3)
    assert found.ic.mean == pytest.approx(1.0)
    assert found.hit_rate == 1.0
    assert found.monotonicity == 1.0
    assert found.spread.mean is not None
    assert found.spread.mean > 0.0
    assert list(found.quantile_means) == sorted(found.quantile_means)
    assert dict(found.decay)[0] == pytest.approx(1.0)
    assert abs(dict(found.decay)[3]) < 0.1
    assert found.coverage == 1.0


def test_random_scores_have_no_evidence() -> None:
    opened, close = _walk(400, 60, 8)
    scores = np.random.default_rng(9).normal(size=close.shape)
    found = evaluate_scores(scores, opened, close, 7)
    assert found.ic.t is not None
    assert abs(found.ic.t) < 2.0
    assert found.spread.t is not None
    assert abs(found.spread.t) < 2.0


def test_planted_factor_of_small_strength_is_found() -> None:
    generator = np.random.default_rng(11)
    factor = generator.normal(size=(700, 150))
    returns = 0.05 * factor + np.sqrt(1.0 - 0.05**2) * generator.normal(size=factor.shape)
    path = np.cumsum(0.02 * returns, axis=0)
    opened = np.exp(np.vstack([np.zeros((2, 150)), path[:-2]]))
    found = evaluate_scores(factor, opened, opened, 1)
    assert found.ic.mean == pytest.approx(0.05, abs=0.015)
    assert found.ic.t is not None
    assert found.ic.t > 5.0


def test_turnover_and_coverage_count_what_they_say() -> None:
    opened, close = _walk(60, 20, 2)
    scores = np.tile(np.arange(20.0), (60, 1))
    scores[:, 10:] = np.nan
    short = evaluate_scores(scores, opened, close, 7)
    assert short.ic.mean is None  # ten names are too few
    steady = evaluate_scores(np.tile(np.arange(20.0), (60, 1)), opened, close, 7)
    assert steady.turnover == 0.0
    universe = np.ones(close.shape, np.bool_)
    universe[:, :5] = False
    assert evaluate_scores(scores, opened, close, 7, universe).coverage == pytest.approx(5 / 15)
    empty = evaluate_scores(np.full(close.shape, np.nan), opened, close, 7)
    assert (empty.ic.mean, empty.spread.t, empty.turnover, empty.coverage) == (
        None,
        None,
        None,
        0.0,
    )
