"""Rules of the technical source: each begins with the one bar that is planted, and only with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.sections import SignalSettings
from app.foundation.data_status import DataSource
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel
from app.scoring.domain.board import Board
from app.signals.domain.models import Direction
from app.signals.domain.sources import GeneratedSignal, SourceInput, select_signals
from app.signals.domain.technical_source import find_technical_signals
from tests.support.signal_features import card
from tests.support.trading_desk import NOW

BARS = 220
OPENED = int(NOW.timestamp() * 1000) - np.arange(BARS, 0, -1, dtype=np.int64) * Interval.HOUR.ms
RULES = SignalSettings()


def panel(close: Floats, **changed: Floats) -> Panel:
    """One symbol, whose bars open where the last one closed and reach a little beyond."""
    open_ = np.concatenate([close[:1], close[:-1]])
    given: dict[str, Any] = {
        "open": open_,
        "high": np.maximum(open_, close) * 1.001,
        "low": np.minimum(open_, close) * 0.999,
        "close": close,
        "volume": np.ones(BARS),
        "turnover": np.ones(BARS),
    }
    fields = {name: values[:, None].copy() for name, values in (given | changed).items()}
    return Panel(Interval.HOUR, ("AUSDT",), OPENED, **fields)


def ideas(given: Panel | None, rules: SignalSettings = RULES) -> list[GeneratedSignal]:
    board = Board(
        "board", "composite", 1, 1, NOW, NOW, 1.0, DataSource.SANDBOX, "hash", 1, {},
        (card("AUSDT"),),
    )  # fmt: skip
    return select_signals(find_technical_signals(SourceInput(board, given, rules)), board, rules)


def swaying(seed: int = 3) -> Floats:
    """A market that goes nowhere."""
    steps = np.random.default_rng(seed).normal(0.0, 0.004, BARS)
    return np.asarray(10.0 + np.sin(np.arange(BARS) / 4.0) * 0.2 + steps, np.float64)


def spiked(at: int = -1, ratio: float = 12.0) -> Floats:
    turnover = np.ones(BARS)
    turnover[at] = ratio
    return turnover


@pytest.mark.parametrize(("sign", "direction"), [(1.0, Direction.BUY), (-1.0, Direction.SELL)])
def test_a_close_beyond_the_range_with_turnover_is_a_breakout_once(
    sign: float, direction: Direction
) -> None:
    close = swaying()
    close[-1] = 10.0 + sign * 0.6
    found = {one.rule: one for one in ideas(panel(close, turnover=spiked(ratio=5.0)))}
    assert found["breakout"].direction is direction
    assert found["breakout"].at == NOW
    assert "breakout" not in {one.rule for one in ideas(panel(close))}, "without turnover"
    on = np.concatenate([close[1:], [10.0 + sign * 0.9]])
    loud = spiked(ratio=50.0) + 4.0 * (np.arange(BARS) == BARS - 2)
    assert "breakout" not in {one.rule for one in ideas(panel(on, turnover=loud))}, "it goes on"
    quiet = replace(panel(close, turnover=spiked()), symbols=("BUSDT",))
    assert ideas(quiet) == [], "a symbol without a score"


def diverging(sign: float) -> Floats:
    """A steep fall, a rest, and a slow fall below it whose low is the bar before the last one."""
    close = np.full(BARS, 10.0) + 0.01 * np.sin(np.arange(BARS))
    close[-30:-18] -= np.linspace(0.0, 1.5, 12)
    close[-18:-10] = 8.5 + np.linspace(0.2, 0.7, 8)
    close[-10:-1] = np.linspace(9.2, 8.4, 9)
    close[-1] = 8.7
    return close if sign > 0.0 else 20.0 - close


@pytest.mark.parametrize(("sign", "direction"), [(1.0, Direction.BUY), (-1.0, Direction.SELL)])
def test_a_lower_low_at_a_higher_rsi_is_a_divergence(sign: float, direction: Direction) -> None:
    easy = replace(RULES, source_strength=0.2)
    (found,) = [one for one in ideas(panel(diverging(sign)), easy) if one.rule == "rsi_divergence"]
    assert found.direction is direction
    assert found.figures["rsi_gap"] > 0.0
    still = diverging(sign)
    still[-1] = 8.3 if sign > 0.0 else 11.7
    rules = {one.rule for one in ideas(panel(still), easy)}
    assert "rsi_divergence" not in rules, "it has not turned"


@pytest.mark.parametrize(("sign", "direction"), [(1.0, Direction.BUY), (-1.0, Direction.SELL)])
def test_a_day_of_one_way_is_momentum(sign: float, direction: Direction) -> None:
    close = 10.0 * np.exp(np.random.default_rng(5).normal(0.0, 0.004, BARS).cumsum() * 0.2)
    close[-19:] = close[-20] * np.exp(sign * 0.002 * np.arange(1, 20))
    for length in range(19, 0, -1):  # the bar with which it begins
        shorter = close.copy()
        shorter[-19 + length :] = shorter[-19 + length - 1]
        begun = np.concatenate([shorter[: BARS - 19 + length][-BARS:]])
        cut = np.concatenate([np.full(BARS - len(begun), begun[0]), begun])
        found = [one for one in ideas(panel(cut)) if one.rule == "momentum"]
        if found:
            break
    assert found
    assert found[0].direction is direction
    assert found[0].figures["same_way"] >= 0.7


def test_a_loud_bar_that_closes_at_its_end_is_a_volume_spike() -> None:
    close = swaying()
    close[-1] = close[-2] * 1.01
    given = panel(close, turnover=spiked())
    (found,) = [one for one in ideas(given) if one.rule == "volume_spike"]
    assert found.direction is Direction.BUY
    assert found.figures["turnover_ratio"] == 12.0
    claim = found.claim("technical")
    assert claim.source_id == "AUSDT:volume_spike:2026-03-01T12:00Z"
    assert claim == ideas(given)[0].claim("technical"), "a restart says the very same"
    off_end = replace(given, high=given.high * 1.02)
    assert [one for one in ideas(off_end) if one.rule == "volume_spike"] == []


def test_what_is_missing_says_nothing() -> None:
    assert ideas(None) == []
    close = swaying()
    close[-1] = close[-2] * 1.05
    loud = panel(close, turnover=spiked())
    names = ("opened_ms", "open", "high", "low", "close", "volume", "turnover")
    kinds = {}
    for rows in (0, 1, 30, 56, 168, 169):
        short = {name: getattr(loud, name)[BARS - rows :] for name in names}
        kinds[rows] = {one.rule for one in ideas(replace(loud, **short))}
    assert all(not kinds[rows] for rows in (0, 1, 30))
    assert kinds[56] == kinds[168] == {"breakout"}
    assert kinds[169] == {"breakout", "volume_spike"}
    gone = loud.close.copy()
    gone[-40:-20] = np.nan
    assert "breakout" not in {one.rule for one in ideas(replace(loud, close=gone, high=gone))}


@pytest.mark.parametrize("row", [BARS - 1, BARS - 3, BARS - 30, BARS - 100])
def test_a_redenomination_is_no_signal(row: int) -> None:
    """Differenced across it, 1 to 1000 sold with a strength of .96."""
    factor = np.where(np.arange(BARS) < row, 1000.0, 1.0)
    given = panel(swaying(), turnover=spiked(row, 2.5))
    fields = {
        name: getattr(given, name) * factor[:, None] for name in ("open", "high", "low", "close")
    }
    assert ideas(given) == []
    assert ideas(replace(given, **fields)) == []


@pytest.mark.parametrize("row", [BARS - 1, BARS - 3, BARS - 30, BARS - 100])
@pytest.mark.parametrize("unit", [0.001, 1000.0])
def test_a_redenomination_inside_a_bar_is_no_signal(row: int, unit: float) -> None:
    """The bar opens in the old unit and closes in the new one."""
    given = panel(swaying(), turnover=spiked(row, 2.5))
    old = np.where(np.arange(BARS)[:, None] < row, 1.0 / unit, 1.0)
    opened = given.open * np.where(np.arange(BARS)[:, None] <= row, 1.0 / unit, 1.0)
    close = given.close * old
    high = np.maximum(np.maximum(given.high * old, opened), close)
    low = np.minimum(np.minimum(given.low * old, opened), close)
    assert ideas(given) == []
    assert ideas(replace(given, open=opened, high=high, low=low, close=close)) == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_one_ulp_on_prices_that_stand_still_is_no_signal(seed: int) -> None:
    ulps = np.random.default_rng(seed).integers(-1, 2, (4, BARS)) * np.spacing(10.0)
    rows = np.sort(10.0 + ulps, axis=0)
    rows[:, -1] = 10.0
    rows[3, -1] += 2 * np.spacing(10.0)  # high, and the bar closes there
    still = panel(rows[1], open=rows[1], high=rows[3], low=rows[0], turnover=spiked())
    still.close[-1] = still.high[-1]
    assert ideas(still) == []
