"""Leaks, looked for from outside: planted signals, random prices, delays, coins that vanish."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy
from numpy.typing import NDArray

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family, Source
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factors import Factor
from app.scoring.domain.score_stability import back_scores
from tests.support.market_files import DAILY_PANEL, needs_daily_panel
from tests.support.scoring_inputs import names

Floats = NDArray[np.float64]
SPEC = AlgorithmSpec("default", Configuration().family_weights)
DAY_MS = Interval.DAY.ms


def panel_of(close: Floats, signal: Floats | None = None, turnover: Floats | None = None) -> Panel:
    """Bars of these closes; `signal` stands where the volume does, which no factor reads."""
    open_ = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * 1.005, np.minimum(open_, close) * 0.995
    opened = np.arange(len(close), dtype=np.int64) * DAY_MS
    extra = np.ones_like(close) if signal is None else signal
    flow = np.full_like(close, 1e7) if turnover is None else turnover
    symbols = names(close.shape[1])
    return Panel(Interval.DAY, symbols, opened, open_, high, low, close, extra, flow)


@cache
def market(seed: int, strength: float, memory: float) -> tuple[Panel, Floats]:
    """Coins whose next day's return hangs on a signal of today; and the returns themselves."""
    rng = np.random.default_rng(seed)
    days, count = 220, 60
    signal = np.zeros((days, count))
    for day in range(1, days):
        fresh = rng.normal(0.0, np.sqrt(1.0 - memory**2), count)
        signal[day] = memory * signal[day - 1] + fresh
    noise = rng.normal(0.0, 1.0, (days, count))
    moves = 0.02 * (np.sqrt(1.0 - strength**2) * noise + strength * np.roll(signal, 1, axis=0))
    return panel_of(np.exp(np.cumsum(moves, axis=0)), signal), moves


def told(row: int, orientation: int = 1) -> AlgorithmSpec:
    """An algorithm that is nothing but the signal, so many bars from the end."""

    def signal(inputs: ScoringInputs) -> Floats:
        return np.asarray(inputs.daily.volume[row], np.float64)

    factor = Factor(
        "planted", Family.RISK, orientation, 1.0, "sd", (Source.DAILY_CANDLES,), signal, "gap", ""
    )
    return replace(SPEC, factors=(factor,))


def correlations(scores: Floats, close: Floats, horizon: int = 1) -> Floats:
    """Spearman's of each day's scores with what came after it."""
    log = np.log(close[-len(scores) :])
    ahead = log[horizon:] - log[:-horizon]
    found = []
    for one, then in zip(scores[:-horizon], ahead, strict=True):
        both = np.isfinite(one) & np.isfinite(then)
        if both.sum() >= 15:
            found.append(float(scipy.stats.spearmanr(one[both], then[both]).statistic))
    return np.array(found)


def newey_west(values: Floats, lag: int = 5) -> float:
    """t of the mean, with Bartlett's weights."""
    away, count = values - values.mean(), len(values)
    spread = away @ away / count
    for k in range(1, lag + 1):
        spread += 2.0 * (1.0 - k / (lag + 1)) * (away[k:] @ away[:-k]) / count
    return float(values.mean() / np.sqrt(spread / count))


@pytest.mark.parametrize("orientation", [1, -1])
def test_a_planted_factor_is_found_with_its_sign(orientation: int) -> None:
    panel, _ = market(1, 0.05, 0.0)
    found = correlations(back_scores(panel, told(-1, orientation), 150), panel.close)
    assert orientation * found.mean() == pytest.approx(0.05, abs=0.025)
    assert orientation * newey_west(found) > 3.0


def test_a_signal_that_lasts_survives_a_bar_of_delay_and_one_that_peeks_does_not() -> None:
    panel, moves = market(2, 0.2, 0.98)
    now, late = (
        correlations(back_scores(panel, told(row), 120), panel.close).mean() for row in (-1, -2)
    )
    assert abs(late / now - 1.0) < 0.10
    peeking = replace(panel, volume=np.roll(moves, -1, axis=0))  # tomorrow's return, today
    now, late = (
        correlations(back_scores(peeking, told(row), 120), panel.close).mean() for row in (-1, -2)
    )
    assert now > 0.99
    assert abs(late) < 0.1


def test_random_prices_say_nothing_of_the_next_day() -> None:
    """Eight markets together: a look-ahead would push all of them the same way."""
    found = np.array([_random_market(seed) for seed in range(1, 9)])
    assert abs(found.mean()) * np.sqrt(len(found)) < 2.0


def _random_market(seed: int) -> float:
    """t of the correlation between scores and the next day where prices are random."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0.0, 0.03, (190, 24)) * rng.uniform(0.5, 2.0, 24)
    turnover = 1e7 * np.exp(rng.normal(0.0, 0.5, (190, 24)))
    panel = panel_of(np.exp(np.cumsum(moves, axis=0)), turnover=turnover)
    found = correlations(back_scores(panel, SPEC, 80), panel.close)
    assert len(found) == 80
    return newey_west(found)


def test_a_coin_that_vanishes_later_changes_no_day_before() -> None:
    rng = np.random.default_rng(4)
    panel = panel_of(np.exp(np.cumsum(rng.normal(0.0, 0.03, (160, 16)), axis=0)))
    fields: dict[str, Any] = {name: getattr(panel, name).copy() for name in FIELDS}
    for array in fields.values():
        array[-8:, 5] = np.nan
    whole = back_scores(panel, SPEC, 20)
    gone = back_scores(replace(panel, **fields), SPEC, 20)
    np.testing.assert_array_equal(gone[:13], whole[:13])
    assert np.isnan(gone[-1, 5])


@needs_daily_panel
@pytest.mark.long
def test_of_real_coins_a_bar_of_delay_changes_little() -> None:
    """Forty perpetuals, 2024-09 to 2025-06, with the next seven days."""
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = ("symbol", "ts", "open", "high", "low", "close", "volume", "quote_volume")
    table = parquet.read_table(
        DAILY_PANEL, columns=list(columns), filters=[("venue", "==", "binance_usdm_perp")]
    ).sort_by("ts")
    every = {name: table[name].to_numpy(zero_copy_only=False) for name in columns}
    series = {}
    for symbol in sorted(set(every["symbol"])):
        own = every["symbol"] == symbol
        numbers = [every[name][own].astype(np.float64) for name in columns[2:]]
        series[symbol] = CandleSeries(every["ts"][own].astype(np.int64), *numbers)
    bars = 420
    end = int(every["ts"].max()) + DAY_MS
    panel = Panel.from_series(series, tuple(series), Interval.DAY, end, bars)
    liquid = np.argsort(-np.nansum(panel.turnover[:90], axis=0))[:40]
    fields: dict[str, Any] = {name: getattr(panel, name)[:, liquid] for name in FIELDS}
    chosen = tuple(panel.symbols[column] for column in liquid)
    panel = replace(panel, symbols=chosen, **fields)
    scores = back_scores(panel, SPEC, 300)
    prompt = correlations(scores[1:], panel.close, 7)
    late = correlations(scores[:-1], panel.close, 7)
    assert prompt.mean() > 0.05
    assert abs(late.mean() / prompt.mean() - 1.0) < 0.10


@pytest.mark.long
def test_statsmodels_has_the_same_error_of_a_mean() -> None:
    statsmodels = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(7)
    for lag in (1, 5, 9):
        values = np.convolve(rng.normal(0.1, 1.0, 206), np.ones(7), "valid")
        theirs = statsmodels.OLS(values, np.ones(len(values))).fit(
            cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False}
        )
        assert newey_west(values, lag) == pytest.approx(theirs.tvalues[0], rel=1e-12)
