"""Whole lots against every other choice of whole lots."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.portfolio.domain.lots import ACCURACY, LotAllocation, allocate_lots, minimum_capital


def exact(*numbers: str | float) -> list[Fraction]:
    """The decimal numbers as written."""
    return [Fraction(str(one)) for one in numbers]


def squares(choice: LotAllocation) -> Fraction:
    return sum((error**2 for error in choice.errors), Fraction(0))


def best_of_all(
    weights: list[Fraction], sizes: list[Fraction], minimum: Fraction
) -> tuple[int, ...]:
    """The first of all affordable choices in the order that `allocate_lots` states."""

    def rank(steps: tuple[int, ...]) -> tuple[bool, bool, Fraction, Fraction, list[int]]:
        values = [n * size for n, size in zip(steps, sizes, strict=True)]
        errors = [v - w for v, w in zip(values, weights, strict=True)]
        is_bounded = all(
            v > minimum - size
            for v, w, size in zip(values, weights, sizes, strict=True)
            if w >= minimum
        )
        return (
            any(abs(error) > ACCURACY for error in errors),
            not is_bounded,
            sum((error**2 for error in errors), Fraction(0)),
            -sum(values, Fraction(0)),
            [-n for n in steps],
        )

    ranges = [range(int(w / size) + 2) for w, size in zip(weights, sizes, strict=True)]
    affordable = (
        steps
        for steps in product(*ranges)
        if sum(n * size for n, size in zip(steps, sizes, strict=True)) <= 1
    )
    return min(affordable, key=rank)


cases = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 100), min_size=n, max_size=n),
        st.lists(
            st.sampled_from(exact(0.02, 0.03, 0.047, 0.05, 0.09, 0.1, 0.13, 0.3)),
            min_size=n,
            max_size=n,
        ),
        st.sampled_from([Fraction(1, 2), Fraction(1)]),
        st.sampled_from(exact(0, 0.05, 0.2)),
    )
)


@given(cases)
@settings(max_examples=150, deadline=None)
def test_the_best_of_all_in_the_stated_order(
    case: tuple[list[int], list[Fraction], Fraction, Fraction],
) -> None:
    raw, sizes, invested, minimum = case
    weights = [one * invested / sum(raw) for one in raw]
    made = allocate_lots(weights, sizes, minimum)
    assert made.steps == best_of_all(weights, sizes, minimum)
    assert made.errors == tuple(
        n * size - w for n, size, w in zip(made.steps, sizes, weights, strict=True)
    )


def test_ties_go_to_the_choice_with_less_cash_left_then_to_the_symbol_named_first() -> None:
    assert allocate_lots(exact(0.15), exact(0.1)).steps == (2,)  # both are 5 points off
    assert allocate_lots(exact(0.15, 0.45, 0.3), exact(0.1, 0.3, 0.3)).steps == (1, 2, 1)
    assert allocate_lots(exact(0.5, 0.5), exact(0.2, 0.2)).steps == (3, 2)
    assert allocate_lots(exact(0.25, 0.25, 0.25, 0.25), exact(*[0.1] * 4)).steps == (3, 3, 2, 2)


def test_what_many_small_lots_leave_pays_for_a_dear_one_also_where_nothing_is_accurate() -> None:
    made = allocate_lots(exact(0.5866, 0.4134), exact(0.3, 0.003))
    assert made.steps == (2, 133)  # 1.4 points off each; rounded down the first would lack 28.7
    assert not made.is_accurate


def test_no_weight_is_a_step_below_its_minimum_unless_accuracy_demands_it() -> None:
    weights = exact(0.05, 0.05, 0.9)
    dear = exact(0.001, 0.001, 0.305)  # three of the last are 1.5 points too much: never accurate
    assert allocate_lots(weights, dear).steps == (43, 42, 3)
    assert allocate_lots(weights, dear, minimum=Fraction(1, 20)).steps == (50, 50, 2)
    bearable = exact(0.001, 0.001, 0.303)  # 0.9 points too much, which the others can give
    accurate = allocate_lots(weights, bearable, minimum=Fraction(1, 20))
    assert accurate.steps == (46, 45, 3)
    assert accurate.is_accurate
    # A symbol at its minimum gives up nothing: the others do, and all stay accurate.
    among = exact(0.05, 0.25, 0.7), exact(0.001, 0.001, 0.1775)
    assert allocate_lots(*among).steps == (45, 245, 4)
    assert allocate_lots(*among, minimum=Fraction(1, 20)).steps == (50, 240, 4)
    free = allocate_lots(exact(0.049, 0.049, 0.902), dear, minimum=Fraction(1, 20))
    assert free.steps == (43, 42, 3)  # who is not to have the minimum is not held to it


def test_many_small_lots_pay_for_a_dear_one() -> None:
    made = allocate_lots(exact(0.5, 0.5), exact(0.001, 0.101))
    assert made.steps == (495, 5)  # 0.505 of the dear one is nearer than 0.404
    assert made.is_accurate


def test_more_than_ten_symbols() -> None:
    weights = [Fraction(1, 12)] * 12
    assert allocate_lots(weights, exact(*[0.05] * 12)).steps == (2,) * 8 + (1,) * 4
    assert allocate_lots(weights, exact(*[0.001] * 12)).is_accurate


def test_nothing_and_zero() -> None:
    assert allocate_lots([], []) == LotAllocation((), ())
    assert allocate_lots(exact(0), exact(0.3)).steps == (0,)
    assert allocate_lots(exact(0.2), exact(3)) == LotAllocation((0,), (Fraction(-1, 5),))


def test_ten_symbols_are_never_worse_than_rounding_down() -> None:
    dice = np.random.default_rng(5)
    for _ in range(3):
        weights = exact(*dice.dirichlet(np.ones(10) * 5))
        sizes = exact(*dice.uniform(0.001, 0.06, 10))
        made = allocate_lots(weights, sizes)
        down = [w // size * size - w for w, size in zip(weights, sizes, strict=True)]
        assert squares(made) <= sum(error**2 for error in down)


def test_a_search_that_ends_before_all_cases_were_seen_keeps_within_the_budget() -> None:
    weights = exact(*[0.1] * 10)
    sizes = exact(0.2, 0.3, *(f"0.0000{n}" for n in (113, 127, 131, 137, 139, 149, 151, 157)))
    made = allocate_lots(weights, sizes)
    assert sum(n * size for n, size in zip(made.steps, sizes, strict=True)) <= 1
    assert made == allocate_lots(weights, sizes)


def test_the_capital_that_rounding_asks_for() -> None:
    assert minimum_capital([107.0, 1.3]) == pytest.approx(5_350)
    assert minimum_capital([]) == 0.0
