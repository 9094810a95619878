"""Executed trades of the stream: what an hour holds, and when it is known."""

import math

import numpy as np

from app.market.domain.trade_flow import MINUTE_MS, WINDOW_MINUTES, TradeFlow, TradeWindow

HOUR_MS = 60 * MINUTE_MS
AT_MS = 1_795_000_000_000 // MINUTE_MS * MINUTE_MS + 30_000  # within a minute
MINUTE_BEGUN = AT_MS - 30_000


def test_an_hour_is_known_only_as_a_whole_and_without_its_running_minute() -> None:
    window = TradeWindow(MINUTE_BEGUN - HOUR_MS)
    window = window.with_trades(MINUTE_BEGUN - HOUR_MS + 5, 3, 1, 2)
    window = window.with_trades(MINUTE_BEGUN - 10 * MINUTE_MS - 1, 0, 7, 1)  # not recent
    window = window.with_trades(MINUTE_BEGUN - 10 * MINUTE_MS, 2, 0, 1)
    window = window.with_trades(AT_MS, 100, 100, 100)  # the running minute
    flow = TradeFlow.of([None, window, TradeWindow(MINUTE_BEGUN - HOUR_MS + 1)], AT_MS)
    assert flow is not None
    for values, known in (
        (flow.bought_lots, 5.0), (flow.sold_lots, 8.0), (flow.trades, 4.0),
        (flow.recent_trades, 1.0),
    ):  # fmt: skip
        np.testing.assert_array_equal(values, [math.nan, known, math.nan])
    later = TradeFlow.of([window], AT_MS + MINUTE_MS)
    assert later is not None
    assert (later.bought_lots[0], later.sold_lots[0], later.trades[0]) == (102.0, 107.0, 102.0)
    quiet = TradeFlow.of([TradeWindow(MINUTE_BEGUN - HOUR_MS)], AT_MS)
    assert quiet is not None
    assert quiet.trades[0] == 0.0, "an hour without trades is known"
    assert TradeFlow.of([None, TradeWindow(AT_MS)], AT_MS) is None


def test_memory_is_bounded_and_late_trades_count_in_the_newest_minute() -> None:
    window = TradeWindow(0)
    for minute in range(1_000):
        window = window.with_trades(AT_MS + minute * MINUTE_MS, 1, 0, 1)
    assert len(window.minutes) == WINDOW_MINUTES + 1
    late = window.with_trades(AT_MS, 5, 5, 2)
    assert len(late.minutes) == len(window.minutes)
    assert late.minutes[-1] == window.minutes[-1].plus(5, 5, 2)
