"""Factors of many bars at once are those that the live measures give for each bar alone."""

from dataclasses import replace

import numpy as np
import pytest

from app.market.domain.models import Floats
from app.market.domain.panel import FIELDS, Panel, forward_fill, truncate
from app.market.domain.segments import breaks_by_row, contiguous, history_breaks
from app.research.domain.past_factors import PastFactors, is_measured_together, row_standard
from app.scoring.domain.factors import FACTORS, measure, rank_rows_to_normal, rank_to_normal
from app.scoring.domain.historical_moments import Moments
from app.scoring.domain.score_stability import candle_inputs
from tests.research.histories import random_history

TOGETHER = tuple(one for one in FACTORS if is_measured_together(one))
BARS = 120  # of a window: shorter than the history, so that old bars must leave it
ROWS = 200


def broken_panel(seed: int) -> Panel:
    """Random prices with gaps, halts, changes of unit, a bar in two units and short lives."""
    panel = random_history(rows=ROWS, names=26, seed=seed, ends={25: 140}).panel
    fields = {name: getattr(panel, name).copy() for name in FIELDS}
    generator = np.random.default_rng(seed)
    gone = generator.random(panel.close.shape) < 0.02
    gone[:, :4] = False
    gone[60:64, 1] = True  # a short gap, also at the begin of later windows
    gone[90:101, 2] = True  # a halt
    gone[:130, 3] = True  # a new listing
    gone[118:121, 4] = True  # a gap before another unit
    gone[146:148, 5] = True  # a gap after a bar in two units
    for name in ("open", "high", "low", "close"):
        fields[name][121:, 4] *= 1_000.0
        fields[name][146:, 5] *= 1_000.0
        fields[name][150:, 6] *= 0.01
    fields["open"][145, 5] /= 1_000.0
    fields["turnover"][70:75, 7] = 0.0
    for values in fields.values():
        values[gone] = np.nan
    return replace(panel, **fields)


def live_values(panel: Panel, row: int) -> Floats:
    """Returns (K, N) values of a row from its window alone."""
    first = max(0, row + 1 - BARS)
    fields = {name: getattr(panel, name)[first : row + 1] for name in FIELDS}
    window = replace(panel, opened_ms=panel.opened_ms[first : row + 1], **fields)
    inputs = candle_inputs(forward_fill(contiguous(window))[0])
    return np.array([measure(one, inputs).values for one in TOGETHER])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_values_of_many_bars_are_those_of_each_bar(seed: int) -> None:
    panel = broken_panel(seed)
    known = np.isfinite(panel.close)
    found = PastFactors.of(panel, BARS).measure(TOGETHER, np.ones(panel.close.shape, np.bool_), 0)
    assert found.shape == (len(TOGETHER), *panel.close.shape)
    for row in range(20, ROWS):
        expected = np.where(known[row], live_values(panel, row), np.nan)
        np.testing.assert_array_equal(np.isfinite(found[:, row]), np.isfinite(expected))
        np.testing.assert_allclose(found[:, row], expected, rtol=1e-11, atol=0)
    names = {one.name for one in TOGETHER}
    assert {"btc_beta", "btc_correlation", "volatility", "liquidity_risk"} <= names
    for place, factor in enumerate(TOGETHER):
        assert np.isfinite(found[place]).sum() > 500, factor.name


def test_only_wanted_bars_have_values_and_later_bars_change_none() -> None:
    panel = broken_panel(4)
    wanted = np.random.default_rng(4).random((30, 26)) < 0.5
    whole = PastFactors.of(panel, BARS).measure(TOGETHER, wanted, 110)
    assert not np.isfinite(whole[:, ~wanted]).any()
    assert np.isfinite(whole[:, wanted]).sum() > 1_000
    for rows in (111, 122, 140):
        cut = PastFactors.of(truncate(panel, rows), BARS)
        part = cut.measure(TOGETHER, wanted[: rows - 110], 110)
        np.testing.assert_array_equal(part, whole[:, : rows - 110])


def test_without_the_market_nothing_is_compared_with_it() -> None:
    panel = broken_panel(5)
    other = replace(panel, symbols=("X", *panel.symbols[1:]))
    found = PastFactors.of(other, BARS).measure(TOGETHER, np.isfinite(panel.close), 0)
    for place, factor in enumerate(TOGETHER):
        compares = factor.against_market or factor.name == "btc_beta"
        assert np.isfinite(found[place]).any() == (not compares), factor.name


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_breaks_by_row_are_those_of_the_panel_up_to_each_row(seed: int) -> None:
    panel = broken_panel(seed)
    found = breaks_by_row(panel)
    assert len(np.unique(found)) > 3
    for row in range(ROWS):
        np.testing.assert_array_equal(found[row], history_breaks(truncate(panel, row + 1)))


def test_each_row_is_ranked_alone() -> None:
    generator = np.random.default_rng(6)
    values = generator.integers(-9, 9, (40, 31)).astype(np.float64)
    values[generator.random(values.shape) < 0.3] = np.nan
    values[3], values[4, 1:], values[5] = np.nan, np.nan, 7.0
    values[6, 2], values[7, 3] = np.inf, -np.inf
    found = rank_rows_to_normal(values)
    for row, own in zip(values, found, strict=True):
        np.testing.assert_array_equal(own, rank_to_normal(row))


def test_few_values_of_a_row_use_moments() -> None:
    values = np.arange(24.0).reshape(2, 12)
    values[1, 5:] = np.nan
    found = row_standard(2, 12)(values.reshape(-1), Moments(10.0, 4.0)).reshape(2, 12)
    np.testing.assert_array_equal(found[0], rank_to_normal(values[0]))
    np.testing.assert_array_equal(found[1, :5], np.clip((values[1, :5] - 10.0) / 4.0, -3, 3))
    assert np.isnan(row_standard(2, 12)(values.reshape(-1), None).reshape(2, 12)[1]).all()
