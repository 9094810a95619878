"""Weights become lots: rounded down, capped, with every cap's numbers and the reason for none."""

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.configuration.domain.sections import SizingSettings
from app.portfolio.domain.models import FULL
from app.trading.domain.position_sizing import (
    MarketConditions,
    SizingLimits,
    SizingRequest,
    TrackRecord,
    kelly_stake,
    liquidation_price,
    no_position,
    record_stake,
    size_position,
)
from tests.support.portfolios import contract

ORDER = SizingRequest(10_000_000, Decimal(10_000), Decimal(1), Decimal(50_000))
KNOWN = MarketConditions(
    invested_u=FULL,
    turnover_24h=Decimal("1e9"),
    depth=Decimal("1e7"),
    volatility=0.5,
    portfolio_volatility=0.5,
    portfolio_var=0.04,
)
RULES = SizingSettings()
LIMITS = SizingLimits(20_000_000, 0.01, RULES)
INVERSE = contract(code="XBTUSDM", quote="USD", is_inverse=True, multiplier=Decimal(1))


def limits(**rules: Any) -> SizingLimits:
    return replace(LIMITS, rules=replace(RULES, **rules))


def test_linear_lots_are_rounded_down_and_the_rest_is_stated() -> None:
    made = size_position(contract(), replace(ORDER, price=Decimal(51_000)), KNOWN, LIMITS)
    assert made.lots == 19  # one lot is 0.001 BTC = 51 USDT
    assert made.notional == Decimal(969)
    assert made.quantity == Decimal("0.019")
    assert made.rounding_error == Decimal(31)
    assert made.margin == Decimal(969)
    assert (made.applied, made.binding, made.reason) == ((), None, None)
    assert made.liquidation_price == 0  # without leverage nothing is closed by force


def test_inverse_lots_are_dollars() -> None:
    made = size_position(INVERSE, replace(ORDER, leverage=Decimal(2)), KNOWN, LIMITS)
    assert (made.lots, made.notional, made.margin) == (2_000, Decimal(2_000), Decimal(1_000))
    assert made.quantity == Decimal("0.04")


@pytest.mark.parametrize(
    ("order", "known", "rules", "cap", "value", "limit", "notional"),
    [
        ({"weight_u": 30_000_000}, {}, {}, "weight", "30", "20", 2_000),
        (
            {"leverage": Decimal(200)},
            {"invested_u": 10_000_000, "volatility": 0.001, "portfolio_var": 0.0005},
            {"max_gross_leverage": 100.0},
            *("leverage", "200", "100", 100_000),
        ),
        (
            {"leverage": Decimal(4)},
            {"portfolio_var": 0.02},
            {},
            "gross_leverage",
            "4",
            "3.0",
            3_000,
        ),
        (
            {"leverage": Decimal(4)},
            {"portfolio_var": 0.02, "invested_u": 80_000_000},
            {},
            *("gross_leverage", "3.2", "3.0", 3_750),
        ),
        ({}, {}, {"volatility_target": 0.4}, "volatility_target", "0.5", "0.4", 800),
        ({"leverage": Decimal(3)}, {}, {}, "portfolio_var", "0.12", "0.1", 2_500),
        ({"confidence": 0.5}, {}, {}, "confidence", "1000", "500", 500),
        ({"confidence": 0.5}, {}, {"confidence_exponent": 2.0}, "confidence", "1000", "250", 250),
        ({}, {"turnover_24h": Decimal(70_000)}, {}, "turnover", "1000", "700", 700),
        ({}, {"depth": Decimal(6_000)}, {}, "depth", "1000", "600", 600),
    ],
)
def test_each_cap_is_named_with_its_numbers(
    order: dict[str, Any],
    known: dict[str, Any],
    rules: dict[str, float],
    cap: str,
    value: str,
    limit: str,
    notional: int,
) -> None:
    made = size_position(
        contract(), replace(ORDER, **order), replace(KNOWN, **known), limits(**rules)
    )
    assert made.applied == (cap,)
    assert made.binding == cap
    (shown,) = (one for one in made.caps if one.is_applied)
    assert shown.value == Decimal(value)
    assert shown.limit == Decimal(limit)
    assert made.notional == notional
    assert len({one.name for one in made.caps}) == len(made.caps) >= 6


def test_the_cap_that_binds_is_the_last_one_that_made_it_smaller() -> None:
    order = replace(ORDER, weight_u=30_000_000, leverage=Decimal(4))
    both = size_position(contract(), order, KNOWN, LIMITS)
    assert both.applied == ("weight", "gross_leverage", "portfolio_var")
    assert both.binding == "portfolio_var"
    assert both.notional == Decimal(10_000) * Decimal("0.2") * Decimal("2.5")
    without = size_position(contract(), order, KNOWN, limits(var_limit=0.0))
    assert without.notional > both.notional
    thin = size_position(contract(), order, replace(KNOWN, depth=Decimal(30_000)), LIMITS)
    assert (thin.binding, thin.notional) == ("depth", Decimal(3_000))


@pytest.mark.parametrize("one", [contract(), INVERSE], ids=["linear", "inverse"])
@pytest.mark.parametrize("volatility", [0.8, 1.5, 3.0])
def test_a_long_survives_three_daily_deviations(one: Any, volatility: float) -> None:
    known = replace(KNOWN, volatility=volatility)
    free = limits(var_limit=0.0, max_gross_leverage=100.0)
    fine = replace(one, tick_size=Decimal("1e-12"))
    made = size_position(fine, replace(ORDER, leverage=Decimal(50)), known, free)
    coarse = size_position(one, replace(ORDER, leverage=Decimal(50)), known, free).liquidation_price
    assert made.binding == "liquidation_distance"
    (cap,) = (cap for cap in made.caps if cap.is_applied)
    away = 3.0 * volatility / math.sqrt(365.0)
    assert float(cap.limit) == pytest.approx(away)
    assert cap.value < cap.limit
    price = made.liquidation_price
    assert price is not None
    assert coarse is not None
    assert 0 <= coarse - price < one.tick_size
    survives = 1.0 - float(price) / 50_000.0
    # Not closer than asked for, and not much further: the cap takes no more than it must.
    assert away <= survives <= away + 0.006
    # By the definition: what is left of the margin there is the maintenance margin.
    value, entry = float(made.notional), 50_000.0
    if one.is_inverse:
        coins = value * (1.0 / entry - 1.0 / float(price))
        left = float(made.margin) / entry + coins
        kept = 0.005 * value / float(price)
    else:
        left = float(made.margin) + value * (float(price) / entry - 1.0)
        kept = 0.005 * value * float(price) / entry
    assert left == pytest.approx(kept, rel=1e-9, abs=1e-9)


def test_an_inverse_contract_that_cannot_keep_the_distance_is_not_held() -> None:
    wild = replace(KNOWN, volatility=7.0)  # three daily deviations are more than the price
    none = size_position(INVERSE, ORDER, wild, LIMITS)
    assert none.lots == none.leverage == none.margin == 0
    assert (none.reason, none.liquidation_price) == ("liquidation_distance", None)
    assert none.applied == ("liquidation_distance",)
    smaller = size_position(contract(), ORDER, wild, LIMITS)
    assert 0 < smaller.notional < 1_000


def test_a_contract_that_cannot_be_liquidated_needs_no_distance() -> None:
    free = contract(maintenance_margin=Decimal(0))
    assert size_position(free, ORDER, replace(KNOWN, volatility=0.0), LIMITS).applied == ()
    assert liquidation_price(free, Decimal(2), Decimal(100)) == 50
    assert liquidation_price(contract(maintenance_margin=None), Decimal(2), Decimal(1)) is None
    all_of_it = contract(maintenance_margin=Decimal(1))
    assert liquidation_price(all_of_it, Decimal(2), Decimal(100)) == 100


@pytest.mark.parametrize(
    ("spec", "known", "rules", "reason"),
    [
        ({}, {"turnover_24h": None}, {}, "turnover_unknown"),
        ({}, {"depth": None}, {}, "book_unknown"),
        ({"max_leverage": None}, {}, {}, "max_leverage_unknown"),
        ({}, {"volatility": None}, {}, "volatility_unknown"),
        ({"maintenance_margin": None}, {}, {}, "maintenance_margin_unknown"),
        ({}, {"portfolio_var": None}, {}, "portfolio_var_unknown"),
        (
            {},
            {"portfolio_volatility": None},
            {"volatility_target": 0.4},
            "portfolio_volatility_unknown",
        ),
    ],
)
def test_what_a_cap_needs_and_nobody_knows_gives_no_position(
    spec: dict[str, Any], known: dict[str, Any], rules: dict[str, float], reason: str
) -> None:
    order = replace(ORDER, leverage=Decimal("1.5"))
    unknown = replace(KNOWN, **known)
    made = size_position(contract(**spec), order, unknown, limits(**rules))
    assert made.lots == made.notional == 0
    assert (made.reason, made.caps) == (reason, ())


def test_a_cap_that_is_off_needs_nothing() -> None:
    bare = replace(KNOWN, volatility=None, portfolio_volatility=None, portfolio_var=None)
    off = limits(liquidation_sigmas=0.0, var_limit=0.0)
    spec = contract(max_leverage=None, maintenance_margin=None)
    made = size_position(spec, ORDER, bare, off)
    assert (made.lots, made.liquidation_price) == (20, None)
    assert {cap.name.value for cap in made.caps} == {
        "weight",
        "gross_leverage",
        "turnover",
        "depth",
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"weight_u": 0}, "no_weight"),
        ({"balance": Decimal(0)}, "no_notional"),
        ({"balance": Decimal(499)}, "below_min_lot"),
        ({"confidence": 0.0}, "confidence"),
        ({"record": TrackRecord(0, 100, 1.0)}, "kelly"),
    ],
)
def test_no_lots_come_with_a_reason(changed: dict[str, Any], reason: str) -> None:
    made = size_position(contract(), replace(ORDER, **changed), KNOWN, LIMITS)
    assert (made.lots, made.notional, made.reason) == (0, Decimal(0), reason)


def test_nothing_says_why() -> None:
    none = no_position(Decimal(2), "not_a_member")
    assert (none.lots, none.leverage, none.reason) == (0, Decimal(2), "not_a_member")


def test_kelly_as_published() -> None:
    assert kelly_stake(0.55, 1.2) == pytest.approx(0.175, abs=1e-15)
    assert kelly_stake(0.5, 1.0) == 0.0
    assert kelly_stake(0.1, 1.0) == 0.0  # nothing is staked against oneself


def test_a_record_is_shrunk_and_only_a_quarter_of_it_is_staked() -> None:
    # 55 of 100 with ten and ten beforehand: 65 of 120.
    expected = 0.25 * ((65 / 120) * 2.2 - 1.0) / 1.2
    record = TrackRecord(55, 45, 1.2)
    assert record_stake(record, None, RULES) == pytest.approx(expected)
    assert record_stake(record, 0.5, RULES) == pytest.approx(expected / 2.0)
    squared = replace(RULES, confidence_exponent=2.0)
    assert record_stake(record, 0.5, squared) == pytest.approx(expected / 4.0)
    assert record_stake(record, None, squared) == pytest.approx(expected)
    assert record_stake(TrackRecord(0, 0, 1.0), None, RULES) == 0.0  # nothing seen, no edge
    order = replace(ORDER, record=record)
    made = size_position(contract(), order, KNOWN, LIMITS)
    assert (made.binding, made.notional) == ("kelly", Decimal(350))  # 399.3 in lots of 50
    half = size_position(contract(), replace(order, confidence=0.5), KNOWN, LIMITS)
    assert (half.applied, half.notional) == (("confidence", "kelly"), Decimal(150))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(0, FULL),
    st.decimals("0", "1e7", places=2),
    st.decimals("0.0001", "1e5", places=4),
    st.sampled_from(["0.001", "0.1", "1", "10", "1000"]),
    st.integers(1, 10),
    st.booleans(),
    st.decimals("0.1", "200", places=1),
    st.decimals("0", "1e9", places=0),
    st.floats(0.01, 6.0),
)
def test_no_cap_is_ever_exceeded_and_less_than_a_lot_is_lost(
    weight_u: int,
    balance: Decimal,
    price: Decimal,
    multiplier: str,
    step: int,
    inverse: bool,
    leverage: Decimal,
    depth: Decimal,
    volatility: float,
) -> None:
    one = contract(multiplier=Decimal(multiplier), lot_size=step, is_inverse=inverse)
    order = replace(ORDER, weight_u=weight_u, balance=balance, price=price, leverage=leverage)
    known = replace(KNOWN, depth=depth, volatility=volatility)
    made = size_position(one, order, known, LIMITS)
    lot = Decimal(multiplier) * step * (1 if inverse else price)
    assert made.lots % step == 0
    assert 0 <= made.rounding_error < lot
    assert made.notional <= depth / 10
    assert made.notional <= balance * min(weight_u, 20_000_000) / FULL * made.leverage
    assert made.leverage <= leverage
    if weight_u:
        assert made.leverage <= 3
        assert made.leverage * Decimal("0.04") <= Decimal("0.1")
    assert (made.reason is None) == (made.lots > 0)
