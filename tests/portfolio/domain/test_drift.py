"""Weights moved by prices."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from app.portfolio.domain.membership import PortfolioChange, add_members, set_weights
from app.portfolio.domain.models import EMPTY, FULL, Portfolio
from app.portfolio.domain.target_weights import drift_weights, read_mark_prices
from app.portfolio.domain.weighting import Allocation
from tests.support.portfolios import NAMES, T0, newcomer


def held(*weights_u: int) -> Portfolio:
    names = NAMES[: len(weights_u)]
    members = add_members(EMPTY, [newcomer(name) for name in names], 20, T0, "start")
    weights = dict(zip(names, weights_u, strict=True))
    allocation = Allocation(weights, FULL - sum(weights_u), ())
    return set_weights(
        PortfolioChange(members.portfolio, ()), allocation, {}, T0, "start"
    ).portfolio


def prices(*values: object) -> dict[str, Decimal]:
    return {name: Decimal(str(value)) for name, value in zip(NAMES, values, strict=False) if value}


def weights(portfolio: Portfolio) -> list[int]:
    return [one.weight_u for one in portfolio.members]


def test_a_doubled_price_weighs_more_and_the_others_less() -> None:
    after = drift_weights(held(20_000_000, 20_000_000), prices(10, 10), prices(20, 10))
    assert weights(after) == [33_333_333, 16_666_667]  # 40, 20 and 60 of 120
    assert after.cash_u == 50_000_000


def test_without_a_price_a_member_keeps_its_weight() -> None:
    before = held(20_000_000, 20_000_000, 10_000_000)
    for now in (prices(None, 20, 10), prices(0, 20, 10)):
        after = drift_weights(before, prices(10, 10, 10), now)
        assert weights(after) == [20_000_000, 32_000_000, 8_000_000]  # 40, 10, 50 share 80
        assert after.cash_u == 40_000_000
    assert drift_weights(before, {}, prices(1, 2, 3)) == before


def test_nothing_to_share_stays_as_it_is() -> None:
    before = held(50_000_000, 50_000_000)
    assert drift_weights(before, {}, {}) == before


@given(
    st.lists(st.integers(0, 10_000_000), min_size=1, max_size=10),
    st.lists(st.decimals("0.001", "1000", places=3), min_size=10, max_size=10),
)
def test_weights_and_cash_stay_full(start: list[int], now: list[Decimal]) -> None:
    before = held(*start)
    after = drift_weights(before, prices(*[10] * 10), prices(*now))
    assert sum(weights(after)) + after.cash_u == FULL
    assert min((*weights(after), after.cash_u)) >= 0
    assert drift_weights(before, prices(*[10] * 10), prices(*[10] * 10)) == before


def test_prices_of_an_event() -> None:
    marks = {"1": {"symbol": "A", "mark": "1.50"}, "2": {"symbol": "B", "mark": None}}
    assert read_mark_prices({"marks": marks}) == {"A": Decimal("1.50")}
    assert read_mark_prices({}) == {}
