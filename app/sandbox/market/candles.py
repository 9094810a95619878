"""Candles of `/api/v1/kline/query`."""

import numpy as np

from app.sandbox.history.bars import CLOSE, HIGH, LOW, OPEN, Bars, aggregate_bars
from app.sandbox.history.universe import DAY_MS, HOUR_MS
from app.sandbox.market.price_path import MINUTE_MS, SimulatedMarket

GRANULARITIES = (1, 5, 15, 30, 60, 120, 240, 480, 720, 1440, 10080)
MAX_ROWS = 500
# Candles below an hour exist for the last day only; hours for 130 days.
MINUTES_KEPT_MS = DAY_MS
HOURS_KEPT_MS = 130 * DAY_MS
MONDAY_MS = 4 * DAY_MS

Row = list[float]


def candles(
    market: SimulatedMarket,
    row: int,
    granularity: int,
    since: int | None,
    until: int | None,
    now_ms: int,
) -> list[Row]:
    """Rows [ts, O, H, L, C, lots, turnover] of one contract, oldest first.

    `since`, `until` in ms bound the opening times, both included; a candle that opened before
    an unaligned `since` is left out. At most 500 rows, the oldest of the range. Intervals
    without trades are missing; the running candle is the last one.
    """
    now_ms = market.clamp(now_ms)
    step = granularity * MINUTE_MS
    shift = MONDAY_MS if granularity == 10080 else 0
    oldest = (market.history.first_day + int(market.history.first_bar[row])) * DAY_MS
    # The first week of a listing is shown unless it began before the known history.
    oldest = max(oldest - (oldest - shift) % step, market.history.first_day * DAY_MS)
    if granularity < 60:
        oldest = max(oldest, now_ms - MINUTES_KEPT_MS)
    elif granularity < 1440:
        oldest = max(oldest, now_ms - HOURS_KEPT_MS)
    newest = (now_ms - shift) // step * step + shift
    end = newest if until is None else min(newest, (until - shift) // step * step + shift)
    start = max(since, oldest) if since is not None else max(oldest, end - (MAX_ROWS - 1) * step)
    start = -(-(start - shift) // step) * step + shift
    if start > end:
        return []
    end = min(end, start + (MAX_ROWS - 1) * step)
    if granularity >= 1440:
        closed = _days(market, row, start, min(end + step, now_ms - now_ms % DAY_MS))
        unit = DAY_MS
    elif granularity >= 60:
        closed = _hours(market, row, start, min(end + step, now_ms - now_ms % HOUR_MS))
        unit = HOUR_MS
    else:
        closed = _minutes(market, row, start, min(end + step, now_ms - now_ms % MINUTE_MS))
        unit = MINUTE_MS
    opens = start + unit * np.arange(closed.lots.size)
    if end == newest:
        closed, opens = _with_running(market, row, closed, opens, unit, now_ms)
    return _rows(market, row, closed, opens, step, shift)


def _days(market: SimulatedMarket, row: int, start: int, stop: int) -> Bars:
    first = start // DAY_MS - market.history.first_day
    return market.history.daily.take(row).take(slice(first, max(first, _column(market, stop))))


def _column(market: SimulatedMarket, stop: int) -> int:
    return stop // DAY_MS - market.history.first_day


def _gather(blocks: list[Bars], row: int) -> Bars:
    return Bars(
        np.concatenate([np.empty((0, 4), np.int64), *(block.ticks[row] for block in blocks)]),
        np.concatenate([np.empty(0, np.int64), *(block.lots[row] for block in blocks)]),
        np.concatenate([np.empty(0), *(block.turnover[row] for block in blocks)]),
    )


def _hours(market: SimulatedMarket, row: int, start: int, stop: int) -> Bars:
    first, last = start // HOUR_MS, stop // HOUR_MS
    blocks = [market.hours(day) for day in range(first // 24, (last - 1) // 24 + 1)]
    return _gather(blocks, row).take(slice(first % 24, max(first % 24, first % 24 + last - first)))


def _minutes(market: SimulatedMarket, row: int, start: int, stop: int) -> Bars:
    first, last = start // MINUTE_MS, stop // MINUTE_MS
    blocks = [market.minutes(hour) for hour in range(first // 60, (last - 1) // 60 + 1)]
    return _gather(blocks, row).take(slice(first % 60, max(first % 60, first % 60 + last - first)))


def _with_running(
    market: SimulatedMarket, row: int, closed: Bars, opens: np.ndarray, unit: int, now_ms: int
) -> tuple[Bars, np.ndarray]:
    """Append the running bar of the unit (day, hour or minute)."""
    moment = market.moment(now_ms)
    running = {DAY_MS: moment.day, HOUR_MS: moment.hour}.get(unit)
    if running is None:
        running = market.running(now_ms)[0]
    bars = Bars(
        np.vstack([closed.ticks, running.ticks[row]]),
        np.append(closed.lots, running.lots[row]),
        np.append(closed.turnover, running.turnover[row]),
    )
    return bars, np.append(opens, now_ms - now_ms % unit)


def _rows(
    market: SimulatedMarket, row: int, bars: Bars, opens: np.ndarray, step: int, shift: int
) -> list[Row]:
    """Group bars into candles of `step` and render those that traded."""
    keys = (opens - shift) // step
    rows: list[Row] = []
    scale = float(market.scale[row])
    edges = np.flatnonzero(np.diff(keys, prepend=-1))
    if edges.size == opens.size:
        ticks, lots, turnover = bars.ticks, bars.lots, bars.turnover
    else:
        parts = [
            aggregate_bars(
                Bars(bars.ticks[None, a:b], bars.lots[None, a:b], bars.turnover[None, a:b])
            )
            for a, b in zip(edges, [*edges[1:], opens.size], strict=True)
        ]
        ticks = np.concatenate([part.ticks for part in parts])
        lots = np.concatenate([part.lots for part in parts])
        turnover = np.concatenate([part.turnover for part in parts])
    traded = lots > 0
    prices = ticks[traded] / scale
    times = (keys[edges] * step + shift)[traded].tolist()
    for time, price, lot, value in zip(
        times, prices.tolist(), lots[traded].tolist(), turnover[traded].tolist(), strict=True
    ):
        rows.append(
            [time, price[OPEN], price[HIGH], price[LOW], price[CLOSE], lot, round(value, 8)]
        )
    return rows
