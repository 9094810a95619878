"""Rulings, triggers and plans."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from app.configuration.domain.model import Configuration, WeightingMethod
from app.foundation.decimal_math import to_millionths
from app.portfolio.domain import membership
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.rebalance_plan import (
    MemberStatus,
    Plan,
    Trigger,
    band,
    constrain_member,
    constrain_members,
    plan_rebalance,
)
from app.portfolio.domain.target_weights import compute_volatility
from app.portfolio.domain.weighting import Covariance, Flag, WeightRole
from tests.portfolio.domain.test_portfolio import of
from tests.support.portfolios import HOUR, NAMES, T0, status

SETTINGS = Configuration()
TEN = NAMES[:10]


def statuses(**changed: MemberStatus) -> dict[str, MemberStatus]:
    return {symbol: status(symbol) for symbol in TEN} | changed


def done(portfolio: Portfolio, made: Plan) -> Portfolio:
    change = membership.set_weights(
        PortfolioChange(portfolio, ()),
        made.allocation,
        {},
        T0 + HOUR,
        "rebalance",
        EventType.REBALANCE,
    )
    return change.portfolio


@pytest.mark.parametrize(
    ("known", "role", "said"),
    [
        ({}, WeightRole.FUNDED, "score"),
        ({"is_open": False, "is_fresh": False}, WeightRole.EXCLUDED, "not open"),
        ({"is_halted": True}, WeightRole.LOCKED, "halted"),
        ({"is_fresh": False}, WeightRole.LOCKED, "stale"),
        ({"score": None}, WeightRole.LOCKED, "no score"),
        ({"score": 0.55}, WeightRole.FUNDED, "score"),
        ({"score": 0.5499}, WeightRole.EXCLUDED, "below"),
        ({"volatility": None}, WeightRole.LOCKED, "volatility is not known"),
    ],
)
def test_the_first_rule_that_applies_decides(
    known: dict[str, Any], role: WeightRole, said: str
) -> None:
    member = of(TEN[0]).members[0]
    constraint = constrain_member(member, status(TEN[0], **known), SETTINGS)
    assert constraint.request.role is role
    assert said in constraint.reason


@pytest.mark.parametrize("method", WeightingMethod)
def test_unknown_volatility_moves_no_weight_of_a_method_that_divides_by_it(
    method: WeightingMethod,
) -> None:
    known = statuses(**{TEN[0]: status(TEN[0], volatility=None)})
    needs = method not in (WeightingMethod.EQUAL, WeightingMethod.FIXED)
    constraint = constrain_members(of(*TEN), known, SETTINGS, method=method)[TEN[0]]
    assert constraint.request.role is (WeightRole.LOCKED if needs else WeightRole.FUNDED)
    made = plan_rebalance(of(*TEN), known, SETTINGS, T0 + HOUR, method=method)
    assert TEN[0] not in {change.symbol for change in made.changes if needs}


def test_a_member_without_weight_needs_the_higher_threshold() -> None:
    idle = replace(of(TEN[0]).members[0], target_weight_u=0)
    assert (
        constrain_member(idle, status(TEN[0], 0.59), SETTINGS).request.role is WeightRole.EXCLUDED
    )
    assert constrain_member(idle, status(TEN[0], 0.60), SETTINGS).request.role is WeightRole.FUNDED


def test_nothing_to_do_right_after_a_rebalance() -> None:
    mixed = statuses(**{TEN[0]: status(TEN[0], 0.95), TEN[1]: status(TEN[1], 0.4)})
    first = plan_rebalance(of(*TEN), mixed, SETTINGS, T0 + HOUR)
    assert first.triggers == (Trigger.DRIFT,)
    actions = {change.symbol: change.action for change in first.changes}
    assert actions[TEN[0]] == "increase"
    assert actions[TEN[1]] == "exit"
    assert sum(change.change_u for change in first.changes) == 0
    assert first.cost == pytest.approx(first.turnover_u / FULL * 0.001)
    after = done(of(*TEN), first)
    second = plan_rebalance(after, mixed, SETTINGS, T0 + HOUR)
    assert (second.changes, second.triggers, second.turnover_u) == ((), (), 0)
    assert second.cost == 0.0


def moved(portfolio: Portfolio, by_u: int) -> Portfolio:
    first, second, *others = portfolio.members
    members = (
        replace(first, weight_u=first.weight_u + by_u),
        replace(second, weight_u=second.weight_u - by_u),
        *others,
    )
    return replace(portfolio, members=members)


@pytest.mark.parametrize(("by_u", "fires"), [(1_000_000, False), (1_000_001, True)])
def test_a_drift_of_exactly_the_threshold_does_not_fire(by_u: int, fires: bool) -> None:
    made = plan_rebalance(moved(of(*TEN), by_u), statuses(), SETTINGS, T0 + HOUR)
    assert bool(made.changes) is fires
    assert made.triggers == ((Trigger.DRIFT,) if fires else ())


def test_a_broken_bound_fires_however_small() -> None:
    rules = replace(SETTINGS.rebalancing, weight_bound_tolerance=Decimal(0))
    half = SETTINGS.max_weight_percentage / 2
    tight = replace(SETTINGS, max_weight_percentage=half, rebalancing=rules)
    made = plan_rebalance(moved(of(*TEN), 1), statuses(), tight, T0 + HOUR)
    assert made.triggers == (Trigger.BOUND,)
    carried = replace(SETTINGS, max_weight_percentage=half)
    assert plan_rebalance(moved(of(*TEN), 1), statuses(), carried, T0 + HOUR).triggers == ()
    assert {(change.action, change.change_u) for change in made.changes} == {
        ("decrease", -1),
        ("increase", 1),
    }


def test_changed_membership_fires() -> None:
    left = membership.remove_member(of(*TEN), TEN[9], {}, T0, "out").portfolio
    made = plan_rebalance(left, {name: status(name) for name in TEN[:9]}, SETTINGS, T0)
    assert Trigger.MEMBERSHIP in made.triggers
    assert sum(change.change_u for change in made.changes) == 10_000_000


@pytest.mark.parametrize(("by_u", "fires"), [(500_000, False), (500_001, True)])
def test_the_interval_has_a_threshold_of_its_own(by_u: int, fires: bool) -> None:
    day = timedelta(seconds=SETTINGS.rebalance_interval_s)
    now = moved(of(*TEN), by_u)
    assert (
        plan_rebalance(now, statuses(), SETTINGS, T0 + day - timedelta(microseconds=1)).triggers
        == ()
    )
    due = plan_rebalance(now, statuses(), SETTINGS, T0 + day)
    assert due.triggers == ((Trigger.INTERVAL,) if fires else ())
    assert {change.symbol for change in due.changes} == (set(TEN[:2]) if fires else set())


@pytest.mark.parametrize("reason", ["drift", "interval", "membership"])
def test_members_inside_the_band_stay_whatever_the_reason(reason: str) -> None:
    day = timedelta(seconds=SETTINGS.rebalance_interval_s)
    far, ten = 600_000 if reason == "interval" else 1_500_000, of(*TEN)
    away = (far, -far, 30_000, -30_000, 200_000, -200_000, 400_000, -400_000, 0, 0)
    members = tuple(
        replace(one, weight_u=one.weight_u + by_u)
        for one, by_u in zip(ten.members, away, strict=True)
    )
    now = replace(ten, members=members)
    if reason == "membership":
        now = replace(now, weighted_at=None)
    made = plan_rebalance(now, statuses(), SETTINGS, T0 + (day if reason == "interval" else HOUR))
    assert Trigger(reason) in made.triggers
    assert {change.symbol for change in made.changes} == set(TEN[:2])
    assert sum(made.allocation.weights_u.values()) + made.allocation.cash_u == FULL
    again = plan_rebalance(done(now, made), statuses(), SETTINGS, T0 + HOUR)
    assert (again.changes, again.triggers) == ((), ())


def test_drift_alone_keeps_its_distance_from_the_last_rebalance() -> None:
    spacing = timedelta(seconds=SETTINGS.rebalance_min_spacing_s)
    far, at = moved(of(*TEN), 1_500_000), T0 + HOUR
    just = at - spacing + timedelta(microseconds=1)
    waiting = plan_rebalance(far, statuses(), SETTINGS, at, rebalanced_at=just)
    assert (waiting.changes, waiting.triggers) == ((), ())
    assert waiting.waits_until == just + spacing
    free = plan_rebalance(far, statuses(), SETTINGS, at, rebalanced_at=at - spacing)
    assert (free.triggers, free.waits_until) == ((Trigger.DRIFT,), None)
    late = plan_rebalance(far, statuses(), SETTINGS, T0 + timedelta(days=2), rebalanced_at=T0)
    assert late.triggers == (Trigger.DRIFT, Trigger.INTERVAL)
    calm = plan_rebalance(of(*TEN), statuses(), SETTINGS, at, rebalanced_at=just)
    assert calm.waits_until is None


def test_within_the_spacing_an_exit_moves_no_other_member() -> None:
    far, known = moved(of(*TEN), 1_500_000), statuses(**{TEN[9]: status(TEN[9], ban="rug pull")})
    free_at = T0 + HOUR + timedelta(seconds=SETTINGS.rebalance_min_spacing_s)
    made = plan_rebalance(far, known, SETTINGS, T0 + HOUR, rebalanced_at=T0 + HOUR)
    assert (made.triggers, made.waits_until) == ((Trigger.DRIFT,), free_at)
    held = far.members[9].weight_u
    assert [(one.symbol, one.change_u) for one in made.changes] == [(TEN[9], -held)]
    assert made.allocation.cash_u == far.cash_u + held
    later = plan_rebalance(far, known, SETTINGS, free_at, rebalanced_at=T0 + HOUR)
    assert {TEN[1], TEN[9]} < {one.symbol for one in later.changes}


def test_an_excluded_member_that_the_lot_rule_holds_back_ends_no_spacing() -> None:
    far, known = moved(of(*TEN), 1_500_000), statuses(**{TEN[9]: status(TEN[9], ban="rug pull")})
    least = {TEN[9]: far.members[9].weight_u + 1}
    made = plan_rebalance(far, known, SETTINGS, T0 + HOUR, rebalanced_at=T0 + HOUR, least_u=least)
    assert (made.triggers, made.changes) == ((), ())
    assert made.waits_until is not None


def test_a_bound_that_prices_have_crossed_waits_for_the_spacing() -> None:
    far, spacing = moved(of(*TEN), 5_600_000), timedelta(seconds=SETTINGS.rebalance_min_spacing_s)
    waiting = plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR, rebalanced_at=T0 + HOUR)
    assert (waiting.triggers, waiting.waits_until) == ((), T0 + HOUR + spacing)
    free = plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR + spacing, rebalanced_at=T0 + HOUR)
    assert Trigger.BOUND in free.triggers


@pytest.mark.parametrize("reason", ["exit", "membership", "risk"])
def test_forced_changes_do_not_wait(reason: str) -> None:
    now, known, settings, covariance = of(*TEN), statuses(), SETTINGS, None
    if reason == "exit":
        known = statuses(**{TEN[0]: status(TEN[0], ban="rug pull")})
    elif reason == "membership":
        now = replace(now, weighted_at=None, members=now.members[:5])
    else:
        settings, covariance = with_rules(volatility_target=0.1), volatile(0.5)
    made = plan_rebalance(now, known, settings, T0 + HOUR, covariance, rebalanced_at=T0 + HOUR)
    assert made.changes
    assert (made.waits_until is None) is (reason != "exit")


def test_nothing_smaller_than_a_lot_is_traded_and_it_is_said() -> None:
    far = moved(of(*TEN), 1_500_000)
    least = dict.fromkeys(TEN, 1_500_000)
    assert {one.symbol for one in plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR).changes} == {
        *TEN[:2]
    }
    assert plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR, least_u=least).held_back == ()
    assert len(plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR, least_u=least).changes) == 2
    small = plan_rebalance(
        far, statuses(), SETTINGS, T0 + HOUR, least_u=dict.fromkeys(TEN, 1_500_001)
    )
    assert (small.triggers, small.changes) == ((Trigger.DRIFT,), ())
    assert small.held_back == TEN[:2]
    # The second cannot be traded: the first gives up what nobody can take, and it is cash.
    one = plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR, least_u={TEN[1]: 1_500_001})
    assert one.held_back == (TEN[1],)
    assert all(abs(change.change_u) >= 500_000 for change in one.changes)
    assert TEN[1] not in {change.symbol for change in one.changes}
    assert sum(one.allocation.weights_u.values()) + one.allocation.cash_u == FULL


@given(
    st.lists(st.integers(-2_500_000, 2_500_000), min_size=10, max_size=10),
    st.lists(
        st.sampled_from([0, 300_000, 1_200_000, 4_000_000, 30_000_000]), min_size=10, max_size=10
    ),
    st.lists(st.sampled_from([0.2, 0.7, 0.9]), min_size=10, max_size=10),
)
@runs(max_examples=150, deadline=None, derandomize=True)
def test_with_lots_of_any_size_no_change_is_smaller_and_all_adds_up(
    moves: list[int], sizes: list[int], scores: list[float]
) -> None:
    known = {name: status(name, score) for name, score in zip(TEN, scores, strict=True)}
    ten, mean = of(*TEN), sum(moves) // 10
    members = tuple(
        replace(one, weight_u=one.weight_u + by_u - mean)
        for one, by_u in zip(ten.members, moves, strict=True)
    )
    now = replace(ten, members=members, cash_u=FULL - sum(one.weight_u for one in members))
    if now.cash_u < 0:
        return
    least = dict(zip(TEN, sizes, strict=True))
    made = plan_rebalance(now, known, SETTINGS, T0 + HOUR, least_u=least)
    assert all(abs(one.change_u) >= max(1, least[one.symbol]) for one in made.changes)
    assert sum(made.allocation.weights_u.values()) + made.allocation.cash_u == FULL
    assert made.allocation.cash_u >= 0
    again = plan_rebalance(done(now, made), known, SETTINGS, T0 + HOUR, least_u=least)
    assert again.changes == ()


def test_who_comes_back_above_the_threshold_enters() -> None:
    weak = statuses(**{TEN[3]: status(TEN[3], 0.3)})
    without = done(of(*TEN), plan_rebalance(of(*TEN), weak, SETTINGS, T0))
    made = plan_rebalance(without, statuses(), SETTINGS, T0 + HOUR)
    assert {change.symbol: change.action for change in made.changes}[TEN[3]] == "enter"


def test_stale_members_keep_their_weight_while_others_move() -> None:
    some = statuses(
        **{
            TEN[0]: status(TEN[0], 0.9, is_fresh=False),
            TEN[1]: status(TEN[1], 0.2),
            TEN[2]: status(TEN[2], trading_cost=None),
        }
    )
    made = plan_rebalance(of(*TEN), some, SETTINGS, T0)
    assert TEN[0] not in {change.symbol for change in made.changes}
    assert made.allocation.weights_u[TEN[0]] == 10_000_000
    assert made.cost is None


@pytest.mark.parametrize("score", [0.9, 0.2])
@pytest.mark.parametrize(
    "case", [{"is_fresh": False}, {"is_halted": True}, {"doubt": "why"}, {"is_frozen": True}]
)
def test_who_stands_still_neither_grows_nor_gives_anything_up(
    case: dict[str, Any], score: float
) -> None:
    some = statuses(**{TEN[0]: status(TEN[0], score, **case), TEN[1]: status(TEN[1], 0.2)})
    made = plan_rebalance(of(*TEN), some, SETTINGS, T0)
    assert TEN[1] in {change.symbol for change in made.changes}
    assert TEN[0] not in {change.symbol for change in made.changes}
    assert made.constraints[TEN[0]].request.role is WeightRole.LOCKED


def test_an_empty_portfolio_has_nothing_to_plan() -> None:
    made = plan_rebalance(of(), {}, SETTINGS, T0)
    assert (made.changes, made.triggers, made.allocation.cash_u) == ((), (), FULL)


def volatile(size: float) -> Covariance:
    names = tuple(one.symbol for one in of(*TEN).members)
    return Covariance(names, np.eye(len(names)) * size**2)


def with_rules(**changed: Any) -> Configuration:
    return replace(SETTINGS, rebalancing=replace(SETTINGS.rebalancing, **changed))


def test_too_much_risk_fires_and_shrinks_until_it_is_calm() -> None:
    calm = with_rules(volatility_target=0.1)
    known = volatile(0.5)  # ten equal weights: 0.158
    made = plan_rebalance(of(*TEN), statuses(), calm, T0 + HOUR, known)
    assert Trigger.RISK in made.triggers
    assert Flag.VOLATILITY_TARGET in made.allocation.flags
    risk = compute_volatility(made.allocation.weights_u, known)
    assert risk == pytest.approx(0.1, abs=1e-6)
    assert risk is not None
    assert to_millionths(risk) <= 100_000
    again = plan_rebalance(done(of(*TEN), made), statuses(), calm, T0 + HOUR, known)
    assert (again.changes, again.triggers) == ((), ())
    roomy = with_rules(volatility_target=0.5)
    assert plan_rebalance(of(*TEN), statuses(), roomy, T0 + HOUR, known).triggers == ()
    assert plan_rebalance(of(*TEN), statuses(), calm, T0 + HOUR).triggers == ()


def test_only_as_many_leave_their_bands_as_the_volatility_target_needs() -> None:
    calm, known, ten = with_rules(volatility_target=0.1), volatile(0.5), of(*TEN)
    ten = done(ten, plan_rebalance(ten, statuses(), calm, T0 + HOUR, known))
    targets = {one.symbol: one.weight_u for one in ten.members}
    away = dict(zip(TEN, range(890_000, 900_000, 1_000), strict=True))  # the band is a point
    members = tuple(replace(one, weight_u=one.weight_u + away[one.symbol]) for one in ten.members)
    far = replace(ten, members=members, cash_u=ten.cash_u - sum(away.values()))
    made = plan_rebalance(far, statuses(), calm, T0 + HOUR, known)
    assert made.triggers == (Trigger.RISK,)
    weights = made.allocation.weights_u
    moved = {change.symbol for change in made.changes}
    assert moved == set(TEN[5:]), "those furthest above their targets, and as few as absorb it"
    assert all(weights[name] == targets[name] + away[name] for name in TEN[:5])
    assert all(abs(weights[name] - targets[name]) <= 1_000_000 for name in TEN)
    assert made.allocation.cash_u == ten.cash_u
    risk = compute_volatility(weights, known)
    assert risk is not None
    assert to_millionths(risk) <= 105_000
    again = plan_rebalance(done(far, made), statuses(), calm, T0 + HOUR, known)
    assert (again.changes, again.triggers) == ((), ())


def test_locked_weights_alone_may_be_too_volatile() -> None:
    locked = {name: status(name, is_fresh=False) for name in TEN}
    made = plan_rebalance(
        of(*TEN), locked, with_rules(volatility_target=0.01), T0 + HOUR, volatile(1.0)
    )
    assert made.changes == ()


def test_a_dear_symbol_may_drift_further() -> None:
    assert band(0.1, 0.001, 3.0) == pytest.approx(0.0159, abs=1e-4)
    assert band(0.05, 0.001, 3.0) == pytest.approx(0.0104, abs=1e-4)
    far = moved(of(*TEN), 1_200_000)
    wide = with_rules(cost_based_no_trade_band=True)
    assert Trigger.DRIFT in plan_rebalance(far, statuses(), SETTINGS, T0 + HOUR).triggers
    assert Trigger.DRIFT not in plan_rebalance(far, statuses(), wide, T0 + HOUR).triggers
    unknown = {name: status(name, trading_cost=None) for name in TEN}
    assert Trigger.DRIFT in plan_rebalance(far, unknown, wide, T0 + HOUR).triggers


def test_operator_set_weights() -> None:
    first, second = TEN[0], TEN[1]
    fixed = with_rules(
        method=WeightingMethod.FIXED, fixed_weights={first: Decimal(12), second: Decimal(30)}
    )
    made = plan_rebalance(of(*TEN), statuses(), fixed, T0 + HOUR)
    funded = {symbol: weight for symbol, weight in made.allocation.weights_u.items() if weight}
    assert funded == {first: 12_000_000, second: 20_000_000}
    assert made.allocation.cash_u == 68_000_000
    reasons = {one.symbol: one.reason for one in made.changes}
    assert reasons[first] == "the operator set its weight"
    assert reasons[TEN[2]] == "the operator set no weight for it"
    locked = {name: status(name, is_fresh=name in {first, second}) for name in TEN}
    full = plan_rebalance(moved(of(*TEN), 0), locked, fixed, T0 + HOUR).allocation
    assert full.flags == (Flag.LOCKED_EXCEED,)
    assert full.cash_u in {0, 1}


def test_weights_that_the_operator_never_set_sell_nothing() -> None:
    known = statuses() | {TEN[0]: status(TEN[0], ban="rug pull")}
    for unset in ({}, {"ELSEUSDT": Decimal(12)}):
        rules = with_rules(method=WeightingMethod.FIXED, fixed_weights=unset)
        made = plan_rebalance(of(*TEN), known, rules, T0 + HOUR)
        assert made.allocation.flags == (Flag.FIXED_UNSET,)
        assert [(one.symbol, one.new_u) for one in made.changes] == [(TEN[0], 0)]
        assert made.allocation.cash_u == of(*TEN).members[0].weight_u


def test_banned_goes_and_pinned_stays() -> None:
    known = statuses() | {
        TEN[0]: status(TEN[0], ban="rug pull"),
        TEN[1]: status(TEN[1], score=0.3, is_pinned=True),
        TEN[2]: status(TEN[2], score=0.3),
    }
    weights = plan_rebalance(of(*TEN), known, SETTINGS, T0 + HOUR).allocation.weights_u
    assert weights[TEN[0]] == 0
    assert weights[TEN[1]] == of(*TEN).members[1].weight_u > 0
    assert weights[TEN[2]] == 0
