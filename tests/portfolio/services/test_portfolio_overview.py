"""Statistics, analytics, correlation, history and integrity of a real portfolio."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from app.foundation.sql.database import UnitOfWork
from app.market.domain.models import Interval
from app.market.domain.panel import Panel
from app.performance.services.report import ReportService
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.returns import SinceInclusion
from app.portfolio.domain.risk import compute_risk
from app.scoring.domain.board import Board, Card
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk, panel


def _grown(desk: Desk, interval: Interval, bars: int, step: float) -> None:
    """The panel goes on for `bars` after the present, each close `step` away from the last."""
    panel = desk.market.panels[interval]
    opened = panel.opened_ms[-1] + interval.ms * np.arange(1, bars + 1)
    signs = np.where(np.arange(bars) % 2 == 0, 1.0 + step, 1.0 - step / 2)[:, None]
    close = np.concatenate([panel.close, panel.close[-1] * np.cumprod(signs, axis=0)])
    longer = np.concatenate([panel.opened_ms, opened])
    desk.market.panels[interval] = Panel(
        interval, panel.symbols, longer, close, close, close, close, close, close
    )


async def test_an_empty_portfolio_has_no_invented_figures(desk: Desk) -> None:
    await desk.open()
    shown = await desk.queries.statistics()
    assert (shown.total_symbols, shown.max_portfolio_size) == (0, 10)
    assert (shown.average_score, shown.score_range, shown.average_performance) == (None,) * 3
    figures = await desk.analytics.summary()
    assert (figures.total_score, figures.figures.sharpe) == (None, None)
    assert figures.figures.observations == 0
    assert (await desk.queries.correlation()).average is None
    assert (await desk.integrity.check()).ok


async def test_statistics_and_analytics(desk: Desk) -> None:
    await desk.filled()
    for place, symbol in enumerate(SYMBOLS[:10]):
        desk.quote(symbol, sector=("defi", "unclassified")[place % 2])
    desk.quote(SYMBOLS[0], mark=Decimal(11))
    desk.quote(SYMBOLS[1], mark=None)
    shown = await desk.queries.statistics()
    assert shown.average_score == pytest.approx(0.99 - 0.015 * 4.5)
    assert shown.score_range == (0.99 - 0.015 * 9, 0.99)
    assert shown.replacement_candidates == 2
    assert shown.sector_distribution == {"defi": 5, "unclassified": 5}
    assert shown.average_performance == pytest.approx(0.1 / 9)
    assert shown.average_volatility is None
    figures = await desk.analytics.summary()
    assert figures.top_performers[0][0] == SYMBOLS[0]
    assert figures.top_performers[0][1] == pytest.approx(0.1)
    assert [name for name, _ in figures.lowest_scorers] == [SYMBOLS[9], SYMBOLS[8], SYMBOLS[7]]
    assert figures.replacement_candidates == (SYMBOLS[9], SYMBOLS[8])
    assert figures.figures.sharpe is None
    candidates, _ = await desk.queries.replacement_candidates()
    assert [(one.member.symbol, one.replacement_priority) for one in candidates] == [
        (SYMBOLS[9], 1),
        (SYMBOLS[8], 2),
    ]


async def test_figures_since_inclusion_come_from_closed_bars(desk: Desk) -> None:
    await desk.filled(5)
    for interval, bars in ((Interval.HOUR, 10 * 24), (Interval.DAY, 10)):
        _grown(desk, interval, bars, 0.02)
    desk.later(days=10)
    desk.score({})
    view = await desk.portfolio.view()
    assert all(one.figures.volatility for one in view.members)
    assert all(one.figures.max_drawdown for one in view.members)
    figures = (await desk.analytics.summary()).figures
    # From noon to the first close, nine whole days, and the part of a day up to now.
    assert figures.observations == 1 + 9 + 1
    assert (figures.sharpe, figures.win_rate) == (None, None)
    assert figures.reason == "11 observations, 30 are needed"
    assert figures.max_drawdown is not None
    assert figures.max_drawdown >= 0.01
    later = replace(figures, observations=30)
    assert later.reason is None


@pytest.mark.parametrize("hours", [3.0, 15.0])
async def test_a_loss_before_the_first_close_does_not_vanish(desk: Desk, hours: float) -> None:
    """Included at noon: 40 % are lost by midnight, whether that close has come yet or not."""
    await desk.filled(5)
    for symbol in SYMBOLS[:5]:
        desk.quote(symbol, mark=Decimal(6))
    whole = panel(Interval.DAY, NOW + timedelta(days=1))
    close = whole.close.copy()
    close[-1] = 6.0
    desk.market.panels[Interval.DAY] = replace(whole, close=close)
    desk.later(hours=hours)
    desk.score({})
    figures = (await desk.analytics.summary()).figures
    assert figures.max_drawdown == pytest.approx(0.4)
    assert figures.growth == pytest.approx(-0.4)
    assert (figures.sharpe, figures.sharpe_standard_error, figures.calmar) == (None, None, None)
    assert (await desk.reporting.report(None, None)).figures == figures


async def test_thirty_days_with_a_loss_on_the_first_have_its_ratios(desk: Desk) -> None:
    await desk.filled(5)
    desk.later(days=31)
    whole = panel(Interval.DAY, desk.now)
    close = whole.close.copy()
    close[-31:] = (6.0 * 1.001 ** np.arange(31))[:, None]
    desk.market.panels[Interval.DAY] = replace(whole, close=close)
    for symbol in SYMBOLS[:5]:
        desk.quote(symbol, mark=Decimal(repr(float(close[-1, 1]))))
    desk.score({})
    figures = (await desk.analytics.summary()).figures
    assert figures.observations == 32
    assert figures.max_drawdown == pytest.approx(0.4)
    assert figures.sharpe is not None
    assert figures.sharpe < -2.0, "of the whole days alone it would be in the hundreds"
    assert figures.profit_factor == pytest.approx(30 * 0.001 / 0.4)


async def test_of_a_member_that_was_redenominated_nothing_since_inclusion_is_known(
    desk: Desk,
) -> None:
    await desk.filled(5)
    _grown(desk, Interval.HOUR, 240, 0.02)
    whole = desk.market.panels[Interval.HOUR]
    column = whole.symbols.index(SYMBOLS[0])
    prices = {name: getattr(whole, name).copy() for name in ("open", "high", "low", "close")}
    for values in prices.values():
        values[-30:, column] *= 1000.0
    prices["open"][-30, column] = prices["close"][-30, column]
    desk.market.panels[Interval.HOUR] = replace(whole, **prices)
    desk.later(days=10)
    desk.score({})
    by_name = {one.member.symbol: one.figures for one in (await desk.portfolio.view()).members}
    assert by_name.pop(SYMBOLS[0]) == SinceInclusion(None, None, None)
    assert all(one.max_drawdown for one in by_name.values())


async def test_analytics_and_report_tell_the_same_of_the_weights_in_force_each_day(
    desk: Desk,
) -> None:
    await desk.filled(5)
    _grown(desk, Interval.DAY, 5, 0.02)
    desk.later(days=5)
    desk.score({})
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    await desk.portfolio.add(SYMBOLS[30], "in", WHO)
    await desk.rebalancing.rebalance(WHO)
    panel = desk.market.panels[Interval.DAY]
    _grown(desk, Interval.DAY, 6, 0.03)
    grown = desk.market.panels[Interval.DAY]
    close = grown.close.copy()
    lost = len(panel.opened_ms) + 2
    close[lost, grown.symbols.index(SYMBOLS[1])] = np.nan
    desk.market.panels[Interval.DAY] = replace(grown, close=close)
    desk.later(days=6)
    desk.score({})

    told = (await desk.analytics.summary()).figures
    report = await desk.reporting.report(None, None)
    assert told == report.figures
    changes = [day.change for day in report.days]
    assert changes.count(None) == 1 + 2, "the start, and the two returns that need the lost close"
    # The return over the lost close stands for both.
    assert told.observations == len(report.days) - 1 - 1
    last = report.days[-1].equity
    assert last is not None
    assert told.growth == pytest.approx(float(last) - 1.0)
    # Who left counts as long as it was held, and who came in from then on.
    held = [set(step.weights) for step in (await desk.performance.load_history()).changes]
    assert (SYMBOLS[0] in held[0], SYMBOLS[0] in held[-1], SYMBOLS[30] in held[-1]) == (
        True,
        False,
        True,
    )


async def test_the_report_attributes_all_of_its_equity_though_time_passes_meanwhile(
    desk: Desk,
) -> None:
    await desk.filled(3)
    desk.quote(SYMBOLS[0], mark=Decimal(11))
    moments = (desk.now + timedelta(minutes=passed) for passed in count(1))
    context = replace(desk.performance.contexts, clock=lambda: next(moments))
    report = await ReportService(replace(desk.performance, contexts=context)).report(None, None)
    (index,) = report.ledgers
    assert index.end_at == report.created_at == report.days[-1].at
    assert index.change == (report.days[-1].equity or 0) - 1 > 0


async def test_the_active_return_is_explained_by_sector_against_the_equal_weight_universe(
    desk: Desk,
) -> None:
    await desk.filled(4)
    for place, symbol in enumerate(SYMBOLS):
        desk.quote(symbol, sector=("layer-1", "meme", "defi")[place % 3])
    desk.later(days=4)
    whole = panel(Interval.DAY, desk.now)
    lost = whole.close.copy()
    lost[-2:, whole.symbols.index(SYMBOLS[50])] = np.nan  # no part of the universe of those days
    desk.market.panels[Interval.DAY] = replace(whole, close=lost)
    desk.score({})
    _, made, _ = await desk.performance.attribution(30)
    assert (made.days, made.reason) == (3, None)

    # Independently, in binary: closes, 20 % each at the first close of 10, the rest cash.
    names = list(whole.symbols)
    closes = lost[-4:]
    returns = closes[1:] / closes[:-1] - 1.0
    universe = [float(np.nanmean(day)) for day in returns]
    members = [names.index(symbol) for symbol in SYMBOLS[:4]]
    value = 0.2 + 0.8 * closes[:, members].mean(axis=1) / 10.0
    ours = float(value[-1] / value[0] - 1.0)
    theirs = float(np.prod([1.0 + one for one in universe]) - 1.0)
    assert float(made.portfolio or 0) == pytest.approx(ours, abs=1e-12)
    assert float(made.universe or 0) == pytest.approx(theirs, abs=1e-12)
    assert sum(one.total for one in made.sectors) == made.active
    assert {one.sector for one in made.sectors} == {
        "layer-1",
        "meme",
        "defi",
        "unclassified",
        "cash",
    }

    def scale(p: float, b: float) -> float:
        return float((np.log1p(p) - np.log1p(b)) / (p - b))

    sectors = np.array(["unclassified"] + [("layer-1", "meme", "defi")[at % 3] for at in range(60)])
    allocation = 0.0
    for day in range(3):
        inside = (sectors == "layer-1") & np.isfinite(returns[day])
        there = inside.sum() / np.isfinite(returns[day]).sum()
        here = 0.2 * (closes[day, members[0]] + closes[day, members[3]]) / 10.0 / value[day]
        effect = (here - there) * (returns[day][inside].mean() - universe[day])
        grown = float(value[day + 1] / value[day] - 1.0)
        allocation += effect * scale(grown, universe[day]) / scale(ours, theirs)
    by_name = {one.sector: one for one in made.sectors}
    assert float(by_name["layer-1"].allocation) == pytest.approx(allocation, abs=1e-12)


async def test_the_active_return_of_what_is_not_known_is_null_with_its_reason(desk: Desk) -> None:
    await desk.filled(2)
    desk.later(hours=3)
    _, young, _ = await desk.performance.attribution(30)
    assert (young.active, young.reason) == (
        None,
        "there was no whole day with a position in the period",
    )
    desk.later(days=4)
    whole = panel(Interval.DAY, desk.now)
    lost = whole.close.copy()
    lost[-2, whole.symbols.index(SYMBOLS[0])] = np.nan
    desk.market.panels[Interval.DAY] = replace(whole, close=lost)
    desk.score({})
    _, gap, _ = await desk.performance.attribution(30)
    assert (gap.active, gap.sectors) == (None, ())
    assert gap.reason == f"no price of {SYMBOLS[0]} is known"


async def test_integrity_is_worked_out_beside_the_event_loop(desk: Desk) -> None:
    await desk.filled(3)
    board = desk.boards.board
    assert board is not None
    threads = set()

    class Watched(Board):
        def card(self, symbol: str) -> Card | None:
            threads.add(threading.get_ident())
            return super().card(symbol)

    desk.boards.board = Watched(
        **{one.name: getattr(board, one.name) for one in fields(board) if one.init}
    )
    assert (await desk.integrity.check()).ok
    assert threads
    assert threading.get_ident() not in threads


async def test_daily_bars_serve_where_hourly_ones_do_not_reach_back(desk: Desk) -> None:
    await desk.filled(2)
    _grown(desk, Interval.DAY, 10, 0.02)
    hourly = desk.market.panels[Interval.HOUR]
    late = hourly.opened_ms + 20 * Interval.DAY.ms
    desk.market.panels[Interval.HOUR] = replace(hourly, opened_ms=late)
    desk.later(days=10)
    daily = (await desk.portfolio.view()).members[0].figures.volatility
    del desk.market.panels[Interval.HOUR]
    assert (await desk.portfolio.view()).members[0].figures.volatility == daily
    assert daily is not None
    del desk.market.panels[Interval.DAY]
    assert (await desk.portfolio.view()).members[0].figures.volatility is None


async def test_the_close_of_the_bar_in_which_a_member_came_in_counts_to_its_drawdown(
    desk: Desk,
) -> None:
    await desk.open()
    desk.later(minutes=10)
    await desk.portfolio.initialize(2, "start", WHO)
    desk.later(hours=1)
    hourly = panel(Interval.HOUR, desk.now)
    close = hourly.close.copy()
    close[-2:] = [[3.0], [4.0]]  # the bar before it came in, and the bar in which it did
    desk.market.panels[Interval.HOUR] = replace(hourly, close=close)
    view = await desk.portfolio.view()
    assert [one.figures.max_drawdown for one in view.members] == [0.6, 0.6]


async def test_correlation_of_all_pairs(desk: Desk) -> None:
    await desk.filled(4)
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    close[:, panel.symbols.index(SYMBOLS[1])] = close[:, panel.symbols.index(SYMBOLS[0])]
    close[-20:, panel.symbols.index(SYMBOLS[3])] = np.nan
    desk.market.panels[Interval.DAY] = replace(panel, close=close)
    shown = await desk.queries.correlation()
    assert (shown.days, shown.basis) == (30, "residual")
    assert shown.correlations[f"{SYMBOLS[0]}-{SYMBOLS[1]}"] == pytest.approx(1.0)
    assert len(shown.correlations) == 3
    assert len(shown.warnings) == 2, "residual, and raw"
    assert shown.raw[f"{SYMBOLS[0]}-{SYMBOLS[1]}"] == pytest.approx(1.0)
    assert shown.raw_highest == pytest.approx(1.0)
    assert shown.raw_matrix[0][1] == pytest.approx(1.0)
    assert shown.not_applicable == {}
    assert shown.highest == pytest.approx(1.0)
    assert set(shown.unknown) == {f"{name}-{SYMBOLS[3]}" for name in SYMBOLS[:3]}
    assert len((await desk.queries.correlation(100)).correlations) == 6


async def test_history_by_page_symbol_and_type(desk: Desk) -> None:
    await desk.filled(3)
    desk.later(minutes=1)
    await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[7], "better", WHO)
    every = await desk.queries.history(None, 99)
    assert [event.seq for event in every] == [6, 5, 4, 3, 2, 1]
    assert await desk.queries.history(5, 2) == every[2:4]
    of_old = await desk.queries.history(None, 99, symbol="c01usdt")
    assert [event.type for event in of_old] == [EventType.REPLACE, EventType.ADD]
    weights = await desk.queries.history(None, 99, kind=EventType.WEIGHTS)
    assert len(weights) == 2
    assert weights[0].occurred_at == NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE portfolio_members SET weight_u = weight_u - 1", "sum_of_weights"),
        ("UPDATE portfolio_members SET rank = rank + 5", "ranks"),
        ("UPDATE portfolio SET cash_u = cash_u - 1", "sum_of_weights"),
        ("UPDATE portfolio SET version = version + 1", "history_folds_to_state"),
        ("UPDATE portfolio SET configuration_version = 9", "configuration_version"),
    ],
)
async def test_integrity_says_what_is_wrong(desk: Desk, statement: str, broken: str) -> None:
    await desk.filled(3)
    assert (await desk.integrity.check()).ok
    async with desk.database.write() as unit:
        await unit.connection.execute(text(statement))
    checked = await desk.integrity.check()
    wrong = {one.name for one in checked.invariants if not one.ok}
    assert not checked.ok
    assert {broken, "history_folds_to_state"} <= wrong


async def test_a_weight_above_a_lowered_maximum_is_named(desk: Desk) -> None:
    await desk.filled(3)
    await desk.configuration.put({"max_weight_percentage": 15}, "lower", WHO)
    wrong = [one for one in (await desk.integrity.check()).invariants if not one.ok]
    assert [one.name for one in wrong] == ["bounds"]
    await desk.rebalancing.rebalance(WHO)
    assert (await desk.integrity.check()).ok


class ChangedMeanwhile:
    """A database in which a member leaves right after each look of whoever has it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.leaves = desk, list(SYMBOLS[:2])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.desk.database, name)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self.desk.database.read() as unit:
            yield unit
        await self.desk.portfolio.remove(self.leaves.pop(), "meanwhile", WHO)


async def test_metrics_and_their_correlation_are_of_one_state(desk: Desk) -> None:
    await desk.filled(4)
    moving: Any = ChangedMeanwhile(desk)
    seen = await replace(desk.metrics, database=moving).metrics()
    assert moving.leaves == [SYMBOLS[0]]  # it looked once
    assert len(seen.scores) == len(seen.correlation.symbols) == len(seen.risk.contributions) == 4
    after = await desk.metrics.metrics()
    assert len(after.scores) == len(after.correlation.symbols) == 3
    assert len(after.risk.contributions) == 3


async def test_risk_is_worked_out_once_for_the_same_bars_and_weights(desk: Desk) -> None:
    await desk.filled(4)
    first = (await desk.metrics.metrics()).risk
    desk.score({})
    assert (await desk.metrics.metrics()).risk is first
    _grown(desk, Interval.DAY, 3, 0.02)
    assert (await desk.metrics.metrics()).risk is not first


async def test_risk_is_of_the_weights_to_which_prices_have_carried_them(desk: Desk) -> None:
    await desk.filled(4)
    even = (await desk.metrics.metrics()).risk
    desk.quote(SYMBOLS[0], mark=Decimal(30))
    held = (await desk.metrics.metrics()).risk
    # A fifth each and a fifth in cash: what has trebled is worth three of seven by now.
    weights = dict.fromkeys(SYMBOLS[:4], 0.1429) | {SYMBOLS[0]: 0.4286}
    assert held == compute_risk(desk.market.panel(Interval.DAY), weights)
    assert held.tails != even.tails
    desk.quote(SYMBOLS[0], mark=Decimal("30.001"))
    assert (await desk.metrics.metrics()).risk is held
