"""A contract whose end is announced: nothing is opened in it, and whoever holds it leaves."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.foundation.errors import Code, RefusedError
from app.market.domain.models import ContractKind
from app.portfolio.services.tradeability import ENDING
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk


def ends(desk: Desk, symbol: str, **after: float) -> None:
    ends_ms = round((NOW + timedelta(**after)).timestamp() * 1000)
    contract = desk.market.quotes[symbol].contract
    desk.quote(symbol, contract=replace(contract, expires_ms=ends_ms))


async def test_D15_nothing_comes_in_that_ends_within_three_days(desk: Desk) -> None:
    await desk.filled(4)
    ends(desk, SYMBOLS[5], hours=71)
    with pytest.raises(RefusedError) as caught:
        await desk.portfolio.add(SYMBOLS[5], "try", WHO)
    assert caught.value.code is Code.SYMBOL_NOT_TRADABLE
    ends(desk, SYMBOLS[6], hours=73)
    await desk.portfolio.add(SYMBOLS[6], "in time", WHO)


async def test_D15_nothing_is_opened_in_a_member_that_ends_soon(desk: Desk) -> None:
    await desk.filled(4)
    for after in ({"hours": 71}, {"minutes": 30}, {"minutes": 1}):
        ends(desk, SYMBOLS[0], **after)
        verdict, _ = await desk.trading.should_trade(SYMBOLS[0])
        assert (verdict.trade, verdict.reason) == (False, "its delisting is near")
        assert [one.name for one in verdict.checks if not one.passed] == [ENDING]
    done = await desk.rebalancing.rebalance(WHO)
    assert done.result is not None
    shift = next(one for one in done.result.plan.changes if one.symbol == SYMBOLS[0])
    assert (shift.action, shift.new_u, shift.reason) == ("exit", 0, "its delisting is near")


async def test_D15_a_member_leaves_as_soon_as_its_end_is_announced(desk: Desk) -> None:
    await desk.filled(4)
    ends(desk, SYMBOLS[1], days=20)
    done = await desk.replacement.execute(WHO, unattended=True, forced_only=True)
    assert done.result is not None
    assert SYMBOLS[1] not in await desk.members()
    assert len(await desk.members()) == 4


async def test_D15_a_member_with_a_date_of_its_own_leaves_three_days_before_it(desk: Desk) -> None:
    await desk.filled(4)
    dated = replace(desk.market.quotes[SYMBOLS[1]].contract, kind=ContractKind.DATED)
    desk.quote(SYMBOLS[1], contract=dated)
    ends(desk, SYMBOLS[1], hours=73)
    done = await desk.replacement.execute(WHO, unattended=True, forced_only=True)
    assert done.result is not None
    assert done.result.swaps == ()
    ends(desk, SYMBOLS[1], hours=71)
    done = await desk.replacement.execute(WHO, unattended=True, forced_only=True)
    assert done.result is not None
    assert [swap.old.symbol for swap in done.result.swaps] == [SYMBOLS[1]]


async def test_D22_equal_scores_give_equal_weights_and_the_rank_goes_by_name(desk: Desk) -> None:
    await desk.open()
    desk.score(dict.fromkeys(SYMBOLS, 0.8))
    await desk.portfolio.initialize(8, "start", WHO)
    await desk.rebalancing.rebalance(WHO)
    members = [one.member for one in (await desk.portfolio.view()).members]
    assert [one.symbol for one in members] == list(SYMBOLS[:8])
    assert {one.weight_u for one in members} == {12_500_000}


async def test_D22_without_any_score_no_weight_moves(desk: Desk) -> None:
    await desk.filled(8)
    desk.score({SYMBOLS[0]: 0.9, SYMBOLS[1]: 0.61})
    await desk.rebalancing.rebalance(WHO)
    before = [one.member.weight_u for one in (await desk.portfolio.view()).members]
    assert len({*before}) > 1, "without scores all would be alike"
    desk.score(dict.fromkeys(SYMBOLS))
    desk.later(hours=30)
    desk.score(dict.fromkeys(SYMBOLS))
    done = await desk.rebalancing.rebalance(WHO)
    assert done.result is not None
    assert done.result.plan.changes == ()
    assert [one.member.weight_u for one in (await desk.portfolio.view()).members] == before
