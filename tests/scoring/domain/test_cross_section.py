"""Ranks and robust z across symbols."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.scoring.domain.factors import average_ranks, rank_to_normal, rounded_significant

NAN = float("nan")


def test_rank_to_normal_golden() -> None:
    z = rank_to_normal(np.array([10.0, 20.0, 30.0, 40.0, 50.0]))
    expected = [-1.2815515655446004, -0.5244005127080409, 0.0, 0.5244005127080407, 1.28155156554460]
    np.testing.assert_allclose(z, expected, atol=1e-12)


def test_ties_share_the_mean_of_their_ranks() -> None:
    ranks = average_ranks(np.array([3.0, 1.0, 3.0, 2.0, NAN, np.inf]))
    np.testing.assert_array_equal(ranks, [3.5, 1.0, 3.5, 2.0, NAN, NAN])


def test_one_value_is_neutral_and_none_stays_missing() -> None:
    np.testing.assert_array_equal(rank_to_normal(np.array([NAN, 7.0])), [NAN, 0.0])
    assert np.isnan(rank_to_normal(np.array([NAN, NAN]))).all()
    assert len(rank_to_normal(np.array([]))) == 0


def test_significant_digits_make_equal_what_is_equal_in_truth() -> None:
    sums = np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.0, -0.0, NAN, np.inf, 1e-300, -7e250])
    rounded = rounded_significant(sums)
    assert sums[0] != sums[1]
    assert rounded[0] == rounded[1]
    np.testing.assert_allclose(rounded[2:], sums[2:], rtol=1e-11)
    np.testing.assert_array_equal(
        rounded_significant(np.array([123456789012345.0])), [123456789012000.0]
    )


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_ranks_follow_symbols_and_ignore_monotone_transforms(
    values: list[float], shuffler: object
) -> None:
    raw = np.round(np.array(values), 6)
    z = rank_to_normal(raw)
    np.testing.assert_array_equal(rank_to_normal(raw * 3.0 + 7.0e3), z)
    order = np.argsort(-raw, kind="stable")
    np.testing.assert_array_equal(rank_to_normal(raw[order]), z[order])
    np.testing.assert_allclose(rank_to_normal(-raw), -z, atol=1e-12)
