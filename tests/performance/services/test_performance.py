"""Results booked once and the curve from the history, on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.decimal_math import total
from app.foundation.errors import (
    Code,
    ConflictError,
    PreconditionFailedError,
    RefusedError,
    ServiceError,
)
from app.foundation.hash_chain import instant_text
from app.foundation.idempotency import Command
from app.performance.domain.attribution import AttributionMethod
from app.performance.services.service import ResultSubmission
from app.portfolio.domain.event_log import EventType, fold_events
from app.portfolio.domain.returns import BookedTotal
from app.portfolio.services.state_cache import PortfolioStateCache
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk, panel


def claim(trade_id: str = "t1", pnl: str = "12.5", **changed: object) -> ResultSubmission:
    facts = {
        "trade_id": trade_id,
        "pnl": Decimal(pnl),
        "currency": "USDT",
        "fees": Decimal("0.5"),
        "funding": Decimal(-1),
        "occurred_at": NOW,
        **changed,
    }
    return ResultSubmission(**facts)  # type: ignore[arg-type]  # as the test says


async def test_a_result_is_booked_once(desk: Desk) -> None:
    await desk.filled(3)
    first = await desk.performance.book(SYMBOLS[0], claim(), "fill", WHO)
    desk.later(minutes=1)
    again = await desk.performance.book("c00-usdt", claim(pnl="12.500"), "again", WHO)
    assert first.result is not None
    assert first.result == again.result
    assert first.result.result.net == Decimal(11)
    with pytest.raises(ConflictError) as caught:
        await desk.performance.book(SYMBOLS[0], claim(pnl="13"), "other", WHO)
    assert caught.value.code is Code.TRADE_ID_REUSED
    with pytest.raises(ConflictError):
        await desk.performance.book(SYMBOLS[1], claim(), "other symbol", WHO)
    async with desk.database.read() as unit:
        events = await unit.get(HistoryRepository).all()
        assert fold_events(events) == await unit.get(PortfolioRepository).load()
        assert await unit.get(TradeRepository).find("t2") is None
    booked = [event for event in events if event.type is EventType.PERFORMANCE]
    assert [event.payload["trade"]["net"] for event in booked] == ["11"]
    assert booked[0].seq == first.result.event_seq
    assert (await desk.integrity.check()).ok
    shown = {one.member.symbol: one.realized for one in (await desk.portfolio.view()).members}
    assert shown == {SYMBOLS[0]: 11, SYMBOLS[1]: None, SYMBOLS[2]: None}


async def test_results_since_inclusion_begin_with_the_membership(desk: Desk) -> None:
    """Those of a former membership stay in the realised total and are no result of this one."""
    await desk.filled(3)
    member = SYMBOLS[0]

    async def booked() -> dict[str, BookedTotal | None]:
        view, (positions, _) = await desk.portfolio.view(), await desk.performance.positions()
        found = {one.member.symbol: one.booked for one in view.members}
        assert found == {one.member.symbol: one.booked for one in positions}
        return found

    assert await booked() == dict.fromkeys(SYMBOLS[:3])
    desk.later(minutes=1)
    await desk.performance.book(member, claim("first"), "fill", WHO)
    await desk.performance.book(member, claim("second", pnl="-2.5", fees=Decimal(0)), "fill", WHO)
    total = (await booked())[member]
    assert total is not None
    assert (total.results, total.pnl, total.fees, total.funding, total.net, total.currency) == (
        2, Decimal(10), Decimal("0.5"), Decimal(-2), Decimal("7.5"), "USDT",
    )  # fmt: skip
    await desk.portfolio.remove(member, "enough", WHO)
    desk.later(minutes=1)
    await desk.portfolio.add(member, "again", Command("tester", "request-2"))
    assert (await booked())[member] is None
    await desk.performance.book(member, claim("late of the first"), "fill", WHO)
    assert (await booked())[member] is None
    await desk.performance.book(member, claim("third", occurred_at=desk.now), "fill", WHO)
    await desk.performance.book(
        SYMBOLS[1], claim("other", pnl="1", occurred_at=desk.now), "fill", WHO
    )
    now = await booked()
    assert [one and one.net for one in (now[member], now[SYMBOLS[1]], now[SYMBOLS[2]])] == [
        Decimal(11), Decimal("-0.5"), None,
    ]  # fmt: skip
    fresh = PortfolioStateCache()
    assert (await fresh.newest(desk.database)).booked.totals == {
        one.member.symbol_id: one.booked
        for one in (await desk.portfolio.view()).members
        if one.booked is not None
    }
    shown = {one.member.symbol: one.realized for one in (await desk.portfolio.view()).members}
    assert shown[member] == Decimal("7.5") + 22


async def test_of_a_known_membership_newer_bookings_alone_are_read(desk: Desk) -> None:
    """Each booking is a new state: reading all of them again would take quadratic time."""
    await desk.filled(2)
    for number in range(3):
        await desk.performance.book(SYMBOLS[0], claim(f"t{number}"), "fill", WHO)
    state, _ = await desk.performance.contexts.present(desk.database)
    async with desk.database.read() as unit:
        connection, statements = unit.connection, list[int]()

        class Counting:
            async def execute(self, statement: Any, *arguments: Any) -> Any:
                result = (await connection.execute(statement, *arguments)).all()
                statements.append(len(result))
                return result

        trades = TradeRepository(cast("AsyncConnection", Counting()))
        members = state.portfolio.members
        assert await trades.since_inclusion(members, state.booked) == state.booked
        assert await trades.since_inclusion(members) == state.booked
        assert await trades.since_inclusion(members[:1], state.booked) == replace(
            state.booked, included_at={members[0].symbol_id: members[0].included_at}
        )
    assert statements == [0, 3, 0]


async def test_fifty_at_once_book_one(desk: Desk) -> None:
    await desk.filled(2)
    calls = (desk.performance.book(SYMBOLS[0], claim(), "fill", WHO) for _ in range(50))
    seen = {outcome.result for outcome in await asyncio.gather(*calls)}
    assert len(seen) == 1
    assert len(await desk.performance.trades(None, 10)) == 1


async def test_what_cannot_be_booked(desk: Desk) -> None:
    await desk.filled(2)
    for wrong in (claim(currency="BTC"), claim(occurred_at=NOW + timedelta(hours=1))):
        with pytest.raises(RefusedError) as caught:
            await desk.performance.book(SYMBOLS[0], wrong, "x", WHO)
        assert caught.value.code is Code.VALIDATION_FAILED
    ahead = claim(occurred_at=NOW + timedelta(minutes=5, seconds=1))
    with pytest.raises(
        RefusedError, match=r"more than five minutes after the current time 2026-03-01T12:00:00Z"
    ):
        await desk.performance.book(SYMBOLS[0], ahead, "x", WHO)
    near = claim("t8", occurred_at=NOW + timedelta(minutes=5))  # clocks of two machines differ
    await desk.performance.book(SYMBOLS[0], near, "x", WHO)
    with pytest.raises(ConflictError) as stranger:
        await desk.performance.book(SYMBOLS[9], claim(), "x", WHO)
    assert stranger.value.code is Code.SYMBOL_NOT_IN_PORTFOLIO
    with pytest.raises(PreconditionFailedError):
        await desk.performance.book(SYMBOLS[0], claim(), "x", Command("a", "r", if_match=9))
    # A position may be closed after its member has left.
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    assert (await desk.performance.book(SYMBOLS[0], claim(), "late", WHO)).result is not None


async def test_a_result_from_before_its_member_came_in_is_refused(desk: Desk) -> None:
    await desk.filled(2)
    early = claim(occurred_at=NOW - timedelta(seconds=1))

    async def refused(one: ResultSubmission) -> RefusedError:
        with pytest.raises(RefusedError, match=r"before the inclusion of .* at ") as why:
            await desk.performance.book(SYMBOLS[0], one, "x", WHO)
        return why.value

    error = await refused(early)
    assert error.code is Code.VALIDATION_FAILED
    included = instant_text(NOW)
    assert error.facts == {"field": "occurred_at", "included_at": included}
    assert included in error.detail
    # It leaves and comes in again: results of the first stay are still taken, and none before it.
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    assert (await refused(early)).facts == error.facts
    desk.later(days=1)
    desk.score({})
    await desk.portfolio.add(SYMBOLS[0], "in", WHO)
    assert (await refused(early)).facts == error.facts
    booked = claim("t2", occurred_at=NOW)
    assert (await desk.performance.book(SYMBOLS[0], booked, "late", WHO)).result is not None
    assert len(await desk.performance.trades(None, 10)) == 1


async def test_trades_last_booked_first_by_symbol_and_period(desk: Desk) -> None:
    await desk.filled(2)
    desk.later(days=3)
    desk.score({})
    for number in range(4):
        when = desk.now - timedelta(days=number)
        name = SYMBOLS[number % 2]
        await desk.performance.book(name, claim(f"t{number}", occurred_at=when), "x", WHO)
    found = await desk.performance.trades(None, 3)
    assert [one.result.trade_id for one in found] == ["t3", "t2", "t1"]
    rest = await desk.performance.trades(found[-1].event_seq, 3)
    assert [one.result.trade_id for one in rest] == ["t0"]
    own = await desk.performance.trades(None, 9, symbol="C01/USDT:USDT")
    assert [one.result.trade_id for one in own] == ["t3", "t1"]
    recent = await desk.performance.trades(
        None, 9, since=desk.now - timedelta(days=1), until=desk.now
    )
    assert [one.result.trade_id for one in recent] == ["t1"]


def _mark(desk: Desk, prices: dict[str, str | None]) -> None:
    for name, price in prices.items():
        desk.quote(name, mark=None if price is None else Decimal(price))


async def test_the_equity_follows_weights_of_record_and_marks(desk: Desk) -> None:
    await desk.filled(2)  # twenty per cent each, the rest is cash
    desk.later(hours=2)
    desk.score({})
    _mark(desk, {SYMBOLS[0]: "11"})
    track = await desk.performance.load_history()
    assert track.days[0].equity == 1
    assert track.days[-1].equity == Decimal("1.02")
    await desk.portfolio.replace(SYMBOLS[0], SYMBOLS[2], "better", WHO)
    desk.later(hours=1)
    _mark(desk, {SYMBOLS[0]: "5", SYMBOLS[2]: "20"})
    track = await desk.performance.load_history()
    assert track.days[-1].equity == Decimal("1.224")
    assert [(one.old, one.new) for one in track.changes[-1].replacements] == [
        (SYMBOLS[0], SYMBOLS[2])
    ]
    held, _ = await desk.performance.positions()
    by_name = {one.member.symbol: one for one in held}
    assert by_name[SYMBOLS[2]].since_inclusion == Decimal("0.204")
    assert by_name[SYMBOLS[2]].unrealized == Decimal("0.204")
    assert by_name[SYMBOLS[1]].unrealized == 0
    index, *booked = (await desk.performance.attribution(30))[0]
    assert booked == []
    assert index.basis is AttributionMethod.INDEX
    assert index.change == Decimal("0.224")
    assert total(line.contribution for line in index.symbols) == index.change
    assert {line.name: line.weight_u for line in index.symbols}[SYMBOLS[0]] is None


async def test_closes_of_days_lie_between_the_changes(desk: Desk) -> None:
    await desk.filled(3)
    desk.later(days=3)
    for interval in desk.market.panels:
        desk.market.panels[interval] = panel(interval, desk.now)
    track = await desk.performance.load_history()
    ends = [day.at for day in track.days]
    assert len(ends) == 5
    assert {end.hour for end in ends[1:4]} == {0}
    assert all(day.equity is not None for day in track.days)
    assert sum((day.pnl or Decimal(0)) for day in track.days) == (
        (track.days[-1].equity or Decimal(0)) - 1
    )


async def test_an_unknown_mark_makes_the_figure_unknown_with_its_reason(desk: Desk) -> None:
    await desk.filled(2)
    desk.later(hours=1)
    _mark(desk, {SYMBOLS[0]: None})
    track = await desk.performance.load_history()
    assert track.days[-1].equity is None
    assert track.days[-1].reason == f"no price of {SYMBOLS[0]} is known"
    held, _ = await desk.performance.positions()
    assert (held[0].unrealized, held[0].since_inclusion) == (None, None)
    assert held[0].reason == "its mark price is unknown"
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    _mark(desk, {SYMBOLS[0]: "10"})
    desk.later(hours=1)
    broken = await desk.performance.load_history()
    assert broken.curve.broken is not None
    assert broken.days[-1].equity is None
    held, _ = await desk.performance.positions()
    assert held[0].since_inclusion is None
    assert held[0].reason == broken.curve.broken
    assert broken.sector("NOSUCH") == "unclassified"


async def test_without_a_panel_there_is_the_start_and_now(desk: Desk) -> None:
    await desk.filled(2)
    desk.market.panels.clear()
    desk.later(days=2)
    assert [day.equity for day in (await desk.performance.load_history()).days] == [1, 1]


@pytest.mark.parametrize("statement", ["UPDATE trades SET fees = fees", "DELETE FROM trades"])
async def test_H1_a_booked_trade_is_never_altered(desk: Desk, statement: str) -> None:
    await desk.filled(2)
    await desk.performance.book(SYMBOLS[0], claim(), "fill", WHO)
    with pytest.raises(ServiceError, match="the database rejected"):
        async with desk.database.write() as unit:
            await unit.connection.exec_driver_sql(statement)
    (kept,) = await desk.performance.trades(None, 9)
    assert kept.result.pnl == Decimal("12.5")
