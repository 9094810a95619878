"""A composite at every bar is the one that a scoring of that bar alone would give."""

from dataclasses import replace

import numpy as np
import pytest

from app.configuration.domain.sections import Family
from app.market.domain.models import Floats
from app.research.domain.every_bar import MEASURES, composite_at_every_bar
from app.scoring.domain.composite import COMPOSITE, AlgorithmSpec, composite_scores
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.historical_moments import Moments
from app.scoring.domain.price_factors import indicators_at_last_bar
from tests.research.domain.test_indicator_kernel import bars

pytestmark = pytest.mark.xdist_group("kernels")

SPEC = AlgorithmSpec(
    "hourly",
    dict(zip(Family, (1.0, 0.0, 0.0, 0.0), strict=True)),
    tuple(factor for factor in FACTORS if factor.name in MEASURES),
)
MOMENTS = {
    "rsi_14": Moments(50.0, 10.0),
    "macd_histogram": Moments(0.0, 0.3),
    "bollinger_position": Moments(0.5, 0.4),
    Family.TECHNICAL: Moments(0.0, 0.6),
    COMPOSITE: Moments(0.0, 0.6),
}


Bars = tuple[Floats, Floats, Floats, Floats]


def cut(field: Bars, rows: int) -> Bars:
    high, low, close, volume = field
    return high[:rows], low[:rows], close[:rows], volume[:rows]


def alone(field: Bars, row: int, spec: AlgorithmSpec, least: int) -> Floats:
    """The composite of one row from the bars to there, by the functions that score live."""
    newest = indicators_at_last_bar(*cut(field, row + 1))
    figures = {
        "rsi_14": newest.rsi,
        "macd_histogram": newest.macd_in_ranges,
        "bollinger_position": newest.band_position,
    }
    close = field[2][: row + 1]
    known = np.isfinite(close[-1]) & (np.isfinite(close).sum(axis=0) >= least)
    raw = np.array([figures[factor.name] for factor in spec.factors])
    return composite_scores(np.where(known, raw, np.nan), spec).z


@pytest.mark.parametrize("symbols", [13, 40])
@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, moments=MOMENTS)], ids=["bare", "moments"])
def test_each_bar_of_a_history_is_scored_as_it_would_be_alone(
    symbols: int, spec: AlgorithmSpec
) -> None:
    field = bars(150, symbols)
    every = composite_at_every_bar(*field, spec, min_bars=40)
    assert np.isfinite(every[-1]).any()
    for row in (0, 38, 39, 63, 64, 90, 127, 128, 149):
        np.testing.assert_allclose(every[row], alone(field, row, spec, 40), rtol=0, atol=1e-12)


def test_later_bars_change_nothing_of_what_came_before() -> None:
    field = bars(150, 20)
    whole = composite_at_every_bar(*field, SPEC, min_bars=40)
    for end in (1, 64, 101):
        part = composite_at_every_bar(*cut(field, end), SPEC, min_bars=40)
        np.testing.assert_array_equal(part, whole[:end])
