"""Brinson by sector: golden numbers, linked days, and no residual."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.performance.domain.attribution import CASH, ActiveReturn, MarketDay, exact_sum, link_days
from tests.support.portfolios import HOUR, T0

D = Decimal
DAY = MarketDay(
    weights={"x": D("0.5"), "y": D("0.3"), CASH: D("0.2")},
    earned={"x": D("0.05"), "y": D("-0.006")},
    universe_weights={"x": D("0.6"), "y": D("0.4")},
    universe_returns={"x": D("0.05"), "y": D("0.01")},
)


def of(*days: MarketDay) -> ActiveReturn:
    return link_days(days, T0, T0 + 24 * HOUR * len(days))


def effects(made: ActiveReturn) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    return {one.sector: (one.allocation, one.selection, one.interaction) for one in made.sectors}


def test_one_day_worked_out_by_hand() -> None:
    made = of(DAY)
    assert (made.portfolio, made.universe, made.active) == (D("0.044"), D("0.034"), D("0.010"))
    assert effects(made) == {
        "x": (D("-0.0016"), D("0.03"), D("-0.005")),
        "y": (D("0.0024"), D("-0.012"), D("0.003")),
        CASH: (D("-0.0068"), D(0), D(0)),
    }
    shown = {one.sector: (one.weight, one.universe_weight) for one in made.sectors}
    assert shown[CASH] == (D("0.2"), D(0))
    assert (made.days, made.end_at, made.reason) == (1, T0 + 24 * HOUR, None)


def test_the_portfolio_that_is_the_universe_has_no_effects() -> None:
    same = MarketDay(
        DAY.universe_weights,
        {"x": D("0.03"), "y": D("0.004")},
        DAY.universe_weights,
        DAY.universe_returns,
    )
    made = of(same, same)
    assert made.active == 0
    assert {effect for three in effects(made).values() for effect in three} == {D(0)}
    assert made.portfolio == D("1.034") ** 2 - 1


def test_days_are_linked_after_carino() -> None:
    other = MarketDay(
        weights={"x": D("0.1"), CASH: D("0.9")},
        earned={"x": D("-0.02")},
        universe_weights={"x": D("0.5"), "y": D("0.5")},
        universe_returns={"x": D("-0.3"), "y": D("0.1")},
    )
    made = of(DAY, other)
    ours, theirs = [0.044, -0.02], [0.034, -0.1]
    total = [math.prod(1 + one for one in both) - 1 for both in (ours, theirs)]

    def scale(p: float, b: float) -> float:
        return (math.log1p(p) - math.log1p(b)) / (p - b)

    links = [scale(p, b) / scale(*total) for p, b in zip(ours, theirs, strict=True)]
    # x on the second day: allocation -0.4 x -0.2, selection 0.5 x 0.1, interaction -0.4 x 0.1
    expected = [
        links[0] * -0.0016 + links[1] * 0.08,
        links[0] * 0.03 + links[1] * 0.05,
        links[0] * -0.005 + links[1] * -0.04,
    ]
    assert [float(one) for one in effects(made)["x"]] == pytest.approx(expected, abs=1e-14)
    assert float(made.active or 0) == pytest.approx(total[0] - total[1], abs=1e-15)
    assert made.sectors[1].weight == D("0.3"), "the mean of both days"


def test_what_came_in_that_day_and_what_the_universe_has_none_of_is_interaction() -> None:
    day = MarketDay(
        weights={"own": D("0.4"), CASH: D("0.6")},
        earned={"own": D("0.02"), "new": D("0.01")},
        universe_weights={"new": D(1)},
        universe_returns={"new": D("0.03")},
    )
    made = of(day)
    assert effects(made) == {
        "own": (D(0), D(0), D("0.008")),  # 0.4 x (0.05 - 0.03)
        "new": (D(0), D(0), D("0.01")),
        CASH: (D("-0.018"), D(0), D(0)),
    }
    assert made.active == 0


def test_a_day_on_which_all_is_lost_is_not_linked() -> None:
    lost = MarketDay({"x": D(1)}, {"x": D(-1)}, {"x": D(1)}, {"x": D("-0.9")})
    made = of(DAY, lost)
    assert (made.portfolio, made.active, made.sectors) == (None, None, ())
    assert made.reason == "a day with a total loss cannot be linked"


PARTS = st.lists(st.integers(0, 30), min_size=4, max_size=4)
RETURNS = st.lists(st.decimals(D("-0.6"), 2, places=7), min_size=4, max_size=4)


@st.composite
def market_days(draw: st.DrawFn) -> MarketDay:
    names = ("a", "b", "c", "d")
    own, theirs = draw(PARTS), draw(PARTS.filter(any))
    ours, market = draw(RETURNS), draw(RETURNS)
    weights = {name: D(part) / 120 for name, part in zip(names, own, strict=True)}
    held = {**weights, CASH: sum(weights.values(), D(0)) * -1 + 1}
    return MarketDay(
        held,
        {name: weights[name] * one for name, one in zip(names, ours, strict=True)},
        {name: D(part) / sum(theirs) for name, part in zip(names, theirs, strict=True) if part},
        dict(zip(names, market, strict=True)),
    )


@given(st.lists(market_days(), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_effects_are_the_active_return_without_a_residual(days: list[MarketDay]) -> None:
    made = of(*days)
    assert made.portfolio is not None
    assert made.universe is not None
    assert made.active == made.portfolio - made.universe
    assert exact_sum(one.total for one in made.sectors) == made.active
    grown = math.prod(1 + Fraction(sum(day.earned.values())) for day in days) - 1
    assert abs(Fraction(made.portfolio) - grown) < Fraction(1, 10**17)
