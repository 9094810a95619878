"""A member whose price changes its unit: no figure takes that for a gain or a loss."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest

from app.market.domain.models import Interval
from app.market.domain.panel import Panel
from app.market.domain.price_quarantine import Doubt
from app.market.storage.symbols import SymbolRepository
from app.portfolio.domain.returns import SinceInclusion
from app.portfolio.storage.history import HistoryRepository
from tests.support.desk import SYMBOLS, WHO, Desk, panel, symbol_id

CHANGED = SYMBOLS[0]
RATIOS = pytest.mark.parametrize("ratio", [Decimal("0.001"), Decimal(1000)])


def _flat(desk: Desk, ratio: Decimal, *, at_hours_ago: int | None) -> None:
    """Closes of 10 up to now; those of one symbol since then in a unit that is `ratio` as dear."""
    for interval in Interval:
        whole = panel(interval, desk.now)
        close = np.full_like(whole.close, 10.0)
        if at_hours_ago is not None:
            since = int((desk.now - timedelta(hours=at_hours_ago)).timestamp() * 1000)
            close[whole.opened_ms >= since, whole.symbols.index(CHANGED)] *= float(ratio)
        desk.market.panels[interval] = Panel(
            interval, whole.symbols, whole.opened_ms, close, close, close, close, close, close
        )


async def _redenominated(desk: Desk, ratio: Decimal, *, is_in_bars: bool) -> None:
    """Five members, in for ten days; the first is exchanged, doubted, and released again."""
    await desk.filled(5)
    desk.later(days=10)
    # The exchange comes at midnight, 60 hours ago, so that daily bars show it, too.
    _flat(desk, ratio, at_hours_ago=60 if is_in_bars else None)
    desk.score({})
    desk.quote(CHANGED, mark=10 * ratio, doubt=Doubt.LOT_CHANGED)
    assert (await desk.performance.load_history()).days[-1].equity is None
    desk.quote(CHANGED, doubt=None)


@RATIOS
@pytest.mark.parametrize("is_in_bars", [True, False])
async def test_no_figure_reaches_across_a_redenomination(
    desk: Desk, ratio: Decimal, is_in_bars: bool
) -> None:
    await _redenominated(desk, ratio, is_in_bars=is_in_bars)
    track = await desk.performance.load_history()
    first_unknown = next(day.at for day in track.days if day.equity is None)
    since = desk.now - timedelta(hours=36) if is_in_bars else desk.now
    assert first_unknown == since, "from the first price in the other unit on"
    for day in track.days:
        assert day.equity == (Decimal(1) if day.at < since else None)
        if day.at >= since:
            assert day.reason is not None
            assert f"{CHANGED} was redenominated after 2026-03-" in day.reason

    figures = (await desk.analytics.summary()).figures
    assert figures.growth == pytest.approx(0.0)
    assert figures.max_drawdown == pytest.approx(0.0)
    positions, _ = await desk.performance.positions()
    changed, *others = positions
    assert changed.member.symbol == CHANGED
    assert (changed.unrealized, changed.since_inclusion) == (None, None)
    assert changed.figures == SinceInclusion(None, None, None)
    assert changed.reason is not None
    assert "redenominated" in changed.reason
    assert all(one.unrealized == 0 and one.reason is None for one in others)

    (ledger, *_), active, _ = await desk.performance.attribution(30)
    assert all(line.contribution == 0 for line in (*ledger.symbols, *ledger.sectors))
    assert ledger.reason is not None
    assert "redenominated" in ledger.reason
    assert active.portfolio in {None, Decimal(0)}
    if is_in_bars:
        assert active.reason is not None
        assert "redenominated" in active.reason
    # Nor have prices carried its weight anywhere.
    assert not await desk.rebalancing.has_drifted()


@RATIOS
async def test_weighing_after_a_redenomination_keeps_why_the_equity_is_unknown(
    desk: Desk, ratio: Decimal
) -> None:
    """Also once no bar shows the exchange any more: the history proves it without them."""
    await _redenominated(desk, ratio, is_in_bars=False)
    await desk.portfolio.remove(SYMBOLS[4], "out", WHO)
    assert (await desk.integrity.check()).ok
    await desk.rebalancing.rebalance(WHO)
    async with desk.database.read() as unit:
        weighing = await unit.get(HistoryRepository).last_weighting()
    assert weighing is not None
    kept = weighing.payload["index"]
    assert kept["equity"] is None
    assert f"{CHANGED} was redenominated" in kept["broken"]
    assert (await desk.integrity.check()).ok

    desk.later(days=10)
    for interval in Interval:
        whole = panel(interval, desk.now)
        close = np.full_like(whole.close, 10.0)
        close[:, whole.symbols.index(CHANGED)] *= float(ratio)
        desk.market.panels[interval] = replace(
            whole, open=close, high=close, low=close, close=close
        )
    desk.score({})
    last = (await desk.performance.load_history()).days[-1]
    assert (last.equity, last.reason) == (None, kept["broken"])
    assert (await desk.integrity.check()).ok


async def test_position_that_is_opened_in_the_new_unit_is_valued(desk: Desk) -> None:
    """The exchange came before the first weights, in the very hour that no bar shows yet."""
    await desk.open()
    _flat(desk, Decimal(1), at_hours_ago=None)
    desk.quote(CHANGED, mark=Decimal("0.01"))
    await desk.portfolio.initialize(5, "start", WHO)
    desk.later(minutes=10)
    desk.quote(CHANGED, mark=Decimal("0.011"))
    positions, track = await desk.performance.positions()
    assert track.curve.broken is None
    changed = positions[0]
    assert changed.position is not None
    assert changed.unrealized == changed.position.notional / 10
    assert changed.figures.performance == pytest.approx(0.1)


@RATIOS
@pytest.mark.parametrize("number", [0, 5])
async def test_replacement_ledger_has_no_return_across_a_redenomination(
    desk: Desk, ratio: Decimal, number: int
) -> None:
    """Of the old member, and of the new one."""
    await desk.filled(5)
    old, new = (CHANGED, SYMBOLS[5]) if number == 0 else (SYMBOLS[1], CHANGED)
    if number:
        await desk.portfolio.remove(CHANGED, "out", WHO)
    desk.later(minutes=1)
    await desk.portfolio.replace(old, new, "better", WHO)
    desk.later(days=10)
    _flat(desk, ratio, at_hours_ago=60)
    desk.quote(CHANGED, mark=10 * ratio)
    desk.score({})
    (line,) = (await desk.reporting.replacements()).ledger.lines
    assert (line.old, line.new) == (old, new)
    assert (line.difference, line.net, line.outperformed) == (None, None, None)
    assert line.reason == f"{CHANGED} was redenominated since, so its return is unknown"
    for moment in line.path:
        assert {moment.old, moment.new} <= {0.0, None}
    assert (await desk.reporting.report(None, None)).replacements[0].reason == line.reason


async def _lots_changed(desk: Desk, ratio: Decimal) -> None:
    """Store another multiplier of the changed contract now: a lot of it keeps its value."""
    async with desk.database.write() as unit:
        symbols = unit.get(SymbolRepository)
        record = await symbols.get(symbol_id(0))
        assert record is not None
        contract = replace(record.contract, multiplier=record.contract.multiplier / ratio)
        await symbols.save([replace(record, contract=contract)], desk.now)


async def _restarted(desk: Desk, ratio: Decimal, *, days: int) -> None:
    """Time passes until no hourly bar shows the day; the registry is read from the database.

    Daily closes are in the new unit `days` days before now and later; the opens never leave the
    unit of the close before them.
    """
    desk.later(days=days)
    whole = panel(Interval.DAY, desk.now)
    close = np.full_like(whole.close, 10.0)
    column = whole.symbols.index(CHANGED)
    close[-days:, column] *= float(ratio)
    opened = np.vstack([close[:1], close[:-1]])
    desk.market.panels[Interval.DAY] = replace(
        whole,
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
    )
    hourly = panel(Interval.HOUR, desk.now)
    flat = np.full_like(hourly.close, 10.0)
    flat[:, column] *= float(ratio)
    desk.market.panels[Interval.HOUR] = replace(hourly, open=flat, high=flat, low=flat, close=flat)
    async with desk.database.read() as unit:
        records = await unit.get(SymbolRepository).all()
    (record,) = (one for one in records if one.symbol == CHANGED)
    mark = Decimal(repr(float(close[-1, column])))
    desk.quote(CHANGED, mark=mark, contract=record.contract, lot_changes=record.lot_changes)
    desk.score({})


@RATIOS
async def test_stored_lots_prove_a_redenomination_inside_one_daily_bar(
    desk: Desk, ratio: Decimal
) -> None:
    """After a restart, once the hourly bars of that day have left the memory."""
    await desk.filled(5)
    desk.later(days=2)
    begun = desk.now
    await _lots_changed(desk, ratio)
    await _restarted(desk, ratio, days=10)
    track = await desk.performance.load_history()
    for day in track.days:
        known = day.at <= begun
        assert day.equity == (Decimal(1) if known else None)
        assert known or (day.reason is not None and f"{CHANGED} was redenominated" in day.reason)
    assert track.days[-1].equity is None

    positions, _ = await desk.performance.positions()
    assert positions[0].unrealized is None
    assert positions[0].figures == SinceInclusion(None, None, None)
    assert not await desk.rebalancing.has_drifted()
    # A change of weights stores the reason, too.
    await desk.portfolio.remove(SYMBOLS[4], "out", WHO)
    await desk.rebalancing.rebalance(WHO)
    async with desk.database.read() as unit:
        weighing = await unit.get(HistoryRepository).last_weighting()
    assert weighing is not None
    assert weighing.payload["index"]["equity"] is None
    assert f"{CHANGED} was redenominated" in weighing.payload["index"]["broken"]


async def test_lots_of_another_size_are_no_redenomination(desk: Desk) -> None:
    """The price stays where it was."""
    await desk.filled(5)
    desk.later(days=2)
    await _lots_changed(desk, Decimal(1000))
    await _restarted(desk, Decimal(1), days=10)
    assert {day.equity for day in (await desk.performance.load_history()).days} == {Decimal(1)}


async def test_tenfold_price_with_the_same_lots_is_a_gain(desk: Desk) -> None:
    await desk.filled(5)
    desk.later(days=2)
    await _restarted(desk, Decimal(10), days=10)
    last = (await desk.performance.load_history()).days[-1]
    assert last.equity is not None
    assert last.equity > 2
