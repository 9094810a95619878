"""The switch, pins and bans: what they forbid, and that they are kept and told."""

from datetime import timedelta
from decimal import Decimal

import pytest

from app.foundation.errors import Code, ConflictError, NotFoundError, RefusedError
from app.market.domain.models import Interval
from app.portfolio.domain.candidate_selection import CandidateRefusal
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.event_log import EventType
from app.portfolio.services.tradeability import BAN, SWITCH
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk


async def version(desk: Desk) -> int:
    return (await desk.portfolio.view()).portfolio.version


async def test_K_switched_off_nothing_is_bought_and_removing_goes_on(desk: Desk) -> None:
    await desk.filled()
    await desk.controls.switch(False, "flash crash", WHO)
    verdict, _ = await desk.trading.should_trade(SYMBOLS[0])
    assert not verdict.trade
    assert "flash crash" in verdict.reason
    assert not next(one for one in verdict.checks if one.name == SWITCH).passed
    sized, _ = await desk.trading.position_size(SYMBOLS[0], Decimal(10_000), Decimal(1))
    assert (sized.size.lots, sized.size.reason) == (0, verdict.reason)
    for attempt in (
        desk.rebalancing.rebalance(WHO),
        desk.portfolio.replace(SYMBOLS[0], SYMBOLS[20], "no", WHO),
    ):
        with pytest.raises(ConflictError) as caught:
            await attempt
        assert caught.value.code is Code.TRADING_DISABLED
    assert (await desk.rebalancing.rebalance(WHO, dry_run=True)).result
    before = (await desk.portfolio.view()).portfolio
    await desk.portfolio.remove(SYMBOLS[9], "out", WHO)
    after = (await desk.portfolio.view()).portfolio
    assert after.cash_u == before.cash_u + before.members[9].weight_u
    assert [one.weight_u for one in after.members] == [one.weight_u for one in before.members[:9]]
    with pytest.raises(ConflictError) as caught:
        await desk.portfolio.add(SYMBOLS[20], "no", WHO)
    assert caught.value.code is Code.TRADING_DISABLED
    await desk.controls.switch(True, "calm again", WHO)
    assert (await desk.portfolio.add(SYMBOLS[20], "yes", WHO)).result
    assert (await desk.integrity.check()).ok


async def test_an_empty_portfolio_stays_empty_while_switched_off(desk: Desk) -> None:
    await desk.open()
    await desk.controls.switch(False, "not yet", WHO)
    with pytest.raises(ConflictError):
        await desk.portfolio.initialize(5, "start", WHO)
    assert await desk.members() == []


async def test_the_switch_is_one_event_and_saying_it_again_none(desk: Desk) -> None:
    await desk.filled()
    first = await desk.controls.switch(False, "stop", WHO)
    again = await desk.controls.switch(False, "stop again", WHO)
    assert first.result == again.result
    assert (await desk.controls.controls()).switch == first.result
    assert await version(desk) == 2
    (event,) = await desk.queries.history(None, 5, kind=EventType.SWITCH)
    assert (event.reason, event.actor, event.payload["enabled"]) == ("stop", "tester", False)


async def test_banned_symbols_stay_out_and_a_banned_member_loses_its_weight(desk: Desk) -> None:
    await desk.open()
    await desk.controls.lock(SYMBOLS[0], LockKind.BAN, "wash trading", None, WHO)
    await desk.portfolio.initialize(5, "start", WHO)
    assert SYMBOLS[0] not in await desk.members()
    for attempt in (
        desk.portfolio.add(SYMBOLS[0], "no", WHO),
        desk.portfolio.replace(SYMBOLS[1], SYMBOLS[0], "no", WHO),
    ):
        with pytest.raises(ConflictError) as caught:
            await attempt
        assert caught.value.code is Code.SYMBOL_BANNED
    await desk.controls.lock(SYMBOLS[1], LockKind.BAN, "hack", None, WHO)
    verdict, _ = await desk.trading.should_trade(SYMBOLS[1])
    assert [one.name for one in verdict.checks if not one.passed] == [BAN]
    await desk.rebalancing.rebalance(WHO)
    member = (await desk.portfolio.view()).portfolio.member(SYMBOLS[1])
    assert member is not None
    assert member.weight_u == 0


async def test_a_pinned_member_is_neither_sold_nor_replaced(desk: Desk) -> None:
    await desk.filled()
    await desk.controls.lock(SYMBOLS[3], LockKind.PIN, "market maker", None, WHO)
    before = (await desk.portfolio.view()).portfolio.members[3].weight_u
    desk.score({SYMBOLS[3]: 0.2, SYMBOLS[4]: 0.2})
    await desk.rebalancing.rebalance(WHO)
    members = (await desk.portfolio.view()).portfolio.members
    assert members[3].weight_u == before
    assert members[4].weight_u == 0
    with pytest.raises(ConflictError) as caught:
        await desk.portfolio.replace(SYMBOLS[3], SYMBOLS[20], "no", WHO)
    assert caught.value.code is Code.SYMBOL_PINNED
    with pytest.raises(ConflictError) as caught:
        await desk.portfolio.remove(SYMBOLS[3], "no", WHO)
    assert caught.value.code is Code.SYMBOL_PINNED
    await desk.controls.unlock(SYMBOLS[3], "done", WHO)
    assert (await desk.portfolio.replace(SYMBOLS[3], SYMBOLS[20], "now", WHO)).result


async def test_a_watched_symbol_shows_where_it_stands_and_what_keeps_it_out(desk: Desk) -> None:
    await desk.filled()
    near, far, held = SYMBOLS[20], SYMBOLS[50], SYMBOLS[3]
    for symbol, reason in ((near, "new chain"), (far, "unlock in May"), (held, "a member")):
        await desk.controls.lock(symbol, LockKind.WATCH, reason, None, WHO)
    assert await desk.controls.first_symbols() == (*SYMBOLS[:10], near, far)
    found = await desk.controls.watch_list()
    assert found.facts.data_status == "fresh"
    inside, one, other = found.lines
    assert (inside.lock.symbol, inside.is_member, inside.refused) == (held, True, None)
    weakest = 0.99 - 0.015 * 9  # of ten members
    assert one.entry_score == other.entry_score == pytest.approx(weakest)
    assert one.score == pytest.approx(0.69)
    assert one.rank == 21
    assert one.distance == pytest.approx(weakest - 0.69)
    assert (one.lock.reason, one.is_member, one.refused) == ("new chain", False, None)
    assert other.refused is not None
    assert other.refused.reason is CandidateRefusal.LOW_SCORE
    # With a place free only the threshold counts; a copy of a member is too close to it.
    await desk.portfolio.remove(SYMBOLS[9], "room", WHO)
    assert desk.market.panels[Interval.DAY].symbols[21] == near
    panel = desk.market.panels[Interval.DAY]
    panel.close[:, 21] = panel.close[:, 1]
    _, one, _ = (await desk.controls.watch_list()).lines
    assert one.entry_score == 0.60
    assert (one.distance or 0.0) < 0.0
    assert one.refused is not None
    assert (one.refused.reason, one.refused.conflicting_symbol) == (
        CandidateRefusal.CORRELATION_LIMIT,
        SYMBOLS[0],
    )
    # It forbids nothing, and ends like any other lock.
    verdict, _ = await desk.trading.should_trade(held)
    assert verdict.trade
    desk.score({near: None})
    _, one, _ = (await desk.controls.watch_list()).lines
    assert (one.score, one.distance, one.rank) == (None, None, None)
    await desk.controls.unlock(near, "seen enough", WHO)
    assert await desk.controls.first_symbols() == (*SYMBOLS[:9], far)
    assert (await desk.integrity.check()).ok


async def test_locks_end_by_themselves(desk: Desk) -> None:
    await desk.filled()
    ends = NOW + timedelta(minutes=1)
    made = await desk.controls.lock("c30/usdt", LockKind.BAN, "listing", ends, WHO)
    again = await desk.controls.lock(SYMBOLS[30], LockKind.BAN, "listing", ends, WHO)
    assert made.result == again.result == await desk.controls.lock_of(SYMBOLS[30])
    assert await version(desk) == 2
    desk.later(minutes=1)
    for attempt in (
        desk.controls.lock_of(SYMBOLS[30]),
        desk.controls.unlock(SYMBOLS[30], "late", WHO),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    with pytest.raises(RefusedError) as caught:
        await desk.controls.lock(SYMBOLS[30], LockKind.PIN, "late", ends, WHO)
    assert caught.value.code is Code.VALIDATION_FAILED
    assert (await desk.integrity.check()).ok
