"""Halts, listings, delistings and new specifications, the same in answers and stream."""

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from app.sandbox.stream.broadcaster import TICK_S
from tests.sandbox.conftest import Shop, data, failure
from tests.sandbox.streaming import Json, Line, control, line

Client = TestClient[Any, Any]
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
MARKET = "/contractMarket"
SYMBOL = "SOLUSDTM"
CONTRACT = f"/api/v1/contracts/{SYMBOL}"


async def klines(client: Client, minutes: int, since: int) -> list[list[Any]]:
    query = {"symbol": SYMBOL, "granularity": minutes, "from": since}
    rows: list[list[Any]] = await data(client, "/api/v1/kline/query", **query)
    return rows


async def listed(client: Client) -> dict[str, Json]:
    return {item["symbol"]: item for item in await data(client, "/api/v1/contracts/active")}


async def told(one: Line) -> set[str]:
    """The topics that have spoken since the last time, given some beats to do so."""
    await asyncio.sleep(3 * TICK_S)
    await one.answer(type="ping")
    topics = {frame["topic"] for frame in one.passed if "topic" in frame}
    one.passed.clear()
    return topics


def go(shop: Shop, now_ms: int) -> None:
    """Set exchange time, a little after the given one."""
    shop.exchange.clock.set(now_ms)
    shop.exchange.forget_answers()


async def test_a_halt_stops_trades_and_book_and_ends_with_its_minutes(
    small_client: Client, small: Shop
) -> None:
    await control(small_client, "stream", connection_life_ms=30 * DAY_MS)
    async with line(small_client) as one:
        topics = [f"{MARKET}/{kind}:{SYMBOL}" for kind in ("tickerV2", "execution", "level2Depth5")]
        for topic in topics:
            await one.subscribe(topic)
        times = await control(small_client, "events", kind="halt", symbol=SYMBOL, minutes=150)
        from_ms, until_ms = times["from_ms"], times["until_ms"]
        assert until_ms - from_ms == 150 * MINUTE_MS
        assert (await data(small_client, CONTRACT))["status"] == "Open"
        go(small, from_ms)
        frame = await one.message(topics[1])
        while frame["data"]["ts"] < (from_ms - 1) * 10**6:
            frame = await one.message(topics[1])
        halted = await data(small_client, "/api/v1/level2/depth20", symbol=SYMBOL)
        await told(one)
        for later in (30_250, 10 * MINUTE_MS, 149 * MINUTE_MS):
            go(small, from_ms + later)
            assert await told(one) == set()
            contract = await data(small_client, CONTRACT)
            assert contract["status"] == "Paused"
            assert (await listed(small_client))[SYMBOL]["status"] == "Paused"
            ticker = await data(small_client, "/api/v1/ticker", symbol=SYMBOL)
            assert ticker["ts"] == (from_ms - 1) * 10**6
            book = await data(small_client, "/api/v1/level2/depth20", symbol=SYMBOL)
            assert (book["bids"], book["asks"]) == (halted["bids"], halted["asks"])
            assert float(ticker["bestBidPrice"]) == book["bids"][0][0]
        assert await klines(small_client, 1, from_ms) == []
        go(small, until_ms + 5 * MINUTE_MS + 30_000)
        for topic in topics:
            await one.message(topic)
        assert (await data(small_client, CONTRACT))["status"] == "Open"
        assert [row[0] for row in await klines(small_client, 1, from_ms)] == [
            until_ms + step * MINUTE_MS for step in range(6)
        ]
        hour = from_ms // HOUR_MS * HOUR_MS
        day = (await klines(small_client, 1440, from_ms // DAY_MS * DAY_MS))[0]
        hours = [row for row in await klines(small_client, 60, day[0]) if row[0] < day[0] + DAY_MS]
        assert hour + HOUR_MS not in [row[0] for row in hours]
        assert day[5] == sum(row[5] for row in hours)
        go(small, day[0] + DAY_MS + MINUTE_MS)
        closed = (await klines(small_client, 1440, day[0]))[0]
        hours = [row for row in await klines(small_client, 60, day[0]) if row[0] < day[0] + DAY_MS]
        assert closed[5] == sum(row[5] for row in hours)
        minutes = await klines(small_client, 1, hour)
        first = [row for row in minutes if row[0] < hour + HOUR_MS]
        assert sum(row[5] for row in first) == next(row[5] for row in hours if row[0] == hour)


async def test_a_delisting_is_told_and_then_the_contract_is_gone(
    small_client: Client, small: Shop
) -> None:
    assert (await data(small_client, CONTRACT))["expireDate"] is None
    topic = f"{MARKET}/tickerV2:{SYMBOL}"
    async with line(small_client) as one:
        await one.subscribe(topic)
        times = await control(small_client, "events", kind="delist", symbol=SYMBOL, in_minutes=20)
        contract = await data(small_client, CONTRACT)
        assert (contract["status"], contract["type"]) == ("Open", "FFWCSX")
        assert contract["expireDate"] == contract["settleDate"] == times["from_ms"]
        go(small, times["from_ms"] - 1000)
        await one.message(topic)
        go(small, times["from_ms"])
        await told(one)
        go(small, times["from_ms"] + 1000)
        assert await told(one) == set()
        assert SYMBOL not in await listed(small_client)
        assert await failure(small_client, "/api/v1/ticker", symbol=SYMBOL) == (200, "200003")
        assert (await data(small_client, CONTRACT))["status"] == "Closed"
        await one.answer(type="unsubscribe", topic=topic, response=True)
        answer = await one.answer(type="subscribe", topic=topic, response=True)
        assert answer["code"] == 404


async def test_a_listing_opens_without_a_past(small_client: Client, small: Shop) -> None:
    times = await control(small_client, "events", kind="list", symbol=SYMBOL, in_minutes=90)
    topic = f"{MARKET}/execution:{SYMBOL}"
    async with line(small_client) as one:
        assert (await data(small_client, CONTRACT))["status"] == "Init"
        assert SYMBOL not in await listed(small_client)
        assert (await one.answer(type="subscribe", topic=topic))["code"] == 404
        go(small, times["from_ms"])
        contract = (await listed(small_client))[SYMBOL]
        assert (contract["status"], contract["firstOpenDate"]) == ("Open", times["from_ms"])
        await one.subscribe(topic)
        go(small, times["from_ms"] + 2 * MINUTE_MS)
        frame = await one.message(topic)
        assert frame["data"]["ts"] >= times["from_ms"] * 10**6
        history = await data(small_client, "/api/v1/trade/history", symbol=SYMBOL)
        assert history[-1] == history[-1] | {
            key: frame["data"][key] for key in ("ts", "price", "size", "tradeId")
        }
        for minutes in (1, 60, 1440):
            rows = await klines(small_client, minutes, times["from_ms"] - 90 * minutes * MINUTE_MS)
            assert rows[0][0] == times["from_ms"] // (minutes * MINUTE_MS) * minutes * MINUTE_MS
        # A page of hours begins with the listing, not with the months of nothing before it.
        hour = times["from_ms"] // HOUR_MS * HOUR_MS
        assert (await klines(small_client, 60, hour - 100 * DAY_MS))[0][0] == hour
        bounds = {"from": 0, "to": times["from_ms"] + DAY_MS}
        assert (
            await data(small_client, "/api/v1/contract/funding-rates", symbol=SYMBOL, **bounds)
            == []
        )


async def test_another_multiplier_restates_lots_and_leaves_prices_and_values(
    small_client: Client, small: Shop
) -> None:
    before, now_ms = await data(small_client, CONTRACT), small.exchange.clock.now_ms()
    rows = await klines(small_client, 1440, now_ms - 20 * DAY_MS)
    book = await data(small_client, "/api/v1/level2/depth20", symbol=SYMBOL)
    await control(small_client, "events", kind="multiplier", symbol=SYMBOL, multiplier=0.01)
    after = await data(small_client, CONTRACT)
    assert (before["multiplier"], after["multiplier"]) == (0.1, 0.01)
    for name in ("lastTradePrice", "markPrice"):
        assert after[name] == before[name]
    for name in ("turnoverOf24h", "volumeOf24h"):
        assert after[name] == pytest.approx(before[name], rel=1e-3)
    assert int(after["openInterest"]) == pytest.approx(10 * int(before["openInterest"]), rel=1e-6)
    now = await klines(small_client, 1440, now_ms - 20 * DAY_MS)
    assert [row[:5] for row in now] == [row[:5] for row in rows]
    for new, old in zip(now, rows, strict=True):
        assert new[5] == pytest.approx(10 * old[5], rel=1e-3)
    hours = await klines(small_client, 60, now[-2][0])
    assert sum(row[5] for row in hours if row[0] < now[-1][0]) == now[-2][5]
    async with line(small_client) as one:
        await one.subscribe(f"{MARKET}/level2Depth5:{SYMBOL}")
        pushed = (await one.message(f"{MARKET}/level2Depth5:{SYMBOL}"))["data"]
        rest = await data(small_client, "/api/v1/level2/depth20", symbol=SYMBOL)
        assert [lots for _, lots in pushed["bids"]] == [lots for _, lots in rest["bids"][:5]]
        assert rest["bids"][0][1] == pytest.approx(10 * book["bids"][0][1], rel=0.2)


@pytest.mark.parametrize("ratio", [0.01, 1000.0])
async def test_a_redenomination_changes_the_unit_of_prices_and_keeps_all_values(
    small_client: Client, small: Shop, ratio: float
) -> None:
    before, now_ms = await data(small_client, CONTRACT), small.exchange.clock.now_ms()
    rows = await klines(small_client, 1440, now_ms - 20 * DAY_MS)
    times = await control(small_client, "events", kind="redenomination", symbol=SYMBOL, ratio=ratio)
    assert times["from_ms"] == now_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
    after = await data(small_client, CONTRACT)
    assert after["multiplier"] == pytest.approx(before["multiplier"] / ratio, rel=1e-12)
    assert after["markPrice"] == before["markPrice"]
    go(small, times["from_ms"] + MINUTE_MS)
    later = await data(small_client, CONTRACT)
    assert later["markPrice"] == pytest.approx(ratio * before["markPrice"], rel=0.02)
    assert later["turnoverOf24h"] == pytest.approx(before["turnoverOf24h"], rel=0.01)
    now = await klines(small_client, 1440, now_ms - 20 * DAY_MS)
    assert now[:-1] == rows[:-1]
    assert now[-1][1] == rows[-1][1]
    assert now[-1][4] == pytest.approx(ratio * rows[-1][4], rel=0.02)
    go(small, times["from_ms"] + 2 * DAY_MS)
    day = (await klines(small_client, 1440, now[-1][0]))[0]
    hours = [row for row in await klines(small_client, 60, day[0]) if row[0] < day[0] + DAY_MS]
    assert day[4] == hours[-1][4]
    assert day[5] == sum(row[5] for row in hours)
    lot = [row[6] / (row[5] * row[4]) for row in (*rows[:-1], *hours[-2:])]
    assert lot[0] == pytest.approx(before["multiplier"], rel=0.1)
    assert lot[-1] == pytest.approx(after["multiplier"], rel=0.1)


async def test_another_funding_interval_is_announced_and_then_in_force(
    small_client: Client, small: Shop
) -> None:
    now_ms = small.exchange.clock.now_ms()
    due = (now_ms // (8 * HOUR_MS) + 1) * 8 * HOUR_MS
    times = await control(small_client, "events", kind="funding_interval", symbol=SYMBOL, hours=4)
    assert times["from_ms"] == due
    current = f"/api/v1/funding-rate/{SYMBOL}/current"
    async with line(small_client) as one:
        await one.subscribe("/contract/announcement")
        await one.subscribe(f"/contract/instrument:{SYMBOL}")
        for at_ms, force, next_ms in (
            (now_ms, 8, due),
            (due - 500, 8, due),
            (due + 500, 4, due + 4 * HOUR_MS),
            (due + 4 * HOUR_MS + 500, 4, due + 8 * HOUR_MS),
        ):
            go(small, at_ms)
            contract, rate = await data(small_client, CONTRACT), await data(small_client, current)
            assert contract["currentFundingRateGranularity"] == force * HOUR_MS
            assert contract["fundingRateGranularity"] == 4 * HOUR_MS
            assert contract["effectiveFundingRateCycleStartTime"] == due
            assert contract["nextFundingRateDateTime"] == rate["fundingTime"] == next_ms
            assert (rate["granularity"], rate["value"]) == (
                force * HOUR_MS, contract["fundingFeeRate"],
            )  # fmt: skip
            pushed = await one.until(
                lambda frame, force=force, rate=rate: (  # type: ignore[misc]  # defaults bind the loop
                    frame.get("subject") == "funding.rate"
                    and frame["data"]["granularity"] == force * HOUR_MS
                    and frame["data"]["fundingRate"] == rate["value"]
                )
            )
            assert pushed["topic"] == f"/contract/instrument:{SYMBOL}"
        bounds = {"from": due - 8 * HOUR_MS, "to": due + 4 * HOUR_MS}
        history = await data(
            small_client, "/api/v1/contract/funding-rates", symbol=SYMBOL, **bounds
        )
        assert [row["timepoint"] for row in history] == [
            due + 4 * HOUR_MS, due, due - 8 * HOUR_MS
        ]  # fmt: skip
        told = {
            frame["data"]["fundingTime"]: frame["data"]["fundingRate"]
            for frame in one.passed
            if frame.get("subject") == "funding.begin" and frame["data"]["symbol"] == SYMBOL
        }
        assert told == {row["timepoint"]: row["fundingRate"] for row in history[:2]}


async def test_impossible_events_are_refused(few_client: Client) -> None:
    for wrong in (
        {"kind": "halt", "symbol": "NOPE"},
        {"kind": "halt", "symbol": SYMBOL, "minutes": 0},
        {"kind": "halt", "symbol": SYMBOL, "in_minutes": -1},
        {"kind": "feast", "symbol": SYMBOL},
        {"kind": "multiplier", "symbol": SYMBOL},
        {"kind": "redenomination", "symbol": SYMBOL},
        {"kind": "redenomination", "symbol": SYMBOL, "ratio": 0.0},
        {"kind": "redenomination", "symbol": "XBTUSDM", "ratio": 10.0},
        {"kind": "multiplier", "symbol": "XBTUSDM", "multiplier": 2.0},
        {"kind": "funding_interval", "symbol": SYMBOL, "hours": 3},
        {"kind": "funding_interval", "symbol": "XBTMZ26", "hours": 4},
        {"symbol": SYMBOL},
    ):
        async with few_client.post("/_control/events", json=wrong) as response:
            assert response.status == 400, wrong
