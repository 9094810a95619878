"""A signal world whose prices go on: hourly bars in the database, boards kept, a clock to turn."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np

from app.market.domain.models import CandleSeries, Interval
from app.market.storage.candles import CandleRepository
from app.scoring.storage.runs import ScoringRepository
from tests.support.trading_desk import SYMBOLS, Desk, symbol_id

HOUR_MS = Interval.HOUR.ms


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def straight(starts_ms: int, gain: float, hours: int = 24) -> CandleSeries:
    """Bars from 10 to 10 (1 + gain), each opening where the last one closed."""
    path = np.linspace(10.0, 10.0 * (1.0 + gain), hours + 1)
    opened = starts_ms + HOUR_MS * np.arange(hours, dtype=np.int64)
    low, high = np.minimum(path[:-1], path[1:]), np.maximum(path[:-1], path[1:])
    one = np.ones(hours)
    return CandleSeries(opened, path[:-1].copy(), high, low, path[1:].copy(), one, one)


async def keep_board(desk: Desk, run_id: str = "board-1") -> None:
    board = desk.boards.board
    assert board is not None
    assert board.run_id == run_id
    async with desk.database.write() as unit:
        await unit.get(ScoringRepository).save(board, None)


async def moved(
    desk: Desk,
    starts: datetime,
    gains: Mapping[str, float],
    without: Iterable[str] = (),
    hours: int = 24,
) -> None:
    """What each symbol does in the hours from `starts` on: nothing unless `gains` says."""
    series = {
        symbol_id(at): straight(ms(starts), gains.get(symbol, 0.0), hours)
        for at, symbol in enumerate(SYMBOLS)
        if symbol not in set(without)
    }
    async with desk.database.write() as unit:
        await unit.get(CandleRepository).save(series, Interval.HOUR)


def pass_on(desk: Desk, **passed: float) -> None:
    """Time here and at the exchange."""
    desk.later(**passed)
    desk.market.seen_at = desk.now
