"""Contributions add up to the composite z, whatever is missing or zero."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.scoring.domain.composite import AlgorithmSpec, composite_scores, contributions
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.historical_moments import Moments, standardize_by_moments

NAN = float("nan")
WEIGHTS = Configuration().family_weights
SPEC = AlgorithmSpec("default", WEIGHTS)


def raw_values(count: int = 30, missing: float = 0.2, seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(len(FACTORS), count))
    raw[rng.random(raw.shape) < missing] = NAN
    return raw


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("missing", [0.0, 0.2, 0.45])
def test_contributions_add_up(seed: int, missing: float) -> None:
    stands = composite_scores(raw_values(missing=missing, seed=seed), SPEC)
    confidence = np.random.default_rng(seed).uniform(0.1, 1.0, 30)
    shares = stands.contributions(confidence)
    scored = np.isfinite(stands.z)
    assert scored.any()
    np.testing.assert_allclose(
        np.nansum(shares, axis=0)[scored], (confidence * stands.z)[scored], atol=1e-12
    )
    assert np.isnan(shares[:, ~scored]).all()
    np.testing.assert_array_equal(np.isnan(shares[:, scored]), np.isnan(stands.factor_z[:, scored]))


def test_nothing_varies_nothing_contributes() -> None:
    stands = composite_scores(np.ones((len(FACTORS), 12)), SPEC)
    np.testing.assert_array_equal(stands.contributions(np.ones(12)), np.zeros((len(FACTORS), 12)))


def test_a_factor_of_an_unavailable_family_contributes_exactly_nothing() -> None:
    raw = raw_values(missing=0.0)
    structure = [f.family is Family.MARKET_STRUCTURE for f in FACTORS]
    kept = [f.name == "spread" for f in FACTORS]
    raw[np.array(structure) & ~np.array(kept), 0] = NAN
    stands = composite_scores(raw, SPEC)
    shares = stands.contributions(np.ones(30))
    assert np.isnan(stands.family_z[list(Family).index(Family.MARKET_STRUCTURE), 0])
    assert shares[kept.index(True), 0] == 0.0
    assert np.nansum(shares[:, 0]) == pytest.approx(stands.z[0], abs=1e-12)


@pytest.mark.parametrize("family", list(Family))
def test_who_lacks_a_family_has_no_better_odds_of_a_place_at_the_top(family: Family) -> None:
    """Divided by the sum of the weights, half that lacked structure took 65 % of the top ten."""
    raw = raw_values(count=4_000, missing=0.0)
    rows = np.array([factor.family is family for factor in FACTORS])
    lacking = np.arange(4_000) % 2 == 0
    raw[np.ix_(rows, lacking)] = NAN
    best = np.argsort(-composite_scores(raw, SPEC).z)[:400]
    assert 0.44 < lacking[best].mean() < 0.56


def test_what_cannot_apply_leaves_the_denominator() -> None:
    raw = raw_values(missing=0.0)
    rows = [factor.name in {"btc_correlation", "idiosyncratic_volatility"} for factor in FACTORS]
    raw[rows, 0] = NAN
    applies = np.ones(raw.shape, np.bool_)
    applies[rows, 0] = False
    found, without = composite_scores(raw, SPEC, applies=applies), composite_scores(raw, SPEC)
    assert found.completeness[0] == pytest.approx(1.0)
    assert without.completeness[0] == pytest.approx(0.84)
    np.testing.assert_array_equal(found.z, without.z)
    risk = np.array([factor.family is Family.RISK for factor in FACTORS])
    raw[risk, 0], applies[risk, 0] = NAN, False
    found = composite_scores(raw, SPEC, applies=applies)
    assert found.completeness[0] == pytest.approx(1.0), "nor does a family without any"
    assert np.isfinite(found.z[0])


def test_a_better_factor_brings_more() -> None:
    raw = raw_values(count=60, missing=0.0)
    stands = composite_scores(raw, SPEC)
    shares = stands.contributions(np.ones(60))
    for row, factor in enumerate(FACTORS):
        if factor.weight:
            assert np.corrcoef(stands.factor_z[row], shares[row])[0, 1] > 0.5
        else:
            np.testing.assert_array_equal(shares[row], np.zeros(60))
            assert np.isfinite(stands.factor_z[row]).all()


def test_a_factor_without_weight_is_shown_and_moves_nothing() -> None:
    raw = raw_values(missing=0.0)
    index = [factor.name for factor in FACTORS].index("open_interest_change")
    without = raw.copy()
    without[index] = NAN
    mine, theirs = composite_scores(raw, SPEC), composite_scores(without, SPEC)
    np.testing.assert_array_equal(mine.z, theirs.z)
    np.testing.assert_array_equal(mine.completeness, np.ones(30))
    np.testing.assert_array_equal(theirs.completeness, np.ones(30))
    assert mine.factor_weight[index] == 0.0


def test_small_universe_needs_fixed_moments() -> None:
    raw = raw_values(count=9, missing=0.0)
    assert np.isnan(composite_scores(raw, SPEC).z).all()
    names = [*(f.name for f in FACTORS), *Family, "composite"]
    moments = {name: Moments(0.0, 1.0) for name in names}
    stands = composite_scores(raw, AlgorithmSpec("default", WEIGHTS, moments=moments))
    first = FACTORS[0]
    np.testing.assert_allclose(stands.factor_z[0], first.orientation * np.clip(raw[0], -3, 3))
    assert np.isfinite(stands.z).all()
    np.testing.assert_allclose(
        np.nansum(stands.contributions(np.ones(9)), axis=0), stands.z, atol=1e-12
    )


def test_weights_of_a_family_are_shares_of_it_however_small() -> None:
    """Completeness stays a share, too: weights may add up to more than one by rounding."""
    raw = raw_values(missing=0.0)
    plain = composite_scores(raw, SPEC)
    for part in (0.01, 0.1, 1.0 / 3.0):
        factors = tuple(replace(one, weight=part * one.weight) for one in FACTORS)
        other = composite_scores(raw, replace(SPEC, factors=factors))
        np.testing.assert_allclose(other.factor_weight, plain.factor_weight, rtol=1e-12)
    assert plain.factor_weight.sum() == pytest.approx(1.0)
    rng = np.random.default_rng(4)
    for _ in range(20):
        chosen = rng.dirichlet(np.ones(4)).tolist()
        spec = AlgorithmSpec("any", dict(zip(Family, chosen, strict=True)))
        assert (composite_scores(raw, spec).completeness <= 1.0).all()


def test_ten_are_enough_for_ranks() -> None:
    assert np.isfinite(composite_scores(raw_values(count=10, missing=0.0), SPEC).z).all()


def test_who_has_one_to_nine_values_is_too_few_to_rank_and_who_has_none_is_not() -> None:
    raw = raw_values(missing=0.0)
    for row, many in enumerate((0, 1, 9, 10)):
        raw[row, many:] = NAN
    assert composite_scores(raw, SPEC).unranked_names(raw, SPEC) == {
        FACTORS[1].name,
        FACTORS[2].name,
    }


def test_sums_that_differ_by_a_rounding_share_a_rank_and_others_do_not() -> None:
    names = [*(one.name for one in FACTORS), *Family]
    moments = {name: Moments(0.0, 1.0) for name in names}
    weights = dict(zip(Family, (1.0, 0.0, 0.0, 0.0), strict=True))
    one = next(factor for factor in FACTORS if factor.family is next(iter(Family)))
    spec = AlgorithmSpec("one", weights, (replace(one, weight=1.0),), moments)
    for apart, ranks in ((5e-8, 1), (2e-6, 9)):
        stands = composite_scores(np.arange(9.0)[None] * apart, spec)
        assert len(set(np.abs(stands.family_z[0]).tolist())) == ranks


def test_moments_say_how_far_from_their_mean_in_their_own_spread() -> None:
    found = standardize_by_moments(np.array([5.0, 9.0, 1.0, 400.0]), Moments(5.0, 4.0))
    np.testing.assert_allclose(found, [0.0, 1.0, -1.0, 3.0])


def test_a_duplicate_factor_that_splits_the_weight_changes_nothing() -> None:
    raw = raw_values(missing=0.0)
    factors = list(FACTORS)
    half = [
        AlgorithmSpec("default", WEIGHTS).factors[0].__class__(
            f"{factors[0].name}{index}", factors[0].family, factors[0].orientation,
            factors[0].weight / 2, factors[0].unit, factors[0].sources, factors[0].measure,
            factors[0].gap, factors[0].meaning,
        )
        for index in (1, 2)
    ]  # fmt: skip
    doubled = AlgorithmSpec("default", WEIGHTS, factors=(*half, *factors[1:]))
    np.testing.assert_allclose(
        composite_scores(np.concatenate([raw[:1], raw]), doubled).z,
        composite_scores(raw, SPEC).z,
        atol=1e-12,
    )


def test_specification_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Moments(0.0, 0.0)
    with pytest.raises(ValueError, match="add up to 1"):
        AlgorithmSpec("default", dict.fromkeys(Family, 0.3))
    with pytest.raises(ValueError, match="add up to 1"):
        AlgorithmSpec("default", {Family.RISK: 1.0})
    odd = {**WEIGHTS, Family.RISK: -0.1, Family.TECHNICAL: 0.65}
    with pytest.raises(ValueError, match="negative"):
        AlgorithmSpec("default", odd)


def test_only_proportions_of_factor_weights_count_and_a_family_may_have_none() -> None:
    alone = {Family.RISK: 1.0, Family.TECHNICAL: 0.0, Family.FUNDAMENTAL: 0.0}
    spec = AlgorithmSpec(
        "default",
        {**alone, Family.MARKET_STRUCTURE: 0.0},
        tuple(
            replace(factor, weight=2.0 * factor.weight if factor.family is Family.RISK else 0.0)
            for factor in FACTORS
        ),
    )
    stands = composite_scores(raw_values(missing=0.0), spec)
    total = sum(factor.weight for factor in FACTORS if factor.family is Family.RISK)
    wanted = [f.weight / total if f.family is Family.RISK else 0.0 for f in FACTORS]
    np.testing.assert_allclose(stands.factor_weight, wanted, atol=1e-15)
    np.testing.assert_array_equal(stands.completeness, np.ones(30))


def test_the_parts_of_a_sum_are_stretched_to_what_it_became() -> None:
    """Two factors of one family: its z is twice their sum; the third symbol has none of them."""
    z = np.array([[0.4, -0.4, NAN], [0.0, 0.2, NAN]])
    half = np.full((2, 3), 0.5)
    linear = np.array([[0.2, -0.1, NAN]])
    ranked = 2.0 * linear
    found = contributions(
        z, half, np.array([0, 0]), linear, ranked, np.ones((1, 3)), ranked[0], ranked[0], np.ones(3)
    )
    np.testing.assert_allclose(found, z, atol=1e-15)


@pytest.mark.parametrize("market", [-5.0, 0.0, 5.0])
def test_two_of_five_symbols_score_above_the_entry_score_in_every_market(market: float) -> None:
    """The score is a rank: a fall of the whole market moves no symbol below the entry score."""
    z = composite_scores(raw_values(count=500, missing=0.0) + market, SPEC).z
    above = ndtr(z) > Configuration().entry_score
    assert abs(above.mean() - 0.4) <= 1 / 500
