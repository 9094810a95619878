"""A member whose price changes its unit: no figure takes that for a gain or a loss."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import pytest

from app.alerts.domain.models import AlertRule
from app.alerts.services.service import AlertFilter
from app.configuration.domain.model import Configuration
from app.foundation.sql.database import Database
from app.market.domain.models import STORED, Interval
from app.market.domain.panel import FIELDS, Panel
from app.market.domain.price_quarantine import QuarantineReason
from app.market.services.backfill import first_fill
from app.market.storage.symbols import SymbolRepository
from app.portfolio.domain.returns import SinceInclusion
from app.portfolio.domain.risk import Risk, compute_risk
from app.portfolio.storage.history import HistoryRepository
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from app.trading.domain.position_sizing import PositionSize
from tests.support.live_market import open_market
from tests.support.trading_desk import SYMBOLS, WHO, Desk, panel, symbol_id

CHANGED = SYMBOLS[0]
SPEC = AlgorithmSpec("default", Configuration().family_weights)
RATIOS = pytest.mark.parametrize("ratio", [Decimal("0.001"), Decimal(1000)])


def _flat(desk: Desk, ratio: Decimal, *, at_hours_ago: int | None) -> None:
    """Closes of 10 up to now; those of one symbol since then in a unit that is `ratio` as dear."""
    for interval in STORED:
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
    desk.quote(CHANGED, mark=10 * ratio, quarantine_reason=QuarantineReason.LOT_CHANGED)
    assert (await desk.performance.load_history()).days[-1].equity is None
    desk.quote(CHANGED, quarantine_reason=None)


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
    for interval in STORED:
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


def _in_the_middle_of_a_bar(whole: Panel, ratio: Decimal, bars_ago: int) -> tuple[Panel, Panel]:
    """The changed symbol opens one bar in the old unit and closes it in the new one.

    And the same panel with its bars after that one only.
    """
    column, row = whole.symbols.index(CHANGED), len(whole.close) - bars_ago
    close, opened = whole.close.copy(), np.vstack([whole.close[:1], whole.close[:-1]])
    close[:row, column] /= float(ratio)
    opened[: row + 1, column] /= float(ratio)
    fields: dict[str, Any] = {
        "open": opened,
        "high": np.maximum(opened, close),
        "low": np.minimum(opened, close),
        "close": close,
    }
    young: dict[str, Any] = {name: values.copy() for name, values in fields.items()}
    for values in young.values():
        values[: row + 1, column] = np.nan
    return replace(whole, **fields), replace(whole, **young)


async def _numbers(desk: Desk) -> tuple[list[PositionSize], Risk, int]:
    """Sizes of two members, hypothetical performance and the number of new technical signals."""
    sizes = [
        (await desk.trading.position_size(name, Decimal(10_000), Decimal(2)))[0].size
        for name in (CHANGED, SYMBOLS[1])
    ]
    board = desk.boards.board
    assert board is not None
    desk.boards.board = replace(board, run_id=f"{board.run_id}+")
    signals = await desk.signal_sources.poll()
    return sizes, (await desk.metrics.metrics()).risk, signals


@RATIOS
@pytest.mark.parametrize("has_hours", [True, False])
async def test_redenomination_inside_a_bar_changes_no_size_risk_or_signal(
    desk: Desk, ratio: Decimal, has_hours: bool
) -> None:
    """All numbers are those of a symbol whose history begins after the bar."""
    await desk.filled(5)
    limits = {"var_limit": 0.02, "volatility_target": 0.3}
    await desk.configuration.put({"sizing": limits}, "calm", WHO)
    daily = _in_the_middle_of_a_bar(panel(Interval.DAY, desk.now), ratio, 50)
    hourly = _in_the_middle_of_a_bar(panel(Interval.HOUR, desk.now), ratio, 1)
    found = []
    for which in (1, 0, 1):
        desk.market.panels[Interval.DAY] = daily[which]
        desk.market.panels[Interval.HOUR] = hourly[which]
        if not has_hours:
            del desk.market.panels[Interval.HOUR]
        found.append(await _numbers(desk))
    young, broken, again = found
    assert broken == again == young
    sizes, risk, signals = young
    assert [one.lots > 0 and one.binding == "portfolio_var" for one in sizes] == [True, True]
    assert signals == 0
    assert risk.volatility is not None
    assert 0.1 < risk.volatility < 1.0


@RATIOS
async def test_lots_prove_a_redenomination_inside_an_hour_before_the_day_has_closed(
    desk: Desk, ratio: Decimal
) -> None:
    """Its daily bar is not there yet, and the mark stands in the unit of the newest hour."""
    await desk.filled(5)
    _flat(desk, Decimal(1), at_hours_ago=None)
    desk.later(hours=2, minutes=30)
    await _lots_changed(desk, ratio)
    desk.later(hours=1)
    whole = panel(Interval.HOUR, desk.now)
    column = whole.symbols.index(CHANGED)
    close, opened = np.full_like(whole.close, 10.0), np.full_like(whole.close, 10.0)
    close[-1, column] *= float(ratio)
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    desk.market.panels[Interval.HOUR] = replace(whole, open=opened, high=high, low=low, close=close)
    async with desk.database.read() as unit:
        records = await unit.get(SymbolRepository).all()
    (record,) = (one for one in records if one.symbol == CHANGED)
    desk.quote(CHANGED, mark=10 * ratio, contract=record.contract, lot_changes=record.lot_changes)
    desk.score({})
    last = (await desk.performance.load_history()).days[-1]
    assert last.equity is None
    assert last.reason is not None
    assert f"{CHANGED} was redenominated" in last.reason
    for mark in (10 * ratio, None):  # None: the exchange gave no mark
        desk.quote(CHANGED, mark=mark)
        positions, _ = await desk.performance.positions()
        assert positions[0].figures == SinceInclusion(None, None, None)
    assert not await desk.rebalancing.has_drifted()


@pytest.mark.parametrize(
    ("ratio", "is_anomaly"),
    [(Decimal("0.001"), False), (Decimal(1000), False), (Decimal("0.75"), True)],
)
async def test_price_anomaly_needs_a_close_in_the_unit_of_the_mark(
    desk: Desk, ratio: Decimal, is_anomaly: bool
) -> None:
    """Hourly bars show the exchange; the daily bar that contains it has not closed."""
    await desk.filled(5)
    desk.score({})
    for interval in STORED:  # the newest close of both is 10
        whole = panel(interval, desk.now)
        close = whole.close / whole.close[-1:] * 10.0
        opened = np.vstack([close[:1], close[:-1]])
        if interval is Interval.HOUR:
            for values in (opened, close):
                values[-1, whole.symbols.index(CHANGED)] = 10.0 * float(ratio)
        desk.market.panels[interval] = replace(
            whole, open=opened, high=close, low=close, close=close
        )
    desk.quote(CHANGED, mark=10 * ratio)
    alerts, _ = await desk.alerts.list(AlertFilter())
    found = [one.subject for one in alerts if one.rule is AlertRule.PRICE_ANOMALY]
    assert found == ([CHANGED] if is_anomaly else [])


CODE, NAME, DAY_S = "ETHUSDTM", "ETHUSDT", 86_400


def _begun(whole: Panel) -> tuple[Panel, int]:
    """The panel with later bars of the symbol only than the one of two units; its place or -1."""
    column = whole.symbols.index(NAME)
    moved = np.abs(np.log10(whole.close[:, column] / whole.open[:, column]))
    rows = np.flatnonzero(moved > 2.5).tolist()
    fields = {name: getattr(whole, name).copy() for name in FIELDS}
    for values, row in product(fields.values(), rows):
        values[: row + 1, column] = np.nan
    return replace(whole, **fields), max(rows, default=-1)


@RATIOS
@pytest.mark.parametrize(("days", "has_hours"), [(3, True), (60, False)])
@pytest.mark.parametrize("is_restarted", [True, False])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_exchange_that_redenominates_inside_a_day_is_scored_from_the_next_day_on(
    database: Database, ratio: Decimal, days: int, has_hours: bool, is_restarted: bool
) -> None:
    """Over sockets; the day and the hour of the change hold both units."""
    async with open_market(database, contracts=24) as live:
        data = live.market()
        await first_fill(data)
        changed_ms = live.clock.wall() * 1000.0
        event = {"kind": "redenomination", "symbol": CODE, "ratio": float(ratio)}
        await live.post("events", event)
        for _ in range(10):  # until the value of a lot is confirmed
            live.clock.pass_(60)
            await data.refresh_market()
        live.clock.pass_(days * DAY_S)
        if is_restarted:
            data = live.market()
            await data.registry.load()
        await first_fill(data)
        inputs = data.scoring_inputs()
    daily, row = _begun(inputs.daily)
    assert row == len(daily.close) - days
    hourly, hour = _begun(inputs.hourly)
    assert (hour >= 0) == has_hours
    found = score(inputs, SPEC)
    assert found.cards == score(replace(inputs, daily=daily, hourly=hourly), SPEC).cards
    card = next(one for one in found.cards if one.symbol == NAME)
    if has_hours:
        assert (card.volatility, card.reason) == (None, "insufficient_inputs")
    else:
        assert card.volatility is not None
        assert 0.1 < card.volatility < 2.0
        assert card.composite is not None
    coins = inputs.open_interest[inputs.open_interest_ms <= changed_ms]
    is_changed = np.array([one == NAME for one in inputs.symbols])
    assert len(coins) == (1 if has_hours else 0)  # sixteen days are in memory
    assert np.isnan(coins[:, is_changed]).all()
    assert np.isfinite(coins[:, ~is_changed]).all()
    assert np.isfinite(inputs.open_interest[-1]).all()
    weights = {NAME: 1.0}
    assert compute_risk(inputs.daily, weights) == compute_risk(daily, weights)
