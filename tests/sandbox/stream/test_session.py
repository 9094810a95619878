"""Tokens, welcome, commands, errors, limits and the ends of connections."""

import asyncio
import json
from typing import Any

import pytest
import websockets
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import Shop, failure
from tests.sandbox.streaming import bullet, control, line, look, socket

Client = TestClient[Any, Any]
V2 = "/contractMarket/tickerV2"
DAY_MS = 86_400_000


async def test_a_token_leads_to_a_welcome_that_carries_the_connect_id(few_client: Client) -> None:
    ticket = await bullet(few_client)
    server = ticket["instanceServers"][0]
    assert (server["pingInterval"], server["pingTimeout"]) == (18_000, 10_000)
    assert server["protocol"] == "websocket"
    assert server["endpoint"].endswith("/")
    assert (await bullet(few_client))["token"] != ticket["token"]
    async with socket(few_client, connect_id="mine") as one:
        assert await one.frame() == {"id": "mine", "type": "welcome"}


async def test_the_endpoint_without_an_upgrade_is_no_page(few_client: Client) -> None:
    assert await failure(few_client, "/") == (404, "404000")


async def test_pings_are_answered_and_ids_come_back_as_text(few_client: Client) -> None:
    async with line(few_client) as one:
        await one.socket.send('{"id": 1545910660739, "type": "ping"}')
        assert await one.frame() == {"id": "1545910660739", "type": "pong"}


async def test_acks_come_only_when_a_response_is_asked_for(few_client: Client) -> None:
    async with line(few_client) as one:
        await one.send(type="subscribe", topic=f"{V2}:XBTUSDTM")
        answer = await one.answer(type="subscribe", topic=f"{V2}:ETHUSDTM", response=True)
        assert answer == {"id": "2", "type": "ack"}
        assert all(frame.get("id") != "1" for frame in one.passed)
        (connection,) = (await look(few_client))["connections"]
        assert connection["topics"] == [f"{V2}:ETHUSDTM", f"{V2}:XBTUSDTM"]
        await one.answer(type="unsubscribe", topic=f"{V2}:ETHUSDTM,XBTUSDTM", response=True)
        (connection,) = (await look(few_client))["connections"]
        assert connection["topics"] == []


WRONG: tuple[tuple[dict[str, Any], int, str | None], ...] = (
    ({"type": "subscribe"}, 406, "topic is required"),
    ({"type": "subscribe", "topic": f"{V2}:"}, 400, "topic is invalid"),
    ({"type": "subscribe", "topic": f"{V2}:NOPE"}, 404, f"topic {V2}:NOPE is not found"),
    ({"type": "subscribe", "topic": f"{V2}:xbtusdtm"}, 404, None),
    ({"type": "subscribe", "topic": f"{V2}:XBTUSDTM,NOPE"}, 404, f"topic {V2}:NOPE is not found"),
    ({"type": "subscribe", "topic": "/market/level2:BTC-USDT"}, 404, None),
    ({"type": "subscribe", "topic": "/contractMarket/limitCandle:XBTUSDTM_6min"}, 404, None),
    ({"type": "subscribe", "topic": "/contractMarket/tradeOrders"}, 403, "login is required"),
    ({"type": "subscribe", "topic": f"{V2}:XBTUSDTM", "privateChannel": True}, 403, None),
    ({"type": "shout"}, 415, "type is not supported"),
    ({}, 415, "type is not supported"),
)


async def test_wrong_commands_are_answered_with_kucoins_errors(few_client: Client) -> None:
    async with line(few_client) as one:
        for command, code, text in WRONG:
            answer = await one.answer(**command)
            assert (answer["type"], answer["code"]) == ("error", code), command
            assert text in (None, answer["data"])
        state = await look(few_client)
        assert state["connections"][0]["topics"] == []
        assert state["tally"]["errors"] == {"406": 1, "400": 1, "404": 5, "403": 2, "415": 2}


async def test_what_is_no_command_is_an_error_without_an_id(few_client: Client) -> None:
    async with line(few_client) as one:
        for wrong in ("nonsense", "[1]", b"\xff\xfe"):
            await one.socket.send(wrong)
            assert await one.frame() == {
                "type": "error", "code": 415, "data": "type is not supported"
            }  # fmt: skip


async def test_topics_are_limited_by_message_and_by_connection(
    few_client: Client, few: Shop
) -> None:
    symbols = [item.symbol for item in few.exchange.market.history.listings]
    kinds = ("1min", "5min", "1hour", "1day")
    names = [f"{symbol}_{kind}" for symbol in symbols for kind in kinds]
    candle = "/contractMarket/limitCandle"
    await control(few_client, "stream", topics_per_connection=110)
    async with line(few_client) as one:
        answer = await one.answer(type="subscribe", topic=f"{candle}:{','.join(names[:101])}")
        assert answer["code"] == 509
        assert answer["data"] == "exceed max subscription count limitation of 100 per time"
        await one.subscribe(f"{candle}:{','.join(names[:100])}")
        # What is subscribed already does not count again.
        await one.subscribe(f"{candle}:{','.join(names[10:110])}")
        answer = await one.answer(type="subscribe", topic=f"{candle}:{names[110]}")
        assert answer["code"] == 509
        assert answer["data"] == "exceed max subscription count limitation of 110 per session"


async def test_too_many_messages_are_not_obeyed(few_client: Client, few: Shop) -> None:
    await control(few_client, "stream", messages=3)
    async with line(few_client) as one:
        for _ in range(3):
            assert (await one.answer(type="ping"))["type"] == "pong"
        answer = await one.answer(type="ping")
        assert (answer["code"], answer["data"]) == (509, "exceed max permits per second")
        few.monotonic.now += 10.0
        assert (await one.answer(type="ping"))["type"] == "pong"


async def test_connections_are_limited_at_once_and_by_the_minute(
    few_client: Client, few: Shop
) -> None:
    await control(few_client, "stream", connections=1, new_connections=2)
    async with line(few_client), socket(few_client, connect_id="second") as more:
        answer = await more.frame()
        assert answer == {
            "id": "second", "type": "error", "code": 509,
            "data": "exceed max session count limitation of 1",
        }  # fmt: skip
        with pytest.raises(websockets.ConnectionClosed):
            await more.socket.recv()
    async with line(few_client):
        pass
    async with socket(few_client) as more:
        assert (await more.frame())["code"] == 509
    few.monotonic.now += 60.0
    async with line(few_client):
        pass
    assert (await look(few_client))["tally"]["refused"] == 2


async def test_tokens_expire_after_a_day_of_exchange_time(few_client: Client, few: Shop) -> None:
    token = (await bullet(few_client))["token"]
    for wrong, text in ((token, "token is expired"), ("made-up", "token is invalid")):
        few.clock.now += 86_400.0
        async with socket(few_client, token=wrong, connect_id="c9") as one:
            assert await one.frame() == {"id": "c9", "type": "error", "code": 401, "data": text}


async def test_a_connection_lives_a_day_of_exchange_time_sooner_with_speed(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        await control(few_client, "clock", speed=3600)
        few.clock.now += 23.0
        assert (await one.answer(type="ping"))["type"] == "pong"
        few.clock.now += 1.0
        with pytest.raises(websockets.ConnectionClosed) as ended:
            await one.until(lambda _: False)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1000
    assert (await look(few_client))["tally"]["expired"] == 1


async def test_who_sends_no_ping_for_a_minute_is_told_and_closed(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        few.monotonic.now += 59.0
        await one.answer(type="ping")
        few.monotonic.now += 59.0
        await one.answer(type="ping")
        few.monotonic.now += 60.0
        assert await one.frame() == {"type": "error", "code": 400, "data": "ping timeout"}
        with pytest.raises(websockets.ConnectionClosed):
            await one.frame()


async def test_terms_that_there_are_not_are_refused(few_client: Client) -> None:
    for wrong in ({"patience": 1}, {"queue": -1}, {"queue": "long"}, {"queue": True}):
        async with few_client.post("/_control/stream", json=wrong) as response:
            assert response.status == 400


async def test_connections_are_closed_on_demand_with_any_code(few_client: Client) -> None:
    for code in (1001, 1012, 1006):
        async with line(few_client) as one:
            assert await control(few_client, "stream/close", code=code) == {"closed": 1}
            with pytest.raises(websockets.ConnectionClosed) as ended:
                await one.frame()
            received = ended.value.rcvd
            assert (received.code if received is not None else 1006) == code
    async with asyncio.timeout(5):
        while (await look(few_client))["connections"]:
            await asyncio.sleep(0.01)


async def test_bullet_public_is_counted_like_any_request(few_client: Client) -> None:
    await bullet(few_client)
    async with few_client.get("/_control/counters") as response:
        counters = json.loads(await response.text())
    assert counters["weight"] == 10


async def test_a_reset_gives_the_stream_its_terms_and_counters_back(few_client: Client) -> None:
    before = await look(few_client)
    await control(few_client, "stream", queue=3, idle_s=0.5, token_life_ms=1)
    await bullet(few_client)
    assert (await look(few_client))["tally"]["tokens"] == 1
    async with few_client.post("/_control/reset"):
        pass
    assert await look(few_client) == before
