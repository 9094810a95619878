"""Figures of the portfolio, decisions and storage, and how seldom the slow ones are read."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import pytest

from app.foundation.errors import Code, UnavailableError
from app.foundation.metrics import Metrics
from app.operations.services.service_figures import (
    CACHED_S,
    CachedFigure,
    MemberFigures,
    ServiceFiguresReader,
)
from tests.support.trading_desk import SYMBOLS, WHO, Desk


@dataclass
class Source:
    """Slow source of a number, which can be away."""

    loads: int = 0
    now: float = 0.0
    is_away: bool = False
    figure: CachedFigure[int] = field(init=False)

    def __post_init__(self) -> None:
        self.figure = CachedFigure(self.load, lambda: self.now)

    async def load(self) -> int:
        self.loads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")
        return self.loads


async def test_a_slow_figure_is_loaded_once_a_minute_whoever_asks() -> None:
    source = Source()
    assert await asyncio.gather(*(source.figure.get() for _ in range(20))) == [1] * 20
    source.now = CACHED_S - 0.1
    assert await source.figure.get() == 1
    source.now = CACHED_S
    assert await asyncio.gather(*(source.figure.get() for _ in range(20))) == [2] * 20
    assert source.loads == 2


async def test_a_failed_load_is_tried_again() -> None:
    source = Source(is_away=True)
    with pytest.raises(UnavailableError):
        await source.figure.get()
    source.is_away = False
    assert await source.figure.get() == 2


async def test_figures_follow_prices_members_and_boards(desk: Desk) -> None:
    seconds = 0.0
    await desk.filled(5)
    reader = ServiceFiguresReader(
        desk.database, desk.performance.contexts, Metrics(), lambda: seconds
    )
    start = await reader.read()
    assert [one.symbol for one in start.members] == list(SYMBOLS[:5])
    assert all(one.drift_u == 0 for one in start.members)
    assert start.equity.index == Decimal(1)
    assert (start.equity.drawdown, start.equity.reason) == (0.0, None)
    assert start.board_age_s == 0.0
    assert start.database_bytes > 0
    desk.later(minutes=5)
    desk.quote(SYMBOLS[0], mark=Decimal(20))
    moved = await reader.read()
    weight = start.members[0].weight_u
    drifted = moved.members[0]
    assert drifted.weight_u == pytest.approx(2 * weight / (1 + weight / 1e8), abs=1)
    assert drifted == MemberFigures(SYMBOLS[0], drifted.weight_u, drifted.weight_u - weight, 0.99)
    assert moved.equity == start.equity, "at most a minute old"
    assert moved.board_age_s == 300.0
    seconds = CACHED_S
    risen = (await reader.read()).equity
    assert risen.index == 1 + Decimal(weight) / 100_000_000
    assert risen.as_of - start.equity.as_of == timedelta(minutes=5)
    await desk.portfolio.remove(SYMBOLS[4], "enough", WHO)  # sets the weights at the peak
    at_peak = await reader.read()
    assert [one.symbol for one in at_peak.members] == list(SYMBOLS[:4])
    desk.later(minutes=1)
    desk.quote(SYMBOLS[0], mark=Decimal(10))
    seconds *= 2
    fallen = (await reader.read()).equity
    expected = at_peak.members[0].weight_u / 100_000_000 / 2
    assert fallen.drawdown == pytest.approx(expected)
    assert fallen.max_drawdown == pytest.approx(expected)
    desk.quote(SYMBOLS[0], mark=None)
    seconds *= 2
    unknown = (await reader.read()).equity
    assert (unknown.index, unknown.drawdown) == (None, None)
    assert unknown.reason is not None


async def test_an_empty_portfolio_has_no_equity(desk: Desk) -> None:
    await desk.open()
    desk.boards.board = None
    reader = ServiceFiguresReader(desk.database, desk.performance.contexts, Metrics())
    figures = await reader.read()
    assert figures.members == ()
    assert figures.board_age_s is None
    assert (figures.equity.index, figures.equity.drawdown) == (None, None)
    assert figures.equity.reason == "the portfolio has had no member"
    assert figures.decisions == ()
