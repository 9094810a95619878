"""A bar that has not closed says nothing yet, whatever it shows while it runs."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.configuration.domain.model import Configuration
from app.market.domain.panel import FIELDS, Panel
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from tests.support.scoring_inputs import make_inputs

INPUTS = make_inputs(9, daily=60, hourly=80)
SPEC = AlgorithmSpec("default", Configuration().family_weights)
BOARD = score(INPUTS, SPEC)
PRICES = st.floats(allow_nan=True, allow_infinity=True)


def _running(panel: Panel, ticks: list[float], bars: int) -> Panel:
    """The same with `bars` more that close after the moment of the scoring."""
    values = np.resize(np.array(ticks), (bars, len(panel.symbols)))
    last = int(panel.opened_ms[-1])
    opened = last + panel.interval.ms * np.arange(1, bars + 1, dtype=np.int64)
    fields = {name: np.vstack([getattr(panel, name), values]) for name in FIELDS}
    return Panel(panel.interval, panel.symbols, np.append(panel.opened_ms, opened), **fields)


@settings(max_examples=6)
@given(
    st.lists(PRICES, min_size=1, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["daily", "hourly"]),
)
def test_D04_no_later_tick_of_an_open_bar_changes_a_score(
    ticks: list[float], bars: int, name: str
) -> None:
    later = replace(INPUTS, **{name: _running(getattr(INPUTS, name), ticks, bars)})  # type: ignore[arg-type]  # one of its panels
    board = score(later, SPEC)
    assert board.input_hash == BOARD.input_hash
    assert board.cards == BOARD.cards
