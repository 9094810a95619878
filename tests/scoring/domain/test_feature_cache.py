"""Values of candles that did not change are reused, and are those that a computation gives."""

from dataclasses import replace
from typing import Any

import numpy as np

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.market.domain.models import Interval
from app.market.domain.panel import Panel, ScoringInputs
from app.market.services.snapshot import PanelCache
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.engine import FeatureCache, score
from app.scoring.domain.input_hash import board_hash
from tests.support.scoring_inputs import AS_OF_MS, make_inputs, names, walk

SYMBOLS = 14
SPEC = build_algorithm(Configuration())
DAILY = sum(factor.sources == (Source.DAILY_CANDLES,) for factor in SPEC.factors)
HOURLY = sum(factor.sources == (Source.HOURLY_CANDLES,) for factor in SPEC.factors)
ALL = len(SPEC.factors)


def counted(features: FeatureCache, inputs: ScoringInputs) -> tuple[int, int]:
    """Computed and reused factors of one run, whose board is that of a run without reuse."""
    before = features.computed, features.reused
    found = score(inputs, SPEC, compute=features.measure)
    alone = score(inputs, SPEC)
    facts: dict[str, Any] = {
        "run_id": "", "algorithm": "", "algorithm_version": 1, "configuration_version": 1,
        "calculated_at": found.as_of, "duration_ms": 0.0, "data_source": "sandbox",
        "is_provisional": False,
    }  # fmt: skip
    assert board_hash(found.to_board(**facts)) == board_hash(alone.to_board(**facts))
    computed, reused = features.computed - before[0], features.reused - before[1]
    assert computed % SYMBOLS == reused % SYMBOLS == 0
    return computed // SYMBOLS, reused // SYMBOLS


def test_only_values_of_changed_candles_are_computed() -> None:
    features, inputs = FeatureCache(), make_inputs(SYMBOLS)
    assert (DAILY, HOURLY) > (0, 0)
    assert counted(features, inputs) == (ALL, 0)
    quotes = replace(inputs, bid=inputs.bid * 0.9999, as_of_ms=inputs.as_of_ms + 60_000)
    assert counted(features, quotes) == (ALL - DAILY - HOURLY, DAILY + HOURLY)
    close = inputs.hourly.close.copy()
    close[-1, 3] *= 1.01
    hour = replace(quotes, hourly=replace(inputs.hourly, close=close))
    assert counted(features, hour) == (ALL - DAILY, DAILY)
    assert counted(features, inputs) == (ALL - DAILY, DAILY), "back again is a change as well"
    assert counted(features, make_inputs(SYMBOLS)) == (ALL, 0), "equal bars of another panel"


def test_another_measure_of_the_same_name_is_computed() -> None:
    features, inputs = FeatureCache(), make_inputs(SYMBOLS)
    with np.errstate(all="ignore"):
        first = features.measure(SPEC.factors[0], inputs)
        other = replace(SPEC.factors[0], measure=lambda one: np.zeros(len(one.symbols)))
        assert features.measure(other, inputs).tolist() == [0.0] * SYMBOLS
        assert features.measure(SPEC.factors[0], inputs).tolist() == first.tolist()
    assert features.reused == 0


def test_a_panel_is_one_object_until_a_candle_a_symbol_or_the_end_changes() -> None:
    rng, hour = np.random.default_rng(3), Interval.HOUR
    series = {name: walk(rng, 40, hour, AS_OF_MS, 0.01, 1.0, np.zeros(40)) for name in names(5)}
    cache = PanelCache()

    def panel(symbols: tuple[str, ...] = names(4), end_ms: int = AS_OF_MS, bars: int = 30) -> Panel:
        found = cache.get(series, symbols, hour, end_ms, bars)
        wanted = Panel.from_series(series, symbols, hour, end_ms, bars)
        for name in ("opened_ms", "open", "high", "low", "close", "volume", "turnover"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        assert found.symbols == symbols
        return found

    first = panel()
    assert panel() is first
    series["NOTHINGUSDT"] = series.pop(names(5)[4])
    assert panel() is first, "of a symbol that is not asked for"
    for other in (panel(names(3)), panel(end_ms=AS_OF_MS - hour.ms), panel(bars=29)):
        assert other is not first
    again = panel()
    series[names(4)[1]] = replace(series[names(4)[1]], close=series[names(4)[1]].close * 2.0)
    assert panel() is not again


def test_a_board_without_readings_has_the_same_scores() -> None:
    inputs = make_inputs(SYMBOLS)
    whole, brief = score(inputs, SPEC), score(inputs, SPEC, with_readings=False)
    scored = [card for card in whole.cards if card.rank is not None]
    assert scored
    assert all(card.factors for card in scored)
    assert brief.input_hash == whole.input_hash
    expected = [replace(one, factors=()) if one.rank is not None else one for one in whole.cards]
    assert list(brief.cards) == expected
