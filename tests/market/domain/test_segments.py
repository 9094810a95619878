"""Where a history breaks, and what windows see of it then."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.model import Configuration, CorrelationBasis
from app.market.domain.models import STORED, CandleSeries, Interval
from app.market.domain.panel import FIELDS, Panel, truncate
from app.market.domain.return_statistics import correlations
from app.market.domain.segments import (
    contiguous,
    history_breaks,
    is_redenomination,
    redenominations,
)
from app.portfolio.domain.risk import compute_risk, value_at_risk
from app.portfolio.domain.weighting import estimate_covariance
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from app.scoring.domain.score_stability import back_scores, reliability, weekly_noise
from tests.support.market_files import DAILY_PANEL, needs_daily_panel
from tests.support.scoring_inputs import make_inputs

NAN = float("nan")
INPUTS = make_inputs(14)
SPEC = AlgorithmSpec("default", Configuration().family_weights)


def changed(panel: Panel, change: Callable[[dict[str, np.ndarray]], None]) -> Panel:
    fields: dict[str, Any] = {name: getattr(panel, name).copy() for name in FIELDS}
    change(fields)
    return replace(panel, **fields)


def halted(panel: Panel, first: int, bars: int, column: int = 3) -> Panel:
    def change(fields: dict[str, np.ndarray]) -> None:
        for array in fields.values():
            array[first : first + bars, column] = NAN

    return changed(panel, change)


def exchanged(panel: Panel, row: int, factor: float, column: int = 3) -> Panel:
    """One coin became 1 / factor coins at that row."""

    def change(fields: dict[str, np.ndarray]) -> None:
        for name in ("open", "high", "low", "close"):
            fields[name][:row, column] /= factor

    return changed(panel, change)


def mixed(panel: Panel, row: int, factor: float, column: int = 3) -> Panel:
    """As `exchanged`, inside the bar at that row: it opens in the old unit and closes in the new.

    Its high and low are the outer ones of both units.
    """

    def change(fields: dict[str, np.ndarray]) -> None:
        high, low = fields["high"][row, column], fields["low"][row, column]
        fields["open"][row, column] /= factor
        fields["high"][row, column] = max(high, high / factor)
        fields["low"][row, column] = min(low, low / factor)

    return changed(exchanged(panel, row, factor, column), change)


def test_a_whole_history_is_left_as_it_is() -> None:
    assert not history_breaks(INPUTS.daily).any()
    whole = contiguous(INPUTS.daily)
    assert whole.close is INPUTS.daily.close
    assert contiguous(whole) is whole
    nothing = halted(INPUTS.daily, 0, 200, 5)
    assert not history_breaks(nothing).any()
    empty = replace(
        INPUTS.daily,
        opened_ms=INPUTS.daily.opened_ms[:0],
        **{name: getattr(INPUTS.daily, name)[:0] for name in FIELDS},
    )
    assert history_breaks(empty).tolist() == [0] * 14


@pytest.mark.parametrize(("bars", "first"), [(5, 0), (6, 106)])
def test_a_gap_longer_than_a_halt_may_be_is_a_break(bars: int, first: int) -> None:
    assert history_breaks(halted(INPUTS.daily, 100, bars)).tolist() == [0, 0, 0, first, *[0] * 10]


@pytest.mark.parametrize(("bars", "first"), [(24, 0), (25, 125)])
def test_an_hourly_gap_of_more_than_a_day_is_a_break(bars: int, first: int) -> None:
    assert history_breaks(halted(INPUTS.hourly, 100, bars))[3] == first


@pytest.mark.parametrize("factor", [0.001, 0.01, 0.1, 10.0, 100.0])
def test_a_redenomination_is_a_break(factor: float) -> None:
    assert history_breaks(exchanged(INPUTS.daily, 120, factor))[3] == 120
    assert history_breaks(exchanged(halted(INPUTS.daily, 117, 3), 120, factor))[3] == 120


@pytest.mark.parametrize("factor", [0.3, 0.5, 2.0, 4.0])
def test_a_great_move_is_none(factor: float) -> None:
    assert not history_breaks(exchanged(INPUTS.daily, 120, factor)).any()
    assert not history_breaks(mixed(INPUTS.daily, 120, factor)).any()


@pytest.mark.parametrize("factor", [0.001, 0.01, 0.1, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("interval", STORED)
def test_a_bar_that_holds_two_units_belongs_to_no_segment(
    factor: float, interval: Interval
) -> None:
    panel = INPUTS.daily if interval is Interval.DAY else INPUTS.hourly
    broken = mixed(panel, 120, factor)
    assert history_breaks(broken).tolist() == [0, 0, 0, 121, *[0] * 10]
    after = contiguous(broken)
    for name in FIELDS:
        assert np.isnan(getattr(after, name)[:121, 3]).all()
        np.testing.assert_array_equal(getattr(after, name)[121:], getattr(panel, name)[121:])
        np.testing.assert_array_equal(getattr(after, name)[:, 4], getattr(panel, name)[:, 4])
    # Bars alone do not tell a change of unit from a gain: positions keep their value.
    assert not redenominations(broken).any()


@pytest.mark.parametrize("factor", [0.001, 1000.0])
@pytest.mark.parametrize("move", [0.3, 3.0])
def test_a_great_move_does_not_hide_a_change_of_unit_inside_the_bar(
    factor: float, move: float
) -> None:
    def change(fields: dict[str, np.ndarray]) -> None:
        fields["open"][120, 3] *= move

    assert history_breaks(changed(mixed(INPUTS.daily, 120, factor), change))[3] == 121


def test_a_newest_bar_of_two_units_leaves_no_price() -> None:
    last = len(INPUTS.daily.close) - 1
    broken = mixed(INPUTS.daily, last, 0.001)
    assert history_breaks(broken)[3] == last + 1
    assert np.isnan(contiguous(broken).close[:, 3]).all()
    found = compute_risk(broken, {INPUTS.symbols[3]: 1.0})
    assert (found.volatility, found.reason) == (None, "0 common days, 30 are needed")
    assert value_at_risk(broken, {INPUTS.symbols[3]: 1.0}, 0.95) is None


def test_the_last_break_counts_and_the_bars_before_it_are_gone() -> None:
    panel = exchanged(halted(INPUTS.daily, 50, 10), 120, 0.01)
    after = contiguous(panel)
    for name in FIELDS:
        assert np.isnan(getattr(after, name)[:120, 3]).all()
        np.testing.assert_array_equal(getattr(after, name)[120:], getattr(panel, name)[120:])
        np.testing.assert_array_equal(getattr(after, name)[:, 4], getattr(panel, name)[:, 4])


def test_no_window_reaches_back_over_a_redenomination() -> None:
    """Eighty bars after it every factor is that of a listing of eighty bars."""
    symbol = INPUTS.symbols[3]

    def card(daily: Panel) -> Any:
        board = score(replace(INPUTS, daily=daily), SPEC)
        return next(one for one in board.cards if one.symbol == symbol)

    exchange = card(exchanged(INPUTS.daily, 120, 0.001))
    listing = card(halted(INPUTS.daily, 0, 120))
    assert exchange == listing
    assert exchange.confidence.sample < card(INPUTS.daily).confidence.sample
    seamless = {one.name: one.raw for one in card(INPUTS.daily).factors}
    highs = {one.name: one.raw for one in exchange.factors}
    assert highs["drawdown"] is not None
    assert highs["nearness_to_high"] == seamless["nearness_to_high"]


@pytest.mark.parametrize("factor", [0.001, 1000.0])
@pytest.mark.parametrize("has_hours", [True, False])
def test_no_score_reaches_into_a_bar_of_two_units(factor: float, has_hours: bool) -> None:
    """Every number of the symbol, and of all others beside it, is that of a younger listing."""
    hourly = INPUTS.hourly if has_hours else truncate(INPUTS.hourly, 0)
    row = len(INPUTS.hourly.close) - 100

    def board(daily: Panel, hours: Panel) -> Any:
        inputs = replace(INPUTS, daily=daily, hourly=hours)
        past = reliability(daily, SPEC), weekly_noise(back_scores(daily, SPEC))
        return replace(score(inputs, SPEC, past[0], noise=past[1]), input_hash="")

    broken = board(
        mixed(INPUTS.daily, 120, factor), mixed(hourly, row, factor) if has_hours else hourly
    )
    young = board(halted(INPUTS.daily, 0, 121), halted(hourly, 0, row + 1) if has_hours else hourly)
    assert broken == young


@pytest.mark.parametrize("make", [exchanged, mixed])
def test_neither_correlation_nor_covariance_reaches_back(
    make: Callable[[Panel, int, float], Panel],
) -> None:
    pair = (INPUTS.symbols[3], INPUTS.symbols[4])
    broken = make(INPUTS.daily, 120, 0.01)
    young = halted(INPUTS.daily, 0, 121 if make is mixed else 120)
    raw = CorrelationBasis.RAW
    np.testing.assert_array_equal(
        correlations(broken, pair, raw, 150), correlations(young, pair, raw, 150)
    )
    np.testing.assert_array_equal(
        estimate_covariance(broken, pair).matrix, estimate_covariance(young, pair).matrix
    )


@pytest.mark.parametrize("factor", [0.001, 1000.0])
@pytest.mark.parametrize("make", [exchanged, mixed])
def test_the_risk_of_a_portfolio_does_not_reach_back_over_a_redenomination(
    make: Callable[[Panel, int, float], Panel], factor: float
) -> None:
    """Differenced across it, one exchange of 1000 for 1 gave a volatility of 269."""
    weights = {INPUTS.symbols[3]: 0.6, INPUTS.symbols[4]: 0.4}
    broken = make(INPUTS.daily, 120, factor)
    young = halted(INPUTS.daily, 0, 121 if make is mixed else 120)
    found, expected = compute_risk(broken, weights), compute_risk(young, weights)
    assert found == expected
    assert found.volatility is not None
    assert found.volatility < 3.0
    seamless = value_at_risk(INPUTS.daily, weights, 0.95)
    var = value_at_risk(broken, weights, 0.95)
    assert var == value_at_risk(young, weights, 0.95)
    assert var is not None
    assert seamless is not None
    assert var < 2.0 * seamless


def test_a_halt_is_no_redenomination() -> None:
    assert not redenominations(halted(INPUTS.daily, 100, 30)).any()
    both = exchanged(halted(INPUTS.daily, 150, 10), 120, 0.01)
    assert redenominations(both)[3] == 120
    assert history_breaks(both)[3] == 160
    assert is_redenomination(3.0, 3_100.0)
    assert is_redenomination(3.0, 0.31)
    assert not is_redenomination(3.0, 9.0)
    assert not is_redenomination(3.0, float("nan"))
    assert not is_redenomination(0.0, 3.0)


EVENTS = {  # what happened to coins of the real panel, and the first bar after it
    "BNXUSDT": "2023-02-22", "QUICKUSDT": "2023-07-21", "SUNUSDT": "2021-06-18",
    "VIDTUSDT": "2022-11-09", "CVCUSDT": "2023-05-12", "FTTUSDT": "2023-09-22", "BTCUSDT": None,
}  # fmt: skip


@needs_daily_panel
@pytest.mark.long
def test_golden_redenominations_and_halts() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ("symbol", "ts", "open", "high", "low", "close", "volume", "quote_volume")
    table = parquet.read_table(
        DAILY_PANEL,
        columns=list(names),
        filters=[("symbol", "in", list(EVENTS)), ("venue", "==", "binance_spot")],
    ).sort_by("ts")
    every = {name: np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in names}
    for symbol, day in EVENTS.items():
        own = every["symbol"] == symbol
        _, *fields = (every[name][own] for name in names)
        opened = fields[0].astype(np.int64)
        series = CandleSeries(opened, *(one.astype(np.float64) for one in fields[1:]))
        bars = int((opened[-1] - opened[0]) // Interval.DAY.ms) + 1
        end = int(opened[-1]) + Interval.DAY.ms
        panel = Panel.from_series({symbol: series}, (symbol,), Interval.DAY, end, bars)
        first = int(history_breaks(panel)[0])
        found = str(panel.opened_ms[first].astype("datetime64[ms]").astype("datetime64[D]"))
        assert (found if first else None) == day, symbol
