"""Rules of the fundamental source: what is far from the median of a board."""

from dataclasses import replace

import pytest

from app.configuration.domain.sections import SignalSettings
from app.foundation.data_status import DataSource
from app.scoring.domain.board import Board, Card, Confidence
from app.signals.domain.models import Direction
from app.signals.domain.sources import (
    GeneratedSignal,
    SourceInput,
    find_fundamental_signals,
    select_signals,
)
from tests.support.signal_features import card
from tests.support.trading_desk import NOW

RULES = SignalSettings()
USUAL = [-0.02, -0.01, 0.0, 0.01, 0.02] * 4


def board(*cards: Card) -> Board:
    return Board(
        "board", "composite", 1, 1, NOW, NOW, 1.0, DataSource.SANDBOX, "hash", 1, {}, cards
    )


def others(factor: str, count: int = 20) -> list[Card]:
    names = ("funding_rate", "volume_growth", "open_interest_change")
    calm = dict.fromkeys(names, 0.0)
    return [card(f"S{at}", **(calm | {factor: 0.1 + USUAL[at]})) for at in range(count)]


def ideas(*cards: Card) -> list[GeneratedSignal]:
    seen = board(*cards)
    return select_signals(find_fundamental_signals(SourceInput(seen, None, RULES)), seen, RULES)


@pytest.mark.parametrize(
    ("factor", "raw", "rule", "direction"),
    [
        ("funding_rate", 0.6, "funding_extreme", Direction.SELL),
        ("funding_rate", -0.6, "funding_extreme", Direction.BUY),
        ("open_interest_change", 0.6, "open_interest_surge", Direction.SELL),
        ("volume_growth", 0.6, "volume_regime", Direction.SELL),
        ("volume_growth", -0.6, "volume_regime", Direction.BUY),
    ],
)
def test_what_is_far_from_the_median_is_said_once_a_day(
    factor: str, raw: float, rule: str, direction: Direction
) -> None:
    (found,) = ideas(*others(factor), card("AUSDT", **{factor: raw}))
    assert (found.symbol, found.rule, found.direction) == ("AUSDT", rule, direction)
    assert found.claim("fundamental").source_id == f"AUSDT:{rule}:2026-03-01T00:00Z"
    assert ideas(*others(factor), card("AUSDT", **{factor: 0.12})) == []


def test_interest_that_falls_says_nothing() -> None:
    factor = "open_interest_change"
    assert ideas(*others(factor), card("AUSDT", **{factor: -0.9})) == []


def test_among_few_or_equal_ones_or_without_confidence_nothing_is_extreme() -> None:
    far = card("AUSDT", funding_rate=5.0)
    assert ideas(*others("funding_rate", 13), far) == []
    flat = [card(f"S{at}", funding_rate=0.1) for at in range(20)]
    assert ideas(*flat, far) == []
    doubtful = replace(far, confidence=Confidence(0.5, 1.0, 1.0, None))
    assert ideas(*others("funding_rate"), doubtful) == []
    assert ideas(*others("funding_rate"), replace(far, confidence=None)) == []
    endless = card("AUSDT", funding_rate=float("inf"))
    assert ideas(*others("funding_rate"), endless) == []


def test_noise_of_some_ulps_among_equal_ones_is_no_extreme() -> None:
    ulp = 2.0**-56
    noisy = [card(f"S{at}", funding_rate=0.1 + at % 3 * ulp) for at in range(20)]
    assert ideas(*noisy, card("AUSDT", funding_rate=0.1 + 60 * ulp)) == []
