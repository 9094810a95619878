"""The neutralised composite: least squares, independence of the exposures, parts that add up."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Neutralisation
from app.foundation.data_status import DataSource
from app.market.domain.models import Floats
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.board import Board, CardStatus
from app.scoring.domain.composite import RANKING, AlgorithmSpec, composite_scores
from app.scoring.domain.counterfactual import find_counterfactual
from app.scoring.domain.engine import score
from app.scoring.domain.explanation import explain_card
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.neutralisation import fit_exposures
from app.scoring.domain.score_stability import back_scores, daily_candle_part
from app.scoring.services.algorithm_versions import spec_from_json, spec_to_json
from tests.support.scoring_inputs import make_inputs

NAN = float("nan")
CONFIGURATION = Configuration()
INPUTS = make_inputs(40)
BOTH = Neutralisation.VOLATILITY_AND_BTC_BETA
NEUTRAL = (Neutralisation.VOLATILITY, BOTH)


def algorithm(mode: Neutralisation) -> AlgorithmSpec:
    scoring = replace(CONFIGURATION.scoring, neutralise=mode)
    return build_algorithm(replace(CONFIGURATION, scoring=scoring))


def board(mode: Neutralisation, count: int = 40) -> Board:
    inputs = make_inputs(count)
    return score(inputs, algorithm(mode)).to_board(
        run_id="1", algorithm="any", algorithm_version=1, configuration_version=1,
        calculated_at=score(inputs, algorithm(mode)).as_of, duration_ms=0.0,
        data_source=DataSource.SANDBOX, is_provisional=False,
    )  # fmt: skip


def least_squares(z: Floats, exposures: Floats) -> tuple[Floats, Floats]:
    """Slopes and residual by numpy's singular value decomposition."""
    design = np.column_stack([np.ones(len(z)), *exposures])
    found = np.linalg.lstsq(design, z, rcond=None)[0]
    return found[1:], z - design @ found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("many", [1, 2, 4])
def test_residual_and_effects_are_those_of_least_squares(seed: int, many: int) -> None:
    rng = np.random.default_rng(seed)
    exposures = rng.normal(size=(many, 150)) + rng.normal(size=150)
    z = rng.normal(size=150) + exposures.sum(axis=0)
    slopes, residual = least_squares(z, exposures)
    fit = fit_exposures(z, exposures)
    np.testing.assert_allclose(fit.residual, residual, atol=1e-12, rtol=0)
    shifted = exposures - exposures.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(fit.effects, -slopes[:, None] * shifted, atol=1e-12, rtol=0)
    for exposure in exposures:
        assert abs(np.corrcoef(fit.residual, exposure)[0, 1]) < 1e-12
    np.testing.assert_allclose(
        fit.residual, z - z.mean() + fit.effects.sum(axis=0), atol=1e-12, rtol=0
    )


def test_a_symbol_that_lacks_an_exposure_has_no_residual_and_moves_no_other() -> None:
    rng = np.random.default_rng(3)
    z, exposures = rng.normal(size=30), rng.normal(size=(2, 30))
    exposures[1, 4], z[9] = NAN, NAN
    fit = fit_exposures(z, exposures)
    known = np.ones(30, np.bool_)
    known[[4, 9]] = False
    assert np.isnan(fit.residual[~known]).all()
    np.testing.assert_array_equal(
        fit.residual[known], fit_exposures(z[known], exposures[:, known]).residual
    )
    assert np.isnan(fit_exposures(z[:9], exposures[:, :9]).residual).all(), "too few"


def test_the_order_of_the_symbols_changes_no_digit() -> None:
    rng = np.random.default_rng(8)
    z, exposures = rng.normal(size=200), rng.normal(size=(2, 200))
    order = rng.permutation(200)
    whole, moved = fit_exposures(z, exposures), fit_exposures(z[order], exposures[:, order])
    np.testing.assert_array_equal(whole.residual[order], moved.residual)


@pytest.mark.parametrize("kind", ["constant", "repeated", "itself"])
def test_a_spanned_exposure_takes_out_nothing_more(kind: str) -> None:
    rng = np.random.default_rng(2)
    z, own = rng.normal(size=40), rng.normal(size=40)
    other = {"constant": np.ones(40), "repeated": 3.0 * own + 1.0, "itself": z}[kind]
    fit = fit_exposures(z, np.array([own, other]))
    if kind == "itself":
        np.testing.assert_allclose(fit.residual, 0.0, atol=1e-12)
    else:
        np.testing.assert_allclose(fit.residual, fit_exposures(z, own[None]).residual, atol=1e-12)


@pytest.mark.parametrize("mode", NEUTRAL)
def test_the_composite_keeps_almost_no_rank_correlation_with_its_exposures(
    mode: Neutralisation,
) -> None:
    rng = np.random.default_rng(11)
    common = rng.normal(size=400)
    raw = rng.normal(size=(len(FACTORS), 400))
    for row, factor in enumerate(FACTORS):
        raw[row] += factor.orientation * common  # every factor says the same, in part
    spec = algorithm(mode)
    plain = composite_scores(raw, algorithm(Neutralisation.NONE))
    found = composite_scores(raw, spec)
    np.testing.assert_array_equal(found.plain_z, plain.z)
    names = [factor.name for factor in FACTORS]
    for name in spec.exposures:
        exposure = raw[names.index(name)]
        assert abs(spearmanr(plain.z, exposure).statistic) > 0.4
        assert abs(spearmanr(found.z, exposure).statistic) < 0.03
    np.testing.assert_allclose(np.sort(found.z), np.sort(plain.z), atol=0.01)  # ranks, with ties


def test_without_an_option_nothing_changes() -> None:
    spec = algorithm(Neutralisation.NONE)
    assert "neutralise" not in spec_to_json(spec)
    result = composite_scores(np.random.default_rng(1).normal(size=(len(FACTORS), 30)), spec)
    assert result.plain_z is result.z
    assert result.neutralisation(np.ones(30)) == {}
    assert all(card.neutralisation == {} for card in score(INPUTS, spec).cards)


@pytest.mark.parametrize("mode", NEUTRAL)
def test_parts_of_a_score_add_up_with_the_neutralisation(mode: Neutralisation) -> None:
    spec = algorithm(mode)
    draft = score(INPUTS, spec)
    assert draft.universe_size == 40
    for card in draft.cards:
        assert card.z is not None
        assert set(card.neutralisation) == {*spec.exposures, RANKING}
        parts = [one.contribution for one in card.factors if one.contribution is not None]
        total = sum(parts) + sum(card.neutralisation.values())
        assert total == pytest.approx(card.z, abs=1e-9)
        steps = explain_card(card)
        assert steps.sum_of_contributions == pytest.approx(card.z, abs=1e-9)
        assert steps.neutralisation.keys() == card.neutralisation.keys()
    assert [one.symbol for one in draft.cards] != [
        one.symbol for one in score(INPUTS, algorithm(Neutralisation.NONE)).cards
    ]


def test_a_symbol_without_an_exposure_has_no_score_and_a_reason() -> None:
    """Without BTC among the symbols no beta is known."""
    lone = make_inputs(40)
    close = lone.daily.close.copy()
    close[:, lone.symbols.index("BTCUSDT")] = NAN
    draft = score(replace(lone, daily=replace(lone.daily, close=close)), algorithm(BOTH))
    assert draft.universe_size == 0
    cards = [card for card in draft.cards if card.symbol != "BTCUSDT"]
    assert {(card.status, card.reason, card.detail) for card in cards} == {
        (CardStatus.UNAVAILABLE, "exposure_unknown", "too_few_bars_or_no_market")
    }
    assert all(card.neutralisation == {} for card in cards)


def test_too_few_symbols_to_regress_have_no_score() -> None:
    draft = score(make_inputs(9), algorithm(Neutralisation.VOLATILITY))
    assert draft.universe_size == 0


@pytest.mark.parametrize("mode", list(Neutralisation))
def test_a_version_keeps_its_neutralisation(mode: Neutralisation) -> None:
    spec = algorithm(mode)
    again = spec_from_json(spec.name, spec_to_json(spec))
    assert again is not None
    assert again.neutralise is mode
    assert score(INPUTS, again).cards == score(INPUTS, spec).cards


@pytest.mark.parametrize("mode", NEUTRAL)
def test_scores_of_past_days_are_neutralised_too(mode: Neutralisation) -> None:
    spec = algorithm(mode)
    part = daily_candle_part(spec)
    assert part is not None
    assert part.exposures == spec.exposures
    plain, found = (
        back_scores(INPUTS.daily, algorithm(one), 3) for one in (Neutralisation.NONE, mode)
    )
    np.testing.assert_array_equal(np.isfinite(plain), np.isfinite(found))
    assert not np.allclose(plain, found, equal_nan=True)


@pytest.mark.parametrize("mode", NEUTRAL)
def test_the_counterfactual_ranks_as_the_neutralised_scoring(mode: Neutralisation) -> None:
    one = board(mode)
    card = next(card for card in one.cards if card.rank == 9)
    found = find_counterfactual(one, FACTORS, card.symbol, 5)
    assert found is not None
    assert found.rank == 9
    best = find_counterfactual(one, FACTORS, one.cards[0].symbol, 5)
    assert best is not None
    assert best.changes == ()


def test_an_algorithm_must_have_its_exposures_and_one_universe() -> None:
    with pytest.raises(ValueError, match="btc_beta is no factor"):
        AlgorithmSpec(
            "any",
            CONFIGURATION.family_weights,
            tuple(one for one in FACTORS if one.name != "btc_beta"),
            neutralise=BOTH,
        )
    raw = np.random.default_rng(1).normal(size=(len(FACTORS), 30))
    with pytest.raises(ValueError, match="several universes"):
        composite_scores(raw, algorithm(BOTH), lambda values, _: values)
