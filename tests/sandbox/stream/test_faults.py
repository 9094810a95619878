"""Each fault of the stream, seen from the client's side, and clients that do not read."""

import asyncio
import json
import socket as sockets
from typing import Any

import pytest
import websockets
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import Shop, data
from tests.sandbox.streaming import Line, bullet, control, line, look, socket

Client = TestClient[Any, Any]
V2 = "/contractMarket/tickerV2"
LEVEL2 = "/contractMarket/level2"


async def arm(client: Client, kind: str, path: str = "*", **more: Any) -> None:
    await control(client, "faults", kind=f"stream_{kind}", path=path, **more)


async def disarm(client: Client) -> None:
    async with client.delete("/_control/faults") as response:
        assert response.status == 200


async def heard(one: Line) -> list[str]:
    """The topics of all frames up to the answer of a ping."""
    before = len(one.passed)
    await one.answer(type="ping")
    return [str(frame.get("topic")) for frame in one.passed[before:]]


async def beat(client: Client, few: Shop, seconds: float = 1.0) -> None:
    """Let exchange time pass, and wait until the stream has looked at it."""
    few.clock.now += seconds
    wanted_ms = few.exchange.market.clamp(few.exchange.clock.now_ms())
    while (await look(client))["looked_at_ms"] != wanted_ms:
        await asyncio.sleep(0.01)


async def test_silence_of_a_topic_leaves_pongs_and_other_topics(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        await one.subscribe(f"{V2}:XBTUSDTM,ETHUSDTM")
        await one.message(f"{V2}:ETHUSDTM")
        await arm(few_client, "silence", path=f"{V2}:XBT*")
        await heard(one)
        await beat(few_client, few)
        assert set(await heard(one)) == {f"{V2}:ETHUSDTM"}
        await disarm(few_client)
        few.clock.now += 1.0
        await one.message(f"{V2}:XBTUSDTM")


async def test_silence_of_one_connection_leaves_the_others(few_client: Client, few: Shop) -> None:
    async with line(few_client) as one, line(few_client, connect_id="other") as other:
        for each in (one, other):
            await each.subscribe(f"{V2}:XBTUSDTM")
        await arm(few_client, "silence", connection="other")
        await other.answer(type="ping")
        await beat(few_client, few)
        assert await heard(other) == []
        assert await heard(one) != []


async def test_a_half_open_connection_answers_nothing_and_stays(
    few_client: Client, few: Shop
) -> None:
    async with line(few_client) as one:
        await one.subscribe(f"{V2}:XBTUSDTM")
        await one.message(f"{V2}:XBTUSDTM")
        await arm(few_client, "half_open", connection="c1")
        await one.send(type="ping")
        pong = asyncio.ensure_future(await one.socket.ping())
        few.monotonic.now += 120.0
        await beat(few_client, few)
        assert [state["queued"] for state in (await look(few_client))["connections"]] == [0]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await one.socket.recv()
        assert not pong.done()
        few.monotonic.now -= 120.0
        await disarm(few_client)
        assert (await one.answer(type="ping"))["type"] == "pong"


async def test_messages_come_twice_or_in_the_wrong_order(few_client: Client, few: Shop) -> None:
    topic = f"{V2}:XBTUSDTM"
    async with line(few_client) as one:
        await arm(few_client, "duplicate", path=topic, times=1)
        await one.subscribe(topic)
        first, second = await one.message(topic), await one.message(topic)
        assert first == second
        await arm(few_client, "reorder", path=topic, times=1)
        await beat(few_client, few)
        assert await heard(one) == []
        await beat(few_client, few)
        later, earlier = await one.message(topic), await one.message(topic)
        assert later["sn"] > earlier["sn"] > second["sn"]


async def test_a_gap_loses_one_message_of_the_sequence(few_client: Client, few: Shop) -> None:
    topic = f"{LEVEL2}:XBTUSDTM"
    async with line(few_client) as one:
        await one.subscribe(topic)
        await beat(few_client, few)
        await heard(one)
        before = one.passed[-1]["sn"]
        await arm(few_client, "gap", path=topic, skip=3)
        await beat(few_client, few)
        told = [(await one.message(topic))["sn"] - before for _ in range(5)]
        assert told == [1, 2, 3, 5, 6]


async def test_an_expired_token_a_missing_welcome_and_a_missing_ack(few_client: Client) -> None:
    await arm(few_client, "expired_token", times=1)
    async with socket(few_client) as one:
        frame = await one.frame()
        assert (frame["code"], frame["data"]) == (401, "token is expired")
    await arm(few_client, "no_welcome", times=1)
    async with socket(few_client) as one:
        assert (await one.answer(type="ping"))["type"] == "pong"
        assert one.passed == []
    await arm(few_client, "no_ack", path=f"{V2}:*", times=1)
    async with line(few_client) as one:
        await one.send(type="subscribe", topic=f"{V2}:XBTUSDTM", response=True)
        assert (await one.answer(type="ping"))["type"] == "pong"
        assert all("topic" in frame for frame in one.passed)
        assert (await look(few_client))["connections"][0]["topics"] == [f"{V2}:XBTUSDTM"]


async def test_subscribing_is_refused_as_often_as_wanted(few_client: Client) -> None:
    await arm(few_client, "refuse", path=f"{V2}:*", times=2)
    await arm(few_client, "refuse", path=f"{LEVEL2}:*", code=500, text="system error")
    async with line(few_client) as one:
        for _ in range(2):
            answer = await one.answer(type="subscribe", topic=f"{V2}:XBTUSDTM", response=True)
            assert (answer["code"], answer["data"]) == (509, "exceed max permits per second")
        await one.subscribe(f"{V2}:XBTUSDTM")
        answer = await one.answer(type="subscribe", topic=f"{LEVEL2}:XBTUSDTM", response=True)
        assert (answer["code"], answer["data"]) == (500, "system error")


async def test_garbage_comes_in_every_form(few_client: Client, few: Shop) -> None:
    topic = f"{V2}:XBTUSDTM"
    async with line(few_client) as one:
        await one.subscribe(topic)
        await one.message(topic)
        for form in ("cut", "binary", "deep", "large", "mystery", "stranger"):
            await arm(few_client, "garbage", form=form, times=1, bytes=2_000_000)
            few.clock.now += 1.0
            async with asyncio.timeout(10):
                frame = await one.socket.recv()
            assert isinstance(frame, bytes) is (form == "binary")
            assert (len(frame) > 2_000_000) is (form == "large")
            if form in ("cut", "binary"):
                with pytest.raises(ValueError):  # noqa: PT011  # both of its kinds are meant
                    json.loads(frame)
            elif form == "deep":
                with pytest.raises(RecursionError):
                    json.loads(frame)
            elif form in ("mystery", "stranger"):
                assert json.loads(frame).get("topic") != topic
            await one.message(topic)


async def test_a_burst_brings_twenty_thousand_messages_a_second(few_client: Client) -> None:
    topic = f"{V2}:XBTUSDTM"
    async with line(few_client) as one:
        await one.subscribe(topic)
        first = await one.message(topic)
        rest = await data(few_client, "/api/v1/ticker", symbol="XBTUSDTM")
        burst = asyncio.create_task(
            control(few_client, "stream/burst", topic=topic, per_second=20_000, seconds=0.2)
        )
        frames = [await one.message(topic) for _ in range(4_000)]
        assert await burst == {"sent": 4_000}
        assert [frame["sn"] for frame in frames] == list(
            range(first["sn"] + 1, first["sn"] + 4_001)
        )
        assert frames[-1]["data"]["bestBidPrice"] == rest["bestBidPrice"]


async def test_a_burst_of_a_topic_that_nobody_hears_is_refused(few_client: Client) -> None:
    body = {"topic": f"{V2}:XBTUSDTM"}
    async with few_client.post("/_control/stream/burst", json=body) as response:
        assert response.status == 400


async def test_a_client_that_does_not_read_is_cut_off_and_counted(
    few_client: Client, few: Shop
) -> None:
    await control(few_client, "stream", queue=2_000)
    ticket = await bullet(few_client)
    endpoint = ticket["instanceServers"][0]["endpoint"]
    small = sockets.create_connection((few_client.host, few_client.port))
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    small.setblocking(False)
    topic = f"{LEVEL2}Depth50:XBTUSDTM"
    async with (
        line(few_client, connect_id="reader") as reader,
        websockets.connect(
            f"{endpoint}?token={ticket['token']}&connectId=slow",
            sock=small, ping_interval=None, compression=None, max_queue=1, close_timeout=0.1,
        ) as slow,
    ):  # fmt: skip
        await slow.send(json.dumps({"id": 1, "type": "subscribe", "topic": topic}))
        await reader.subscribe(topic)
        # In parts that a reader on a busy machine has read before the next one comes.
        for _ in range(25):
            await control(few_client, "stream/burst", topic=topic, per_second=10_000, seconds=0.02)
            for _ in range(200):
                await reader.message(topic)
        state = await look(few_client)
        assert state["tally"]["cut_off"] == 1
        assert [one["connect_id"] for one in state["connections"]] == ["reader"]


async def test_stream_faults_leave_answers_alone_and_the_other_way_round(
    few_client: Client, few: Shop
) -> None:
    await arm(few_client, "silence", times=1)
    await control(few_client, "faults", kind="error", path="/contractMarket/*", times=1)
    await data(few_client, "/api/v1/timestamp")
    async with line(few_client) as one:
        await one.subscribe(f"{V2}:XBTUSDTM")
        while not (await look(few_client))["tally"]["by_topic"]:
            await asyncio.sleep(0.01)
        assert await heard(one) == []
        few.clock.now += 1.0
        await one.message(f"{V2}:XBTUSDTM")
    async with few_client.get("/_control/faults") as response:
        assert [fault["hits"] for fault in await response.json()] == [1, 0]
