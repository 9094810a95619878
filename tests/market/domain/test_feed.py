"""Which of two messages is the newer, whatever order they come in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from app.market.domain.stream import MAX_AHEAD_MS, MAX_LATE_IN_A_ROW, LatestUpdate, UpdateOrder

NOW = 1_795_000_000_000


def judged(*messages: tuple[int, int | None], now_ms: int = NOW) -> list[UpdateOrder]:
    newest = LatestUpdate()
    return [newest.classify(NOW + at, number, now_ms) for at, number in messages]


def test_W08_n_duplicates_are_as_one() -> None:
    assert judged((0, 1), (0, 1), (0, 1), (1, 2), (0, 1)) == [
        UpdateOrder.NEWER,
        UpdateOrder.REPEATED,
        UpdateOrder.REPEATED,
        UpdateOrder.NEWER,
        UpdateOrder.LATE,
    ]
    assert judged((0, 1), (0, 2)) == [UpdateOrder.NEWER, UpdateOrder.NEWER], (
        "two in one millisecond"
    )
    assert judged((0, None), (0, None), (1, None)) == [
        UpdateOrder.NEWER,
        UpdateOrder.REPEATED,
        UpdateOrder.NEWER,
    ]


def test_W09_older_ones_are_dropped_but_a_sequence_that_restarts_is_followed() -> None:
    assert judged((0, 900), (-5, 899)) == [UpdateOrder.NEWER, UpdateOrder.LATE]
    assert judged((0, 900), (5, 3), (6, 4)) == [
        UpdateOrder.NEWER,
        UpdateOrder.RESTARTED,
        UpdateOrder.NEWER,
    ]


def test_W09_it_is_not_stuck_for_ever_where_the_clock_of_the_exchange_steps_back() -> None:
    orders = judged((0, 1), *((-60_000 + step, 2 + step) for step in range(MAX_LATE_IN_A_ROW + 2)))
    assert orders[1:MAX_LATE_IN_A_ROW] == [UpdateOrder.LATE] * (MAX_LATE_IN_A_ROW - 1)
    assert orders[MAX_LATE_IN_A_ROW:] == [
        UpdateOrder.RESTARTED,
        UpdateOrder.NEWER,
        UpdateOrder.NEWER,
    ]


def test_D20_what_comes_from_the_future_is_dropped_and_holds_nothing_up() -> None:
    assert judged((MAX_AHEAD_MS + 1, 7), (MAX_AHEAD_MS, 8), (0, 9)) == [
        UpdateOrder.AHEAD,
        UpdateOrder.NEWER,
        UpdateOrder.LATE,
    ]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(0, 2**16))
def test_W08_what_is_taken_only_ever_grows_newer(repeats: list[int], seed: int) -> None:
    messages = [(at, at) for at, count in enumerate(repeats) for _ in range(count + 1)]
    dice = random.Random(seed)
    mixed = sorted(messages, key=lambda one: one[0] + dice.uniform(0, 3))
    newest, taken = LatestUpdate(), []
    for at, number in mixed:
        order = newest.classify(NOW + at, number, NOW + 1_000)
        if order is UpdateOrder.NEWER:
            taken.append(at)
        if order is UpdateOrder.RESTARTED:
            return  # a row of late ones: it begins anew, which is another test
    assert taken == sorted(set(taken))
    assert taken[-1] == max(at for at, _ in messages)
