"""Candles over HTTP: rows, range, gaps, the running one, and that they aggregate exactly."""

from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import START_MS, Shop, data

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
PATH = "/api/v1/kline/query"
Client = TestClient[Any, Any]


async def rows_of(client: Client, symbol: str, granularity: int, **bounds: int) -> list[list[Any]]:
    rows: list[list[Any]] = await data(
        client, PATH, symbol=symbol, granularity=granularity, **bounds
    )
    return rows


async def all_rows(client: Client, symbol: str, granularity: int, start: int) -> list[list[Any]]:
    rows: list[list[Any]] = []
    while page := await rows_of(client, symbol, granularity, **{"from": start}):
        rows += page
        start = page[-1][0] + 1
    return rows


def together(rows: list[list[Any]], step: int, shift: int = 0) -> dict[int, list[Any]]:
    groups: dict[int, list[list[Any]]] = defaultdict(list)
    for row in rows:
        groups[(row[0] - shift) // step * step + shift].append(row)
    return {
        start: [
            start,
            group[0][1],
            max(row[2] for row in group),
            min(row[3] for row in group),
            group[-1][4],
            sum(row[5] for row in group),
            pytest.approx(sum(row[6] for row in group), rel=1e-7),
        ]
        for start, group in groups.items()
    }


async def test_at_least_400_days_and_120_days_of_hours(client: Client) -> None:
    days = await rows_of(client, "XBTUSDTM", 1440)
    assert len(days) >= 400
    assert days[-1][0] == START_MS - START_MS % DAY_MS, "the running candle is included"
    hours = await all_rows(client, "XBTUSDTM", 60, START_MS - 125 * DAY_MS)
    assert len(hours) >= 120 * 24
    times = [row[0] for row in hours]
    assert times == list(range(times[0], times[-1] + 1, HOUR_MS))


@pytest.mark.parametrize("symbol", ["XBTUSDTM", "XBTUSDM", "4USDTM", "RNBWUSDTM", "ROBOUSDTM"])
async def test_finer_candles_aggregate_exactly(client: Client, symbol: str) -> None:
    start = START_MS - START_MS % DAY_MS - 30 * DAY_MS
    hours = await all_rows(client, symbol, 60, start)
    days = {row[0]: row for row in await rows_of(client, symbol, 1440, **{"from": start})}
    assert days == together(hours, DAY_MS)
    for granularity in (120, 240, 480, 720):
        coarse = await all_rows(client, symbol, granularity, start)
        assert {row[0]: row for row in coarse} == together(hours, granularity * MINUTE_MS)
    monday = start + (4 * DAY_MS - start) % (7 * DAY_MS)
    weeks = await rows_of(client, symbol, 10080, **{"from": monday})
    assert all((row[0] - 4 * DAY_MS) % (7 * DAY_MS) == 0 for row in weeks)
    inside = {time: row for time, row in days.items() if time >= monday}
    assert {row[0]: row for row in weeks} == together(list(inside.values()), 7 * DAY_MS, 4 * DAY_MS)
    recent = START_MS - START_MS % HOUR_MS - 20 * HOUR_MS
    minutes = await all_rows(client, symbol, 1, recent)
    expected = {row[0]: row for row in hours if row[0] >= recent}
    assert together(minutes, HOUR_MS) == expected
    for granularity in (5, 15, 30):
        coarse = await all_rows(client, symbol, granularity, recent)
        assert {row[0]: row for row in coarse} == together(minutes, granularity * MINUTE_MS)


async def test_rows_have_seven_numbers_in_the_order_of_the_exchange(client: Client) -> None:
    for row in await rows_of(client, "SOLUSDTM", 60):
        time, first, high, low, last, lots, turnover = row
        assert low <= min(first, last) <= max(first, last) <= high
        assert isinstance(lots, int)
        # Volume in lots of 0.1 SOL, turnover in USDT.
        assert low * 0.9 <= turnover / (lots * 0.1) <= high * 1.1
        assert time % HOUR_MS == 0


async def test_more_than_500_rows_are_cut_silently(client: Client) -> None:
    start = START_MS - START_MS % HOUR_MS - 600 * HOUR_MS
    rows = await rows_of(client, "XBTUSDTM", 60, **{"from": start, "to": START_MS})
    assert len(rows) == 500
    assert rows[0][0] == start
    assert len(await rows_of(client, "XBTUSDTM", 60)) == 500
    last = await rows_of(client, "XBTUSDTM", 60, to=START_MS)
    assert last[-1][0] == START_MS - START_MS % HOUR_MS


async def test_an_unaligned_from_leaves_its_candle_out(client: Client) -> None:
    noon = START_MS - START_MS % DAY_MS + 12 * HOUR_MS
    rows = await rows_of(client, "XBTUSDTM", 60, **{"from": noon + 1, "to": noon + 3 * HOUR_MS})
    assert [row[0] for row in rows] == [noon + k * HOUR_MS for k in (1, 2, 3)]
    same = await rows_of(client, "XBTUSDTM", 60, **{"from": noon, "to": noon})
    assert [row[0] for row in same] == [noon]


async def test_ranges_without_candles_are_empty(client: Client) -> None:
    future = {"from": START_MS + DAY_MS, "to": START_MS + 2 * DAY_MS}
    assert await rows_of(client, "XBTUSDTM", 60, **future) == []
    assert await rows_of(client, "XBTUSDTM", 60, **{"from": 0, "to": 1_000}) == []
    old_minutes = {"from": START_MS - 3 * DAY_MS, "to": START_MS - 2 * DAY_MS}
    assert await rows_of(client, "XBTUSDTM", 1, **old_minutes) == []


async def test_intervals_without_trades_are_missing(client: Client) -> None:
    minutes = [row[0] for row in await rows_of(client, "RNBWUSDTM", 1)]
    steps = [b - a for a, b in pairwise(minutes)]
    assert max(steps) > MINUTE_MS
    assert all(step % MINUTE_MS == 0 for step in steps)
    paused = await rows_of(client, "WAVESUSDTM", 1440)
    assert paused[-1][0] < START_MS - 3 * DAY_MS
    assert all(row[5] > 0 for row in paused)


async def test_young_contracts_start_with_their_listing(client: Client) -> None:
    contract = await data(client, "/api/v1/contracts/ROBOUSDTM")
    days = await rows_of(client, "ROBOUSDTM", 1440)
    assert days[0][0] == contract["firstOpenDate"]
    assert len(days) == 3


async def test_closed_candles_stand_still_while_time_moves(client: Client, whole: Shop) -> None:
    before = await rows_of(client, "ETHUSDTM", 60)
    whole.exchange.clock.set(START_MS + 3 * HOUR_MS)
    after = await rows_of(client, "ETHUSDTM", 60)
    assert after[:-4] == before[3:-1], "closed ones are unchanged"
    running, closed = before[-1], after[-4]
    assert closed[0] == running[0]
    assert closed[1] == running[1]
    assert closed[2] >= running[2]
    assert closed[3] <= running[3]
    assert closed[5] >= running[5]


async def test_the_running_candle_only_grows(client: Client, whole: Shop) -> None:
    rows: list[list[Any]] = []
    for second in range(60, 3600, 97):
        whole.exchange.clock.set(START_MS - START_MS % HOUR_MS + second * 1000)
        found = (await rows_of(client, "LINKUSDTM", 60))[-1]
        if not rows or found[0] == rows[0][0]:
            rows.append(found)
    assert len(rows) > 30
    for earlier, later in pairwise(rows):
        assert later[2] >= earlier[2]
        assert later[3] <= earlier[3]
        assert later[5] >= earlier[5]
        assert later[6] >= earlier[6]
