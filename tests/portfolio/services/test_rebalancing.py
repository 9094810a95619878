"""Rebalancing on real databases: once, dry, stale, raced."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import ROUND_UP, Decimal
from typing import Any

import pytest

from app.configuration.domain.model import WeightingMethod
from app.foundation.errors import Code, ConflictError, PreconditionFailedError, UnavailableError
from app.foundation.idempotency import Command
from app.market.domain.models import Book, ContractStatus, Level
from app.market.domain.price_quarantine import QuarantineReason
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.models import FULL
from app.portfolio.domain.rebalance_plan import Trigger
from app.portfolio.domain.weighting import WeightRole
from app.portfolio.services.rebalance_runs import RebalanceResult
from tests.support.trading_desk import SYMBOLS, WHO, Desk


async def rebalanced(desk: Desk, **options: Any) -> RebalanceResult:
    outcome = await desk.rebalancing.rebalance(WHO, **options)
    assert outcome.result is not None
    return outcome.result


async def test_new_scores_move_weights_once(desk: Desk) -> None:
    await desk.filled()
    desk.later(minutes=5)
    desk.score({SYMBOLS[0]: 0.61, SYMBOLS[1]: 0.40})
    first = await rebalanced(desk, reason="tuned")
    assert first.plan.triggers == (Trigger.DRIFT,)
    assert first.version == 2
    portfolio = (await desk.portfolio.view()).portfolio
    assert {
        one.symbol: one.weight_u for one in portfolio.members
    } == first.plan.allocation.weights_u
    assert portfolio.members[1].weight_u == 0
    assert sum(one.weight_u for one in portfolio.members) + portfolio.cash_u == FULL
    second = await rebalanced(desk)
    assert (second.plan.changes, second.version) == ((), 2)
    event = (await desk.queries.history(None, 1))[0]
    assert (event.type, event.reason, event.actor) == (EventType.REBALANCE, "tuned", "tester")
    assert event.payload["run_id"] == first.run_id
    assert event.payload["triggers"] == ["drift"]
    assert event.input_hash == "input-hash"
    assert (await desk.integrity.check()).ok


async def test_a_dry_run_shows_the_same_plan_and_writes_nothing(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    before = (await desk.portfolio.view()).portfolio
    dry = await rebalanced(desk, dry_run=True, account_balance=Decimal(10_000))
    assert dry.is_dry_run
    assert dry.version == before.version
    assert (await desk.portfolio.view()).portfolio == before
    real = await rebalanced(desk)
    assert dry.plan == real.plan
    assert dry.lots is not None
    for symbol, weight_u in dry.plan.allocation.weights_u.items():
        lots = dry.lots.lots[symbol]
        assert lots is not None  # 0.1 coins of 10 USDT each
        assert abs(10_000 * weight_u / FULL - lots) < 1
    assert dry.lots.minimum_capital == 50.0
    assert dry.lots.missed == ()


async def test_lots_need_a_price(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    desk.quote(SYMBOLS[0], mark=None, bid=None)
    made = await rebalanced(desk, dry_run=True, account_balance=Decimal(10_000))
    assert made.lots is not None
    assert made.lots.lots[SYMBOLS[0]] is None
    assert made.plan.held_back == (SYMBOLS[0],)
    desk.quote(SYMBOLS[0], mark=Decimal(10))
    made = await rebalanced(desk, dry_run=True, account_balance=Decimal(10_000))
    assert made.cost is None, "it has no bid"


async def test_too_little_capital_is_said(desk: Desk) -> None:
    await desk.filled()
    made = await rebalanced(desk, dry_run=True, account_balance=Decimal(7))
    assert made.lots is not None  # one lot is a seventh of the equity
    assert made.lots.minimum_capital == 50.0
    assert set(made.lots.missed) <= set(SYMBOLS[:10])
    assert len(made.lots.missed) > 5
    desk.quote(SYMBOLS[0], mark=Decimal(1_200))  # one lot of it is 12 % of 1000, of others 0.1 %
    even: dict[str, Any] = {"method": WeightingMethod.EQUAL, "dry_run": True}
    for minimum, lots in ((5, {1, 97, 98}), (10, {0, 100})):
        await desk.configuration.put({"min_weight_percentage": minimum}, "a minimum", WHO)
        made = await rebalanced(desk, account_balance=Decimal(1_000), **even)
        assert made.lots is not None
        assert set(made.lots.lots.values()) == lots  # nobody pays for it out of its minimum


def _book(lots: int) -> Book:
    return Book("X", 1, (Level(Decimal("9.99"), lots),), (Level(Decimal("10.01"), lots),), 0)


async def test_the_cost_holds_fee_spread_and_impact(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    plain = await rebalanced(desk, dry_run=True)
    assert not plain.has_impact
    assert plain.cost == pytest.approx(plain.plan.turnover_u / FULL * (0.0006 + 0.001))
    for symbol in SYMBOLS:
        desk.quote(symbol, book=_book(1_000_000))
    balance = Decimal(10_000)
    deep = await rebalanced(desk, dry_run=True, account_balance=balance)
    assert deep.has_impact
    assert deep.cost == pytest.approx(plain.cost, rel=0.01)
    thin = Book("X", 1, (Level(Decimal("9.5"), 9),), (Level(Decimal("10.5"), 10**6),), 0)
    change = deep.plan.changes[0]
    desk.quote(change.symbol, book=thin)
    assert (await rebalanced(desk, dry_run=True, account_balance=balance)).cost is None


async def test_racing_rebalances_change_weights_once(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    endings = await asyncio.gather(*(rebalanced(desk) for _ in range(10)), return_exceptions=True)
    done = [one for one in endings if isinstance(one, RebalanceResult)]
    lost = [one for one in endings if not isinstance(one, RebalanceResult)]
    assert sum(bool(one.plan.changes) for one in done) == 1
    ids = {one.run_id for one in done}
    for one in lost:
        assert isinstance(one, ConflictError)
        assert one.code is Code.REBALANCE_IN_PROGRESS
        assert one.facts["run_id"] in ids
    assert (await desk.portfolio.view()).portfolio.version == 2


async def test_no_plan_on_stale_data(desk: Desk) -> None:
    await desk.filled()
    desk.stale(*SYMBOLS[:2])
    assert (await rebalanced(desk)).plan.changes == ()
    desk.stale(SYMBOLS[2])
    with pytest.raises(UnavailableError) as caught:
        await rebalanced(desk)
    assert caught.value.code is Code.MARKET_DATA_STALE


async def test_a_stale_member_keeps_its_weight_while_the_others_move(desk: Desk) -> None:
    await desk.filled()
    before = (await desk.portfolio.view()).portfolio.members[0].weight_u
    desk.stale(SYMBOLS[0])
    desk.score({SYMBOLS[1]: 0.2})
    made = await rebalanced(desk)
    assert SYMBOLS[0] not in {change.symbol for change in made.plan.changes}
    assert (await desk.portfolio.view()).portfolio.members[0].weight_u == before


async def test_a_closed_contract_gives_its_weight_up(desk: Desk) -> None:
    await desk.filled()
    desk.status(SYMBOLS[0], ContractStatus.SETTLED)
    desk.stale(SYMBOLS[0], SYMBOLS[1], SYMBOLS[2])
    with pytest.raises(UnavailableError):
        await rebalanced(desk)
    desk.quote(SYMBOLS[2], is_fresh=True)
    made = await rebalanced(desk)
    assert {one.symbol: one.new_u for one in made.plan.changes}[SYMBOLS[0]] == 0


async def test_a_halted_exchange_moves_nothing(desk: Desk) -> None:
    await desk.filled()
    desk.market.halted = True
    desk.score({SYMBOLS[0]: 0.2, SYMBOLS[1]: 0.3})
    assert (await rebalanced(desk)).plan.changes == ()


async def test_the_hysteresis_of_trading(desk: Desk) -> None:
    await desk.filled()
    member = SYMBOLS[5]

    async def weight_at(score: float) -> int:
        desk.later(hours=1)
        desk.score({member: score})
        await rebalanced(desk)
        return (await desk.portfolio.view()).portfolio.members[5].weight_u

    assert await weight_at(0.56) > 0
    assert await weight_at(0.54) == 0
    assert await weight_at(0.59) == 0
    assert await weight_at(0.60) > 0


async def test_if_match(desk: Desk) -> None:
    await desk.filled()
    with pytest.raises(PreconditionFailedError):
        await desk.rebalancing.rebalance(replace(WHO, if_match=7))
    assert (await desk.rebalancing.rebalance(Command("t", "r", if_match=1))).result


async def test_an_empty_portfolio_has_an_empty_plan(desk: Desk) -> None:
    await desk.open()
    assert (await rebalanced(desk)).plan.changes == ()


async def test_weights_show_targets_drift_and_bounds(desk: Desk) -> None:
    await desk.filled()
    await desk.configuration.put({"score_tilt": 2.0}, "steeper", WHO)
    desk.score({SYMBOLS[0]: 0.4, SYMBOLS[1]: 1.0, SYMBOLS[9]: 0.6})
    shown = await desk.rebalancing.weights()
    lines = {line.member.symbol: line for line in shown.lines}
    assert lines[SYMBOLS[0]].role is WeightRole.EXCLUDED
    assert lines[SYMBOLS[0]].target_u == 0
    assert lines[SYMBOLS[0]].drift_u == lines[SYMBOLS[0]].member.weight_u
    assert lines[SYMBOLS[9]].bound == "minimum"
    assert lines[SYMBOLS[1]].bound == "maximum"
    assert sum(line.target_u for line in shown.lines) + shown.target_cash_u == FULL
    assert (shown.min_u, shown.max_u, shown.flags) == (5_000_000, 20_000_000, ())


async def test_weights_on_stale_data_are_those_of_the_last_change(desk: Desk) -> None:
    await desk.filled(3)
    desk.later(hours=1)
    shown = await desk.rebalancing.weights()
    assert {line.target_u for line in shown.lines} == {20_000_000}
    assert {line.role for line in shown.lines} == {None}
    assert shown.target_cash_u == 40_000_000
    assert all(line.drift_u == 0 for line in shown.lines)


async def test_prices_alone_make_drift(desk: Desk) -> None:
    await desk.filled()
    before = (await desk.portfolio.view()).portfolio
    assert (await rebalanced(desk)).plan.triggers == ()
    desk.quote(SYMBOLS[3], mark=Decimal("12.5"))
    shown = {line.member.symbol: line for line in (await desk.rebalancing.weights()).lines}
    line = shown[SYMBOLS[3]]
    assert line.member.weight_u == before.members[3].weight_u
    assert line.marked_u > line.member.weight_u
    assert line.drift_u > 1_000_000
    made = await rebalanced(desk)
    assert made.plan.triggers == (Trigger.DRIFT,)
    assert {one.symbol: one.action for one in made.plan.changes}[SYMBOLS[3]] == "decrease"
    again = await rebalanced(desk)
    assert (again.plan.changes, again.version) == ((), made.version)
    assert (await desk.integrity.check()).ok


async def test_drift_calls_for_a_check_where_weights_may_be_set(desk: Desk) -> None:
    assert not await desk.rebalancing.has_drifted()  # of nothing
    await desk.filled()
    assert not await desk.rebalancing.has_drifted()
    desk.quote(SYMBOLS[3], mark=Decimal("12.5"))
    assert await desk.rebalancing.has_drifted()
    await desk.controls.switch(False, "hands off", WHO)
    assert not await desk.rebalancing.has_drifted(), "trading is switched off"
    await desk.controls.switch(True, "go on", WHO)
    assert await desk.rebalancing.has_drifted()
    desk.later(minutes=60)
    assert not await desk.rebalancing.has_drifted(), "the board is too old"
    desk.score({})
    assert await desk.rebalancing.has_drifted()
    await desk.rebalancing.check(WHO)
    assert not await desk.rebalancing.has_drifted()


async def test_without_a_fresh_mark_the_weight_of_record_counts(desk: Desk) -> None:
    await desk.filled()
    desk.quote(SYMBOLS[3], mark=Decimal(20), is_fresh=False)
    line = (await desk.rebalancing.weights()).lines[3]
    assert (line.marked_u, line.role) == (line.member.weight_u, WeightRole.LOCKED)
    assert (await rebalanced(desk)).plan.changes == ()


async def test_a_score_about_the_threshold_causes_no_rebalance(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[5]: 0.60})
    await rebalanced(desk)
    version = (await desk.portfolio.view()).portfolio.version
    for cycle in range(40):
        desk.later(minutes=5)
        desk.score({SYMBOLS[5]: 0.59 if cycle % 2 else 0.61})
        assert (await rebalanced(desk)).plan.triggers == ()
    assert (await desk.portfolio.view()).portfolio.version == version


@pytest.mark.parametrize("method", WeightingMethod)
async def test_every_method_proposes_and_rebalances_alike(
    desk: Desk, method: WeightingMethod
) -> None:
    await desk.filled()
    if method is WeightingMethod.FIXED:  # before the operator has set any nobody is sold
        assert (await rebalanced(desk, method=method)).plan.changes == ()
    fixed = {"fixed_weights": {SYMBOLS[0]: 12, SYMBOLS[1]: 8.5}}
    exact = {"rebalance_threshold": 0, "rebalance_interval_threshold": 0}
    await desk.configuration.put({"rebalancing": fixed, **exact}, "set", WHO)
    before = (await desk.portfolio.view()).portfolio
    proposed = await desk.rebalancing.optimize(method)
    assert (await desk.portfolio.view()).portfolio == before
    assert sum(line.proposed_u for line in proposed.lines) + proposed.cash_u == FULL
    assert proposed.risk_before is not None
    assert proposed.risk_after is not None
    desk.later(days=1)
    desk.score({})
    await rebalanced(desk, method=method)
    after = (await desk.portfolio.view()).portfolio
    assert [one.weight_u for one in after.members] == [one.proposed_u for one in proposed.lines]
    if method is WeightingMethod.FIXED:
        assert [one.weight_u for one in after.members][:3] == [12_000_000, 8_500_000, 0]
    if method is WeightingMethod.EQUAL:
        assert {one.weight_u for one in after.members} == {10_000_000}


async def test_a_change_below_one_lot_or_the_minimum_notional_is_not_traded(desk: Desk) -> None:
    await desk.filled()
    desk.later(hours=1)
    desk.score({SYMBOLS[0]: 0.61})
    plain = await rebalanced(desk, dry_run=True)
    assert plain.lot_rule is not None
    assert (plain.lot_rule.balance, plain.lot_rule.source) == (None, None)
    smallest = min(abs(one.change_u) for one in plain.plan.changes)

    async def held_back(**asked: Any) -> tuple[set[str], set[str]]:
        made = await rebalanced(desk, dry_run=True, **asked)
        return {one.symbol for one in made.plan.changes}, set(made.plan.held_back)

    # A lot is worth 1, the minimum notional is 5: the smallest change is worth that and no less.
    enough = (Decimal(5) * FULL / smallest).quantize(Decimal("0.01"), ROUND_UP)
    moved = {one.symbol for one in plain.plan.changes}
    assert await held_back(account_balance=enough) == (moved, set())
    assert (await held_back(account_balance=enough * Decimal("0.999")))[0] != moved
    assert await held_back(account_balance=Decimal(20)) == (set(), {SYMBOLS[0]})
    sizing = {"sizing": {"reference_balance": 20}}
    await desk.configuration.put(sizing, "small", WHO)
    assert await held_back() == (set(), {SYMBOLS[0]})
    assert await held_back(account_balance=enough) == (moved, set()), "what is asked comes first"
    done = await rebalanced(desk)
    assert (done.plan.changes, done.version) == ((), plain.version + 1), "that of the setting"
    assert done.lot_rule is not None
    assert done.lot_rule.source == "sizing.reference_balance"
    await desk.configuration.put({"sizing": {"min_notional": 0}}, "by lots", WHO)
    lots = (Decimal(1) * FULL / smallest).quantize(Decimal("0.01"), ROUND_UP)
    assert await held_back(account_balance=lots) == (moved, set())
    assert (await held_back(account_balance=lots * Decimal("0.999")))[0] != moved


async def test_a_member_that_comes_in_moves_no_weight_by_less_than_the_band(desk: Desk) -> None:
    await desk.filled(10)
    before = {one.symbol: one.weight_u for one in (await desk.portfolio.view()).portfolio.members}
    await desk.portfolio.replace(SYMBOLS[9], SYMBOLS[10], "try", WHO)
    portfolio = (await desk.portfolio.view()).portfolio
    after = {one.symbol: one.weight_u for one in portfolio.members}
    assert after.pop(SYMBOLS[10]) == before.pop(SYMBOLS[9])
    assert after == before


async def test_drift_waits_for_the_spacing_and_an_exit_does_not(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    assert (await rebalanced(desk)).plan.changes, "the first follows no other"
    desk.later(seconds=3_599)
    desk.score({SYMBOLS[0]: 0.95})
    waiting = await rebalanced(desk)
    assert (waiting.plan.changes, waiting.plan.triggers) == ((), ())
    assert waiting.plan.waits_until == desk.now + timedelta(seconds=1)
    assert not await desk.rebalancing.has_drifted()
    desk.score({SYMBOLS[0]: 0.95, SYMBOLS[1]: 0.2})
    forced = await rebalanced(desk, dry_run=True)
    assert {one.symbol: one.action for one in forced.plan.changes}[SYMBOLS[1]] == "exit"
    desk.later(seconds=1)
    desk.score({SYMBOLS[0]: 0.95})
    assert await desk.rebalancing.has_drifted()
    assert (await rebalanced(desk)).plan.changes


async def test_the_interval_is_judged_once_each_time_it_has_passed(desk: Desk) -> None:
    await desk.filled()
    desk.later(days=1)
    desk.score({})
    assert (await rebalanced(desk)).plan.triggers == ()
    desk.later(hours=1)
    desk.score({})
    desk.quote(SYMBOLS[3], mark=Decimal("10.8"))  # about .7 percentage points
    assert (await rebalanced(desk)).plan.triggers == (), "the check of this day is done"
    desk.later(hours=23)
    desk.score({})
    made = await rebalanced(desk)
    assert made.plan.triggers == (Trigger.INTERVAL,)
    assert made.plan.changes


async def test_a_member_without_a_believed_price_is_not_traded_by_the_lot_rule(desk: Desk) -> None:
    await desk.filled()
    desk.later(hours=1)
    desk.score({SYMBOLS[0]: 0.2, SYMBOLS[1]: 0.2})
    desk.quote(SYMBOLS[0], mark=None)
    made = await rebalanced(desk, dry_run=True, account_balance=Decimal(10_000))
    assert SYMBOLS[0] not in {one.symbol for one in made.plan.changes}
    assert SYMBOLS[1] in {one.symbol for one in made.plan.changes}
    assert SYMBOLS[0] in made.plan.held_back
    desk.quote(SYMBOLS[0], mark=Decimal(10), quarantine_reason=QuarantineReason.MARK_OFF_INDEX)
    doubted = await rebalanced(desk, dry_run=True, account_balance=Decimal(10_000))
    assert doubted.lots is not None
    assert doubted.lots.lots[SYMBOLS[0]] is None
    assert doubted.lots.lots[SYMBOLS[2]] is not None


async def test_nothing_is_proposed_on_stale_data(desk: Desk) -> None:
    await desk.filled()
    desk.stale(*SYMBOLS[:5])
    with pytest.raises(UnavailableError):
        await desk.rebalancing.optimize(WeightingMethod.EQUAL)


async def test_before_the_first_fill_risk_is_not_known(desk: Desk) -> None:
    await desk.filled()
    desk.market.panels.clear()
    proposed = await desk.rebalancing.optimize(WeightingMethod.RISK_PARITY)
    assert (proposed.risk_before, proposed.risk_after) == (None, None)
