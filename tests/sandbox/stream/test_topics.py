"""What is pushed equals what REST answers at the same exchange time, in the stream's own forms."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import Shop, data
from tests.sandbox.streaming import Json, Line, line, look

Client = TestClient[Any, Any]
HOUR_MS = 3_600_000
SYMBOLS = ("XBTUSDTM", "XBTUSDM", "SOLUSDTM")
MARKET = "/contractMarket"


async def test_ticker_v2_is_the_best_bid_and_ask_of_the_ticker(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        await one.subscribe(f"{MARKET}/tickerV2:{','.join(SYMBOLS)}")
        before: dict[str, int] = {}
        for _ in range(3):
            for symbol in SYMBOLS:
                frame = await one.message(f"{MARKET}/tickerV2:{symbol}")
                rest = await data(few_client, "/api/v1/ticker", symbol=symbol)
                pushed = frame["data"]
                names = ("symbol", "sequence", "bestBidPrice", "bestBidSize", "bestAskPrice")
                for name in (*names, "bestAskSize"):
                    assert pushed[name] == rest[name]
                assert frame["sn"] == pushed["sequence"] > before.get(symbol, 0)
                assert (
                    pushed["ts"] == few.exchange.market.clamp(few.exchange.clock.now_ms()) * 10**6
                )
                before[symbol] = pushed["sequence"]
            few.clock.now += 1.0


async def test_the_old_ticker_is_pushed_with_each_match(few_client: Client, few: Shop) -> None:
    async with line(few_client) as one:
        await one.subscribe(f"{MARKET}/ticker:ETHUSDTM")
        for _ in range(2):
            frame = await one.message(f"{MARKET}/ticker:ETHUSDTM", "ticker")
            assert frame["data"] == await data(few_client, "/api/v1/ticker", symbol="ETHUSDTM")
            few.clock.now += 5.0


async def test_executions_are_all_trades_once_and_in_order(few_client: Client, few: Shop) -> None:
    topic = f"{MARKET}/execution:XBTUSDTM"
    since = few.exchange.clock.now_ms()
    pushed: list[Json] = []
    async with line(few_client) as one:
        await one.subscribe(topic)
        for seconds in (0.3, 0.9, 40.0, 3.1, 7.0):
            few.clock.now += seconds
            history = await data(few_client, "/api/v1/trade/history", symbol="XBTUSDTM")
            wanted = [row for row in reversed(history) if row["ts"] >= since * 10**6]
            while len(pushed) < len(wanted):
                frame = await one.message(topic, "match")
                assert frame["sn"] == frame["data"]["sequence"]
                pushed.append(frame["data"])
            for row in wanted:
                del row["contractId"]
            assert pushed == [row | {"symbol": "XBTUSDTM"} for row in wanted]
    assert len(pushed) > 40


async def test_increments_lead_from_one_snapshot_to_the_next_without_a_gap(
    few_client: Client, few: Shop
) -> None:
    topic = f"{MARKET}/level2:SOLUSDTM"
    async with line(few_client) as one:
        await one.subscribe(topic)
        book = await data(few_client, "/api/v1/level2/snapshot", symbol="SOLUSDTM")
        sides = {"buy": dict(book["bids"]), "sell": dict(book["asks"])}
        sequence = book["sequence"]
        for seconds in (0.25, 1.0, 1.0, 1.0, 1.0):
            few.clock.now += seconds
            after = await data(few_client, "/api/v1/level2/snapshot", symbol="SOLUSDTM")
            while sequence < after["sequence"]:
                frame = await one.message(topic, "level2")
                sequence += 1
                assert frame["sn"] == frame["data"]["sequence"] == sequence
                price, side, lots = frame["data"]["change"].split(",")
                assert lots == "0" or float(price) > 0
                if lots == "0":
                    del sides[side][float(price)]
                else:
                    sides[side][float(price)] = int(lots)
                assert (
                    not sides["buy"]
                    or not sides["sell"]
                    or (max(sides["buy"]) < min(sides["sell"]))
                )
            assert sides == {"buy": dict(after["bids"]), "sell": dict(after["asks"])}
            ticker = await data(few_client, "/api/v1/ticker", symbol="SOLUSDTM")
            assert ticker["sequence"] == sequence < few.exchange.clock.now_ms()
    async with asyncio.timeout(5):
        while few.exchange.books.journals:
            await asyncio.sleep(0.01)
    later = await data(few_client, "/api/v1/level2/snapshot", symbol="SOLUSDTM")
    assert later["sequence"] >= sequence, "a sequence never goes back"


async def test_depth_is_the_best_of_the_book_with_prices_as_text(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        for levels, path in ((5, "depth20"), (50, "depth100")):
            topic = f"{MARKET}/level2Depth{levels}:XRPUSDTM"
            await one.subscribe(topic)
            few.clock.now += 1.0
            rest = await data(few_client, f"/api/v1/level2/{path}", symbol="XRPUSDTM")
            frame = await one.until(
                lambda frame, topic=topic, rest=rest: (  # type: ignore[misc]  # defaults bind the loop
                    frame.get("topic") == topic
                    and frame["data"]["ts"] * 10**6 >= rest["ts"] - 10**9
                    and frame["data"]["sequence"] == rest["sequence"]
                )
            )
            pushed = frame["data"]
            for side in ("bids", "asks"):
                assert len(pushed[side]) == levels
                assert all(isinstance(price, str) for price, _ in pushed[side])
                shown = [[float(price), lots] for price, lots in pushed[side]]
                assert shown == rest[side][:levels]
            assert frame["sn"] == pushed["ts"] == pushed["timestamp"]


async def candle(one: Line, kind: str) -> list[str]:
    frame = await one.message(f"{MARKET}/limitCandle:XBTUSDTM_{kind}", "candle.stick")
    assert frame["data"]["symbol"] == "XBTUSDTM"
    values: list[str] = frame["data"]["candles"]
    return values


async def test_candles_are_the_running_ones_in_the_streams_order(few_client: Client) -> None:
    async with line(few_client) as one:
        for kind, minutes in (("1min", 1), ("1hour", 60), ("12hour", 720), ("1day", 1440)):
            await one.subscribe(f"{MARKET}/limitCandle:XBTUSDTM_{kind}")
            start, first, close, high, low, volume, lots = await candle(one, kind)
            rest = (
                await data(
                    few_client, "/api/v1/kline/query", symbol="XBTUSDTM", granularity=minutes
                )
            )[-1]
            shown = [float(value) for value in (first, high, low, close)]
            assert [int(start) * 1000, *shown, int(lots)] == rest[:6], kind
            assert volume == f"{lots}.0"


async def test_candles_that_rest_does_not_have_are_made_of_those_it_has(
    few_client: Client, few: Shop
) -> None:
    now_ms = few.exchange.clock.now_ms()
    async with line(few_client) as one:
        for kind, minutes, begin in (
            ("3min", 1, now_ms - now_ms % 180_000),
            ("1month", 1440, int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)),
        ):
            await one.subscribe(f"{MARKET}/limitCandle:XBTUSDTM_{kind}")
            start, first, close, high, low, _, lots = await candle(one, kind)
            query = {"symbol": "XBTUSDTM", "granularity": minutes, "from": begin}
            rows = await data(few_client, "/api/v1/kline/query", **query)
            assert int(start) * 1000 == begin
            assert (float(first), float(close)) == (rows[0][1], rows[-1][4])
            assert float(high) == max(row[2] for row in rows)
            assert float(low) == min(row[3] for row in rows)
            assert int(lots) == sum(row[5] for row in rows)


async def test_a_candle_is_pushed_once_more_when_it_has_closed(
    few_client: Client, few: Shop
) -> None:
    few.exchange.clock.set(few.exchange.clock.now_ms() // 60_000 * 60_000 + 59_900)
    async with line(few_client) as one:
        await one.subscribe(f"{MARKET}/limitCandle:XBTUSDTM_1min")
        running = await candle(one, "1min")
        few.clock.now += 1.5
        closed, following = await candle(one, "1min"), await candle(one, "1min")
        assert closed[0] == running[0]
        assert int(following[0]) == int(closed[0]) + 60
        query = {"symbol": "XBTUSDTM", "granularity": 1, "from": int(closed[0]) * 1000}
        row = (await data(few_client, "/api/v1/kline/query", **query))[0]
        assert (float(closed[2]), int(closed[6])) == (row[4], row[5])
        assert int(closed[6]) > int(running[6])


async def test_the_instrument_gives_mark_index_and_both_funding_rates(
    few_client: Client, few: Shop
) -> None:
    topic = "/contract/instrument:ETHUSDTM"
    async with line(few_client) as one:
        await one.subscribe(topic)
        mark = (await one.message(topic, "mark.index.price"))["data"]
        rest = await data(few_client, "/api/v1/mark-price/ETHUSDTM/current")
        assert mark == {
            "markPrice": rest["value"], "indexPrice": rest["indexPrice"],
            "granularity": 1000, "timestamp": rest["timePoint"],
        }  # fmt: skip
        rates = [(await one.message(topic, "funding.rate"))["data"] for _ in range(2)]
        current = await data(few_client, "/api/v1/funding-rate/ETHUSDTM/current")
        assert [rate["granularity"] for rate in rates] == [60_000, 8 * HOUR_MS]
        assert {rate["fundingRate"] for rate in rates} == {current["value"]}
        few.clock.now += 1.0
        assert (await one.message(topic))["subject"] == "mark.index.price"
        few.clock.now += 60.0
        await one.message(topic, "funding.rate")


async def test_the_snapshot_is_the_contracts_last_day(few_client: Client, few: Shop) -> None:
    async with line(few_client) as one:
        for symbol in ("XBTUSDTM", "XBTUSDM"):
            topic = f"{MARKET}/snapshot:{symbol}"
            await one.subscribe(topic)
            frame = await one.message(topic, "snapshot.24h")
            pushed = frame["data"]
            rest = await data(few_client, f"/api/v1/contracts/{symbol}")
            assert pushed["lastPrice"] == rest["lastTradePrice"]
            assert (pushed["highPrice"], pushed["lowPrice"]) == (
                rest["highPrice"],
                rest["lowPrice"],
            )
            assert (pushed["priceChg"], pushed["priceChgPct"]) == (
                rest["priceChg"], rest["priceChgPct"]
            )  # fmt: skip
            assert pushed["volume"] == rest["volumeOf24h"]
            assert pushed["turnover"] == abs(rest["turnoverOf24h"]) > 0
            assert len(str(pushed["ts"])) == 19
        ticks = (await look(few_client))["tally"]["by_topic"][f"{MARKET}/snapshot"]
        few.clock.now += 5.0
        await one.message(topic)
        assert ticks == 2


async def test_settlements_are_announced_with_the_rate_of_the_history(
    few_client: Client, few: Shop
) -> None:
    few.exchange.clock.set(few.exchange.clock.now_ms() // (8 * HOUR_MS) * 8 * HOUR_MS - 500)
    due = few.exchange.clock.now_ms() + 500
    async with line(few_client) as one, line(few_client, connect_id="all") as every:
        await one.subscribe("/contract/announcement:XBTUSDTM")
        await every.subscribe("/contract/announcement")
        few.clock.now += 1.0
        frames = [await one.message("/contract/announcement") for _ in range(2)]
        assert [frame["subject"] for frame in frames] == ["funding.begin", "funding.end"]
        query = {"symbol": "XBTUSDTM", "from": due, "to": due}
        (settled,) = await data(few_client, "/api/v1/contract/funding-rates", **query)
        for frame in frames:
            assert "type" not in frame
            assert frame["data"]["fundingTime"] == settled["timepoint"]
            assert frame["data"]["fundingRate"] == settled["fundingRate"]
        first = await every.message("/contract/announcement")
        second = await every.message("/contract/announcement")
        third = await every.message("/contract/announcement")
        assert first["data"]["symbol"] == second["data"]["symbol"] != third["data"]["symbol"]


async def test_nothing_is_worked_out_while_nobody_has_subscribed(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        few.clock.now += 10.0
        await asyncio.sleep(0.1)
        assert (await look(few_client))["tally"]["ticks"] == 0
        await one.subscribe(f"{MARKET}/tickerV2:XBTUSDTM")
        await one.message(f"{MARKET}/tickerV2:XBTUSDTM")
        await one.answer(type="unsubscribe", topic=f"{MARKET}/tickerV2:XBTUSDTM", response=True)
        ticks = (await look(few_client))["tally"]["ticks"]
        few.clock.now += 10.0
        await asyncio.sleep(0.1)
        assert (await look(few_client))["tally"]["ticks"] == ticks
