"""Whole lots against every other choice of whole lots."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.lots import ACCURACY, Choice, choose_lots, minimum_capital

SLACK = 1e-9


def squares(choice: Choice) -> float:
    return sum(error**2 for error in choice.errors)


def everything(weights: list[float], sizes: list[float]) -> list[list[float]]:
    """The errors of every affordable choice of whole lots up to one above each weight."""
    ranges = [range(int(w / size) + 2) for w, size in zip(weights, sizes, strict=True)]
    found = []
    for steps in product(*ranges):
        values = [n * size for n, size in zip(steps, sizes, strict=True)]
        if sum(values) <= 1.0 + 1e-12:
            found.append([v - w for v, w in zip(values, weights, strict=True)])
    return found


cases = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.02, 0.03, 0.047, 0.09, 0.13, 0.3]), min_size=n, max_size=n),
        st.sampled_from([0.5, 1.0]),
    )
)


@given(cases)
@settings(max_examples=150, deadline=None)
def test_accurate_wherever_brute_force_is(case: tuple[list[float], list[float], float]) -> None:
    raw, sizes, invested = case
    weights = [one / sum(raw) * invested for one in raw]
    made = choose_lots(weights, sizes)
    assert sum(n * size for n, size in zip(made.steps, sizes, strict=True)) <= 1.0 + SLACK
    others = everything(weights, sizes)
    accurate = [one for one in others if max(map(abs, one)) <= ACCURACY + 1e-12]
    assert made.is_accurate == bool(accurate)
    best = min(sum(error**2 for error in one) for one in accurate or others)
    assert squares(made) == pytest.approx(best, abs=1e-9)
    nearest = [min(abs(w - n * s) for n in range(60)) for w, s in zip(weights, sizes, strict=True)]
    rounded = [round(w / s) * s for w, s in zip(weights, sizes, strict=True)]
    if sum(rounded) <= 1.0:
        assert squares(made) <= sum(one**2 for one in nearest) + SLACK


def test_what_many_small_lots_leave_pays_for_a_dear_one_also_where_nothing_is_accurate() -> None:
    made = choose_lots([0.5866, 0.4134], [0.3, 0.003])
    assert made.steps == (2, 133)  # 1.4 points off each; rounded down the first would lack 28.7
    assert not made.is_accurate


def test_no_weight_is_a_step_below_its_minimum_unless_accuracy_demands_it() -> None:
    weights = [0.05, 0.05, 0.9]
    dear = [0.001, 0.001, 0.305]  # three of the last are 1.5 points too much: never accurate
    assert choose_lots(weights, dear).steps == (43, 42, 3)
    assert choose_lots(weights, dear, minimum=0.05).steps == (50, 50, 2)
    bearable = [0.001, 0.001, 0.303]  # 0.9 points too much, which the others can give
    accurate = choose_lots(weights, bearable, minimum=0.05)
    assert accurate.steps == (46, 45, 3)
    assert accurate.is_accurate
    free = choose_lots([0.049, 0.049, 0.902], dear, minimum=0.05)
    assert free.steps == (43, 42, 3)  # who is not to have the minimum is not held to it


def test_many_small_lots_pay_for_a_dear_one() -> None:
    made = choose_lots([0.5, 0.5], [0.001, 0.101])
    assert made.steps == (495, 5)  # 0.505 of the dear one is nearer than 0.404
    assert made.is_accurate


def test_more_than_ten_symbols() -> None:
    weights = [1 / 12] * 12
    made = choose_lots(weights, [0.05] * 12)
    assert set(made.steps) == {1, 2}
    assert sum(made.steps) == 20
    assert choose_lots(weights, [0.001] * 12).is_accurate


def test_nothing_and_zero() -> None:
    assert choose_lots([], []) == Choice((), ())
    assert choose_lots([0.0], [0.3]).steps == (0,)
    assert choose_lots([0.2], [3.0]) == Choice((0,), (-0.2,))


def test_ten_symbols_are_quick_and_never_worse_than_rounding_down() -> None:
    dice = np.random.default_rng(5)
    for _ in range(3):
        weights = dice.dirichlet(np.ones(10) * 5)
        sizes = dice.uniform(0.001, 0.06, 10)
        made = choose_lots(list(weights), list(sizes))
        down = np.floor(weights / sizes) * sizes
        assert squares(made) <= float(((down - weights) ** 2).sum())


def test_the_capital_that_rounding_asks_for() -> None:
    assert minimum_capital([107.0, 1.3]) == pytest.approx(5_350)
    assert minimum_capital([]) == 0.0
