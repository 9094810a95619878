"""A mark that nobody knew at a change is looked up among the stored bars, on both databases."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from app.market.domain.models import CandleSeries, Interval
from app.market.domain.price_quarantine import QuarantineReason
from app.market.storage.candles import CandleRepository
from app.performance.domain.backfilled_marks import MAX_GAP_AGE, BackfilledMark
from app.performance.services.service import ValuationSnapshots
from app.portfolio.storage.history import HistoryRepository
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk, symbol_id

GONE = SYMBOLS[0]
SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
HOUR = timedelta(hours=1)
LEFT_AT = NOW + timedelta(minutes=30)


async def bar(
    desk: Desk, opened_at: datetime, close: float, volume: float = 5.0, number: int = 0
) -> None:
    """A stored hourly bar, of the first of all symbols if no other is named."""
    price = np.array([close])
    opened = np.array([int(opened_at.timestamp() * 1000)])
    series = CandleSeries(opened, price, price, price, price, np.array([volume]), price)
    async with desk.database.write() as unit:
        await unit.get(CandleRepository).save({symbol_id(number): series}, Interval.HOUR)


async def left_without_a_mark(desk: Desk, **changed: Any) -> None:
    """Two members at twenty per cent each; one leaves, half an hour later, without a price."""
    await desk.filled(2)
    desk.later(minutes=30)
    desk.quote(GONE, **{"mark": None, **changed})
    await desk.portfolio.remove(GONE, "out", WHO)
    desk.quote(
        GONE, mark=Decimal(99), quarantine_reason=None
    )  # of later, which says nothing of then
    desk.later(hours=1)
    desk.score({})


async def now_of(desk: Desk) -> tuple[Decimal | None, str | None]:
    day = (await desk.performance.load_history()).days[-1]
    return day.equity, day.reason


async def weighed(desk: Desk) -> Mapping[str, Any]:
    """What the weighing of this moment, by which somebody comes in, keeps of the equity."""
    newcomer = SYMBOLS[2 + len(await desk.members())]
    await desk.portfolio.add(newcomer, "in", WHO)
    async with desk.database.read() as unit:
        weighing = await unit.get(HistoryRepository).last_weighting()
    assert weighing is not None
    assert weighing.occurred_at == desk.now
    kept: Mapping[str, Any] = weighing.payload["index"]
    return kept


async def test_a_member_that_left_without_a_mark_is_settled_at_the_close_of_that_hour(
    desk: Desk,
) -> None:
    await left_without_a_mark(desk)
    lost = f"the mark of {GONE} at version 2 is unknown"
    assert await now_of(desk) == (None, lost)
    # Neither the hour before nor the one after is of that moment.
    await bar(desk, NOW - HOUR, 7.0)
    await bar(desk, NOW + HOUR, 8.0)
    assert await now_of(desk) == (None, lost)
    kept = await weighed(desk)
    assert (kept["equity"], kept["broken"]) == (None, lost)
    await bar(desk, NOW, 12.5)
    # A fifth gained a quarter; the marks of the desk are 10.
    assert await now_of(desk) == (Decimal("1.05"), None)
    track = await desk.performance.load_history()
    stands = BackfilledMark(2, LEFT_AT, GONE, Decimal("12.5"), NOW)
    assert track.late == track.late_within(LEFT_AT, None) == (stands,)
    assert track.late_within(None, LEFT_AT) == track.late_within(LEFT_AT + HOUR, None) == ()
    report = await desk.reporting.report(None, None)
    assert report.late_marks == (stands,)
    mark = await ValuationSnapshots(desk.performance).record(desk.now)
    assert mark is not None
    assert mark.equity == Decimal("1.05")
    held, _ = await desk.performance.positions()
    assert {one.reason for one in held} == {None}
    assert (await desk.integrity.check()).ok


async def test_a_weighing_keeps_what_was_found_and_a_revised_bar_changes_it_no_more(
    desk: Desk,
) -> None:
    await left_without_a_mark(desk)
    broken = await weighed(desk)
    assert broken["broken_at"] == "2026-03-01T12:30:00.000000Z"
    await bar(desk, NOW, 12.5)
    desk.later(hours=1)
    desk.score({})
    first = await weighed(desk)
    assert Decimal(first["equity"]) == Decimal("1.05")
    (found,) = first["late_marks"]
    assert (found["symbol"], found["mark"], found["source"]) == (GONE, "12.5", "hourly_bar")
    await bar(desk, NOW, 20.0)
    assert await now_of(desk) == (Decimal("1.05"), None)
    (index, *_), _, _ = await desk.performance.attribution(30)
    assert (index.start, index.end) == (Decimal(1), Decimal("1.05")), "read from the beginning on"
    assert (await desk.integrity.check()).ok
    desk.later(hours=1)
    desk.score({})
    assert "late_marks" not in await weighed(desk), "the history has it already"
    assert (await desk.integrity.check()).ok


@SQLITE
async def test_weights_that_were_set_without_a_mark_are_measured_from_that_hour_on(
    desk: Desk,
) -> None:
    await desk.filled(2)
    desk.later(minutes=30)
    desk.quote(GONE, mark=None)
    desk.score({})
    kept = await weighed(desk)
    assert (kept["equity"], kept["broken_at"]) == (None, "2026-03-01T12:30:00.000000Z")
    desk.later(hours=1)
    desk.quote(GONE, mark=Decimal(15))
    assert (await now_of(desk))[0] is None
    await bar(desk, NOW, 12.0)
    # 1.04 after the first gain; a fifth of that gained another quarter since.
    assert await now_of(desk) == (Decimal("1.092"), None)


@SQLITE
@pytest.mark.parametrize("why", ["not_believed", "nobody_traded"])
async def test_a_price_that_was_not_believed_or_not_traded_at_stands_for_no_mark(
    desk: Desk, why: str
) -> None:
    doubt = QuarantineReason.MARK_OFF_INDEX if why == "not_believed" else None
    await left_without_a_mark(desk, quarantine_reason=doubt)
    await bar(desk, NOW, 12.5, volume=0.0 if why == "nobody_traded" else 5.0)
    equity, reason = await now_of(desk)
    assert equity is None
    assert reason is not None
    assert (await desk.performance.load_history()).late == ()


@SQLITE
async def test_what_is_missing_after_a_week_stays_unknown_whatever_is_asked(desk: Desk) -> None:
    await left_without_a_mark(desk)
    await weighed(desk)
    desk.later(days=MAX_GAP_AGE.days + 1)
    desk.score({})
    given_up = await weighed(desk)
    assert given_up["equity"] is None
    await bar(desk, NOW, 12.5)
    desk.later(hours=1)
    desk.score({})
    assert (await weighed(desk))["broken_at"] == given_up["broken_at"]
    for since in (None, NOW, desk.now - HOUR):
        track = await desk.performance.load_history(since)
        assert (track.days[-1].equity, track.late) == (None, ())
    assert (await desk.integrity.check()).ok
