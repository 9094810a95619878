"""The clock, the limits and planted market changes."""

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import START_MS, Shop, data

Client = TestClient[Any, Any]
DAY_MS, HOUR_MS = 86_400_000, 3_600_000


async def plant(client: Client, **change: Any) -> None:
    async with client.post("/_control/market", json=change) as response:
        assert response.status == 200, await response.text()


async def klines(client: Client, symbol: str, granularity: int) -> list[list[Any]]:
    rows: list[list[Any]] = await data(
        client, "/api/v1/kline/query", symbol=symbol, granularity=granularity
    )
    return rows


async def test_time_runs_at_its_speed_jumps_and_stops(client: Client, whole: Shop) -> None:
    whole.clock.now += 2.0
    assert await data(client, "/api/v1/timestamp") == START_MS + 2000
    async with client.post("/_control/clock", json={"speed": 60, "advance_ms": 500}) as response:
        assert await response.json() == {"now_ms": START_MS + 2500, "speed": 60}
    whole.clock.now += 1.0
    assert await data(client, "/api/v1/timestamp") == START_MS + 62_500
    async with client.post("/_control/clock", json={"now_ms": START_MS, "speed": 0}):
        pass
    whole.clock.now += 100.0
    assert await data(client, "/api/v1/timestamp") == START_MS


async def test_limits_are_changed(client: Client, whole: Shop) -> None:
    async with client.post("/_control/limits", json={"quota": 2, "window_s": 5}) as response:
        assert await response.json() == {"quota": 2, "window_s": 5.0}
    statuses = []
    for _ in range(2):
        async with client.get("/api/v1/timestamp") as response:
            statuses.append(response.status)
    whole.monotonic.now += 5.0
    async with client.get("/api/v1/timestamp") as response:
        statuses.append(response.status)
    assert statuses == [200, 429, 200]
    async with client.post("/_control/limits", json={"quota": 2000, "window_s": 30}):
        pass


async def test_a_planted_price_moves_everything_at_the_next_minute(
    small_client: Client, small: Shop
) -> None:
    before = await data(small_client, "/api/v1/contracts/SOLUSDTM")
    await plant(small_client, symbol="SOLUSDTM", price_factor=0.5)
    same = await data(small_client, "/api/v1/contracts/SOLUSDTM")
    assert same["lastTradePrice"] == before["lastTradePrice"]
    small.exchange.clock.set(START_MS + 90_000)
    small.exchange.forget_answers()
    after = await data(small_client, "/api/v1/contracts/SOLUSDTM")
    assert after["lastTradePrice"] == pytest.approx(before["lastTradePrice"] * 0.5, rel=0.03)
    assert after["lowPrice"] <= after["lastTradePrice"] < before["lowPrice"]
    assert after["markPrice"] == pytest.approx(after["lastTradePrice"], rel=0.005)
    book = await data(small_client, "/api/v1/level2/depth20", symbol="SOLUSDTM")
    assert book["bids"][0][0] <= after["lastTradePrice"] <= book["asks"][0][0]
    for later in (0, 2 * HOUR_MS, 2 * DAY_MS):
        small.exchange.clock.set(START_MS + 90_000 + later)
        last = float((await data(small_client, "/api/v1/ticker", symbol="SOLUSDTM"))["price"])
        hours = await klines(small_client, "SOLUSDTM", 60)
        day = (await klines(small_client, "SOLUSDTM", 1440))[-1]
        today = [row for row in hours if row[0] >= day[0]]
        assert hours[-1][4] == day[4] == last
        assert day[2] == max(row[2] for row in today)
        assert day[3] == min(row[3] for row in today)
        assert day[5] == sum(row[5] for row in today)
        assert last < before["lowPrice"] * 0.8


async def test_planted_volume_changes_past_days_and_the_future(
    small_client: Client, small: Shop
) -> None:
    before = await data(small_client, "/api/v1/contracts/SOLUSDTM")
    rows = await klines(small_client, "SOLUSDTM", 1440)
    await plant(small_client, symbol="SOLUSDTM", volume_factor=0.001, days=30)
    now = await klines(small_client, "SOLUSDTM", 1440)
    assert now[-32] == rows[-32]
    for changed, old in zip(now[-31:-1], rows[-31:-1], strict=True):
        assert changed[1:5] == old[1:5]
        assert changed[5] == pytest.approx(old[5] * 0.001, rel=1e-3)
        assert changed[6] == pytest.approx(old[6] * 0.001, rel=1e-3)
    hours = await klines(small_client, "SOLUSDTM", 60)
    yesterday = [row for row in hours if now[-2][0] <= row[0] < now[-1][0]]
    assert sum(row[5] for row in yesterday) == now[-2][5]
    small.exchange.clock.set(START_MS + DAY_MS)
    after = await data(small_client, "/api/v1/contracts/SOLUSDTM")
    assert after["turnoverOf24h"] < before["turnoverOf24h"] * 0.01


async def test_planted_range_spread_depth_interest_and_funding(
    small_client: Client, small: Shop
) -> None:
    symbol = "LINKUSDTM"
    rows = await klines(small_client, symbol, 1440)
    old = await data(small_client, "/api/v1/ticker", symbol=symbol)
    contract = await data(small_client, f"/api/v1/contracts/{symbol}")
    await plant(
        small_client,
        symbol=symbol,
        range_factor=3.0,
        days=20,
        spread_factor=50.0,
        depth_factor=0.01,
        funding_rate=-0.002,
    )
    now = await klines(small_client, symbol, 1440)
    for changed, before in zip(now[-21:-1], rows[-21:-1], strict=True):
        assert (changed[1], changed[4], changed[5]) == (before[1], before[4], before[5])
        assert changed[2] - changed[3] > 2.0 * (before[2] - before[3])
    ticker = await data(small_client, "/api/v1/ticker", symbol=symbol)
    wide = float(ticker["bestAskPrice"]) - float(ticker["bestBidPrice"])
    assert wide > 20 * (float(old["bestAskPrice"]) - float(old["bestBidPrice"]))
    assert ticker["bestBidSize"] < old["bestBidSize"] / 20
    assert (await data(small_client, f"/api/v1/contracts/{symbol}"))["fundingFeeRate"] == -0.002
    bounds = {"from": START_MS - 30 * DAY_MS, "to": START_MS}
    settled = await data(small_client, "/api/v1/contract/funding-rates", symbol=symbol, **bounds)
    planted = [row["timepoint"] for row in settled if row["fundingRate"] == -0.002]
    assert START_MS - 21 * DAY_MS < min(planted) < START_MS - 19 * DAY_MS
    await plant(small_client, symbol=symbol, open_interest_factor=10.0)
    small.exchange.clock.set(START_MS - START_MS % DAY_MS + 2 * DAY_MS)
    later = await data(small_client, f"/api/v1/contracts/{symbol}")
    assert int(later["openInterest"]) > 5 * int(contract["openInterest"])


async def test_wrong_plants_are_refused(small_client: Client) -> None:
    for wrong in ({"symbol": "NOPE"}, {"symbol": 5}, {}):
        async with small_client.post("/_control/market", json=wrong) as response:
            assert response.status == 400
