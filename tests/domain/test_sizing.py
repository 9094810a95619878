"""Weights become lots: rounded down, capped, with the reason for none."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.portfolio import FULL
from app.domain.sizing import Limits, Order, nothing, size
from tests.domain.portfolios import contract

LIMITS = Limits(20_000_000, 0.01)
ORDER = Order(
    10_000_000, Decimal(10_000), Decimal(1), Decimal(50_000), Decimal("1e9"), confidence=None
)


def test_linear_lots_are_rounded_down_and_the_rest_is_stated() -> None:
    made = size(contract(), replace(ORDER, price=Decimal(51_000)), LIMITS)
    assert made.lots == 19  # one lot is 0.001 BTC = 51 USDT
    assert made.notional == Decimal(969)
    assert made.quantity == Decimal("0.019")
    assert made.rounding_error == Decimal(31)
    assert made.margin == Decimal(969)
    assert (made.caps, made.reason) == ((), None)


def test_inverse_lots_are_dollars() -> None:
    inverse = contract(code="XBTUSDM", quote="USD", is_inverse=True, multiplier=Decimal(1))
    made = size(inverse, replace(ORDER, leverage=Decimal(3)), LIMITS)
    assert (made.lots, made.notional, made.margin) == (3_000, Decimal(3_000), Decimal(1_000))
    assert made.quantity == Decimal("0.06")


@pytest.mark.parametrize(
    ("changed", "cap", "notional"),
    [
        ({"leverage": Decimal(200)}, "leverage", Decimal(100_000)),
        ({"weight_u": 30_000_000}, "weight", Decimal(2_000)),
        ({"confidence": 0.5}, "confidence", Decimal(500)),
        ({"turnover_24h": Decimal(70_000)}, "liquidity", Decimal(700)),
    ],
)
def test_caps_are_named(changed: dict[str, Any], cap: str, notional: Decimal) -> None:
    made = size(contract(), replace(ORDER, **changed), LIMITS)
    assert made.caps == (cap,)
    assert made.notional == notional


def test_full_confidence_is_no_cap_and_an_unknown_maximum_none_either() -> None:
    made = size(contract(max_leverage=None), replace(ORDER, confidence=1.0), LIMITS)
    assert made.caps == ()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"weight_u": 0}, "no_weight"),
        ({"turnover_24h": None}, "turnover_unknown"),
        ({"balance": Decimal(0)}, "nothing_wanted"),
        ({"balance": Decimal(499)}, "below_min_lot"),
    ],
)
def test_no_lots_come_with_a_reason(changed: dict[str, Any], reason: str) -> None:
    made = size(contract(), replace(ORDER, **changed), LIMITS)
    assert (made.lots, made.notional, made.reason) == (0, Decimal(0), reason)


def test_nothing_says_why() -> None:
    none = nothing(Decimal(2), "not_a_member")
    assert (none.lots, none.leverage, none.reason) == (0, Decimal(2), "not_a_member")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(0, FULL),
    st.decimals("0", "1e7", places=2),
    st.decimals("0.0001", "1e5", places=4),
    st.sampled_from(["0.001", "0.1", "1", "10", "1000"]),
    st.integers(1, 10),
    st.booleans(),
)
def test_realised_is_never_above_wanted_by_any_lot(
    weight_u: int, balance: Decimal, price: Decimal, multiplier: str, step: int, inverse: bool
) -> None:
    one = contract(multiplier=Decimal(multiplier), lot_size=step, is_inverse=inverse)
    made = size(one, replace(ORDER, weight_u=weight_u, balance=balance, price=price), LIMITS)
    lot = Decimal(multiplier) * step * (1 if inverse else price)
    assert made.lots % step == 0
    assert 0 <= made.rounding_error < lot
