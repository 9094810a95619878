"""An approved plan is carried out as it was agreed to, or not at all."""

from dataclasses import replace

import pytest

from app.foundation.errors import Code, ConflictError
from app.portfolio.domain.membership import add_members
from app.portfolio.domain.models import EMPTY, Portfolio
from app.portfolio.domain.proposals import ApprovedPlan, plan_approved
from app.portfolio.domain.rebalance_plan import MemberStatus, Plan, Trigger
from app.portfolio.domain.target_weights import MemberConstraint
from app.portfolio.domain.weighting import Allocation, WeightRequest, WeightRole
from tests.support.portfolios import T0, newcomer

A, B, C = "AAAUSDT", "BBBUSDT", "CCCUSDT"
POINT = 1_000_000
AGREED = {A: 20 * POINT, B: 15 * POINT, C: 10 * POINT}
SEEN = {A: 18 * POINT, B: 17 * POINT, C: 10 * POINT}
APPROVED = ApprovedPlan(
    AGREED, 55 * POINT, (), SEEN, POINT, (Trigger.DRIFT,), {A: "more", B: "less"}
)


def held(**weights: int) -> Portfolio:
    members = add_members(
        EMPTY, [newcomer(name) for name in (A, B, C)], 10, T0, "x"
    ).portfolio.members
    worth = {**SEEN, **{f"{name}USDT": weight for name, weight in weights.items()}}
    return replace(
        EMPTY,
        members=tuple(replace(one, weight_u=worth[one.symbol]) for one in members),
        cash_u=100 * POINT - sum(worth.values()),
    )


def moment(targets_u: dict[str, int] | None = None, **roles: WeightRole) -> Plan:
    constraints = {
        name: MemberConstraint(
            WeightRequest(name, roles.get(name[:3], WeightRole.FUNDED), 1.0, 0), "the rule"
        )
        for name in (A, B, C)
    }
    weights = {**AGREED, **(targets_u or {})}
    allocation = Allocation(weights, 100 * POINT - sum(weights.values()), ())
    return Plan((), (), allocation, constraints, 0, None)


def status(name: str) -> MemberStatus:
    return MemberStatus(name, True, False, True, 0.7, 1.0, 0.5, 0.001)


STANDINGS = {name: status(name) for name in (A, B, C)}


def test_the_agreed_weights_are_reached_from_where_prices_have_carried_them() -> None:
    now = held(AAA=19 * POINT, CCC=10 * POINT + 7)
    done = plan_approved(APPROVED, now, moment({B: 16 * POINT}), STANDINGS)
    assert done.allocation.weights_u == {**AGREED, C: 10 * POINT + 7}
    assert done.allocation.cash_u == 55 * POINT - 7
    assert [(one.symbol, one.change_u, one.reason) for one in done.changes] == [
        (A, POINT, "more"),
        (B, -2 * POINT, "less"),
    ], "what was to stay stays"
    assert done.triggers == (Trigger.DRIFT,)


@pytest.mark.parametrize(
    ("now", "plan", "why"),
    [
        (held(BBB=18 * POINT + 1), moment(), "prices have moved BBBUSDT by \\+1.00"),
        (held(), moment({A: 19 * POINT - 1}), "target of AAAUSDT is -1.00 percentage points away"),
        (held(), moment(BBB=WeightRole.LOCKED), "BBBUSDT cannot be traded now: the rule"),
        (held(), moment(CCC=WeightRole.EXCLUDED), "CCCUSDT may not be held: the rule"),
        (replace(held(), members=held().members[:2]), moment(), "no room"),
    ],
)
def test_a_plan_that_does_not_hold_names_what_is_in_its_way(
    now: Portfolio, plan: Plan, why: str
) -> None:
    with pytest.raises(ConflictError, match=why) as caught:
        plan_approved(APPROVED, now, plan, STANDINGS)
    assert caught.value.code is Code.PLAN_CHANGED


def test_the_tolerance_itself_is_within() -> None:
    now = held(AAA=19 * POINT, BBB=16 * POINT)
    done = plan_approved(APPROVED, now, moment({A: 21 * POINT, C: 9 * POINT}), STANDINGS)
    assert done.allocation.weights_u == AGREED


def test_who_may_not_be_traded_and_was_to_stay_stays_and_cash_bears_it() -> None:
    now = held(CCC=10 * POINT + 9)
    done = plan_approved(APPROVED, now, moment(CCC=WeightRole.LOCKED), STANDINGS)
    assert done.allocation.weights_u == {**AGREED, C: 10 * POINT + 9}
    assert done.allocation.cash_u == 55 * POINT - 9


def test_where_there_is_no_cash_the_moved_ones_make_room() -> None:
    full = replace(
        APPROVED,
        weights_u={A: 76 * POINT, B: 14 * POINT, C: 10 * POINT},
        seen_u={A: 75 * POINT, B: 15 * POINT, C: 10 * POINT},
        cash_u=0,
    )
    aims = {A: 76 * POINT, B: 14 * POINT}
    now = held(AAA=75 * POINT - 9, BBB=15 * POINT, CCC=10 * POINT + 9)
    done = plan_approved(full, now, moment(aims, CCC=WeightRole.LOCKED), STANDINGS)
    assert done.allocation.weights_u == {A: 76 * POINT - 8, B: 14 * POINT - 1, C: 10 * POINT + 9}
    assert done.allocation.cash_u == 0
    still = replace(full, weights_u=full.seen_u)
    with pytest.raises(ConflictError, match="no room"):
        plan_approved(
            replace(still, seen_u={**still.seen_u, A: 75 * POINT + 1}),
            held(AAA=75 * POINT, BBB=15 * POINT + 9, CCC=10 * POINT),
            moment({A: 75 * POINT, B: 15 * POINT}),
            STANDINGS,
            {A: 2},
        )


@pytest.mark.parametrize(
    ("least_u", "low_u", "why"),
    [
        ({A: POINT + 2}, 0, "leave under a lot of AAAUSDT"),
        ({A: POINT + 1}, 0, None),
        ({}, 14 * POINT, "push BBBUSDT below the minimum weight"),
        ({}, 14 * POINT - 1, None),
    ],
)
def test_making_room_breaks_neither_the_lot_rule_nor_the_minimum_weight(
    least_u: dict[str, int], low_u: int, why: str | None
) -> None:
    full = replace(
        APPROVED,
        weights_u={A: 76 * POINT, B: 14 * POINT, C: 10 * POINT},
        seen_u={A: 75 * POINT, B: 15 * POINT, C: 10 * POINT},
        cash_u=0,
    )
    now = held(AAA=75 * POINT - 9, BBB=15 * POINT, CCC=10 * POINT + 9)
    plan = moment({A: 76 * POINT, B: 14 * POINT}, CCC=WeightRole.LOCKED)
    if why is None:
        made = plan_approved(full, now, plan, STANDINGS, least_u, low_u)
        assert made.allocation.weights_u[A] == 76 * POINT - 8
        return
    with pytest.raises(ConflictError, match=why) as refused:
        plan_approved(full, now, plan, STANDINGS, least_u, low_u)
    assert refused.value.code is Code.PLAN_CHANGED


def test_a_change_that_has_become_too_small_is_not_traded() -> None:
    now = held(AAA=19 * POINT)
    done = plan_approved(APPROVED, now, moment(), STANDINGS, {A: POINT + 1})
    assert {one.symbol for one in done.changes} == {B}
    assert done.allocation.weights_u[A] == 19 * POINT


def test_a_proposal_without_its_weights_says_nothing_to_agree_to() -> None:
    assert ApprovedPlan.of({"changes": [], "triggers": ["drift"]}) is None


def test_a_member_that_has_come_in_since_is_no_part_of_it() -> None:
    fewer = replace(APPROVED, weights_u={A: 20 * POINT, B: 15 * POINT})
    with pytest.raises(ConflictError, match="CCCUSDT is not part of it") as refused:
        plan_approved(fewer, held(), moment(), STANDINGS)
    assert refused.value.code is Code.PLAN_CHANGED
