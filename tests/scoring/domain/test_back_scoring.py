"""Scores of the last month from candles alone, and how steady they were."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.market.domain.panel import FIELDS, Panel
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.score_stability import back_scores, reliability, weekly_noise
from tests.support.scoring_inputs import make_inputs

INPUTS = make_inputs(14)
SPEC = AlgorithmSpec("default", Configuration().family_weights)


def cut(panel: Panel, rows: slice) -> Panel:
    fields: dict[str, Any] = {name: getattr(panel, name)[rows] for name in FIELDS}
    return replace(panel, opened_ms=panel.opened_ms[rows], **fields)


def test_a_past_day_is_scored_as_it_was_scored_then() -> None:
    """Bit for bit: what came later changes nothing."""
    now = back_scores(INPUTS.daily, SPEC, 4)
    for back in (1, 3):
        then = back_scores(cut(INPUTS.daily, slice(None, -back)), SPEC, 4 - back)
        np.testing.assert_array_equal(now[: 5 - back], then)
    assert np.isfinite(now).all()


def test_a_past_day_knows_no_bar_after_a_gap() -> None:
    """A bridge over a gap needs the bar after it: a day within the gap had none."""
    fields: dict[str, Any] = {name: getattr(INPUTS.daily, name).copy() for name in FIELDS}
    for array in fields.values():
        array[-4:-2, 5] = np.nan
    holed = replace(INPUTS.daily, **fields)
    now = back_scores(holed, SPEC, 4)
    for back in (2, 3):
        then = back_scores(cut(holed, slice(None, -back)), SPEC, 4 - back)
        np.testing.assert_array_equal(now[: 5 - back], then)


def test_only_daily_candles_are_needed_and_their_weights_stay_in_proportion() -> None:
    found = back_scores(INPUTS.daily, SPEC, 0)[0]
    assert np.sort(found) == pytest.approx(-np.sort(-found)[::-1])
    half = {**SPEC.weights, Family.RISK: 0.2, Family.TECHNICAL: 0.35}
    assert (back_scores(INPUTS.daily, replace(SPEC, weights=half), 0)[0] != found).any()


def test_the_market_is_scored_in_the_past_without_what_compares_it_with_itself() -> None:
    """Most of the risk weight is such: it leaves the denominator of the market's own coverage."""
    factors = tuple(replace(one, weight=5.0) if one.against_market else one for one in SPEC.factors)
    found = back_scores(INPUTS.daily, replace(SPEC, factors=factors), 2)
    assert np.isfinite(found[:, INPUTS.symbols.index("BTCUSDT")]).all()
    alone = {**dict.fromkeys(SPEC.weights, 0.0), Family.RISK: 1.0}
    only = replace(SPEC, factors=factors, weights=alone)
    assert np.isfinite(back_scores(INPUTS.daily, only, 2)).all()


def test_noise_is_the_deviation_of_weekly_changes_over_the_root_of_two() -> None:
    scores = back_scores(INPUTS.daily, SPEC, 20)
    weekly = np.array([scores[row + 7] - scores[row] for row in range(14)])
    np.testing.assert_allclose(weekly_noise(scores), weekly.std(axis=0, ddof=1) / 2**0.5)
    few = scores.copy()
    few[:5, 2] = np.nan
    assert np.isnan(weekly_noise(few)).tolist() == [at == 2 for at in range(14)]
    assert np.isnan(weekly_noise(scores[:7])).all()


def test_reliability_by_hand() -> None:
    scores = back_scores(INPUTS.daily, SPEC, 12)
    noise = np.diff(scores, axis=0).var(axis=0, ddof=1) / 2
    between = scores[-1].var()
    np.testing.assert_allclose(reliability(INPUTS.daily, SPEC, 12), between / (between + noise))


def test_a_restless_symbol_is_less_reliable() -> None:
    """Its returns leap every other day; the others keep theirs."""
    fields: dict[str, Any] = {name: getattr(INPUTS.daily, name).copy() for name in FIELDS}
    wild = np.where(np.arange(12) % 4 < 2, 0.2, 3.0)
    fields["turnover"][-12:, 5] *= wild**8
    for name in ("open", "high", "low", "close"):
        fields[name][-12:, 5] *= wild
    restless = reliability(replace(INPUTS.daily, **fields), SPEC, 12)
    calm = reliability(INPUTS.daily, SPEC, 12)
    assert restless[5] < calm[5]


def test_what_cannot_be_known_is_unknown() -> None:
    assert np.isnan(reliability(INPUTS.daily, SPEC, 9)).all(), "ten changes at least"
    assert np.isfinite(reliability(INPUTS.daily, SPEC, 10)).all()
    few = make_inputs(9)
    assert np.isnan(reliability(few.daily, SPEC, 12)).all(), "nine have no ranks"
    young = cut(INPUTS.daily, slice(-30, None))
    assert np.isnan(reliability(young, SPEC, 12)).all(), "nobody has a score"
    assert back_scores(cut(INPUTS.daily, slice(0, 3)), SPEC, 5).shape == (6, 14)
    live = tuple(
        replace(one, weight=0.0 if len(one.sources) == 1 else one.weight) for one in FACTORS
    )
    assert np.isnan(back_scores(INPUTS.daily, replace(SPEC, factors=live), 1)).all()


def test_reliability_shrinks_the_score_and_stands_on_the_card() -> None:
    plain = {card.symbol: card for card in score(INPUTS, SPEC).cards}
    steady = np.linspace(0.5, 1.0, 14)
    steady[3] = np.nan
    for card in score(INPUTS, SPEC, steady).cards:
        before, column = plain[card.symbol], INPUTS.symbols.index(card.symbol)
        assert card.confidence is not None
        assert before.confidence is not None
        assert before.z is not None
        if column == 3:
            assert card.confidence.reliability is None
            assert card.z == before.z
        else:
            assert card.confidence.reliability == steady[column]
            assert card.z == pytest.approx(before.z * steady[column])
        told = sum(one.contribution for one in card.factors if one.contribution is not None)
        assert told == pytest.approx(card.z, abs=1e-9)
