"""Keys and JSON types of every frame, by hand-written tables and by recorded frames."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from app.sandbox.exchange import LocalExchange
from app.sandbox.options import SandboxOptions
from app.sandbox.server import application
from tests.sandbox.conftest import Shop, data
from tests.sandbox.history.test_replay import DAY_MS, candles, write_csv
from tests.sandbox.streaming import Json, Line, bullet, control, line, look

Client = TestClient[Any, Any]
RECORDED = Path(__file__).resolve().parents[3] / "../shared/kucoin/recorded"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded payloads beside the tree")
# MarketUpdate apart since 2024: whose orders they were.
GONE = {"makerUserId", "takerUserId"}

# s text, n number, [..] a list of; by topic and subject.
FRAMES: dict[tuple[str, str], tuple[set[str], Json]] = {
    ("/contractMarket/tickerV2", "tickerV2"): ({"type", "sn"}, {
        "symbol": "s", "sequence": "n", "bestBidSize": "n", "bestBidPrice": "s",
        "bestAskPrice": "s", "bestAskSize": "n", "ts": "n",
    }),
    ("/contractMarket/ticker", "ticker"): ({"type", "sn"}, {
        "symbol": "s", "sequence": "n", "side": "s", "size": "n", "price": "s",
        "bestBidSize": "n", "bestBidPrice": "s", "bestAskPrice": "s", "tradeId": "s",
        "bestAskSize": "n", "ts": "n",
    }),
    ("/contractMarket/execution", "match"): ({"type", "sn"}, {
        "symbol": "s", "sequence": "n", "side": "s", "size": "n", "price": "s",
        "takerOrderId": "s", "makerOrderId": "s", "tradeId": "s", "ts": "n",
    }),
    ("/contractMarket/level2", "level2"): ({"type", "sn"}, {
        "sequence": "n", "change": "s", "timestamp": "n",
    }),
    ("/contractMarket/level2Depth5", "level2"): ({"type", "sn"}, {
        "bids": [["s", "n"]], "sequence": "n", "timestamp": "n", "ts": "n", "asks": [["s", "n"]],
    }),
    ("/contractMarket/level2Depth50", "level2"): ({"type", "sn"}, {
        "bids": [["s", "n"]], "sequence": "n", "timestamp": "n", "ts": "n", "asks": [["s", "n"]],
    }),
    ("/contractMarket/limitCandle", "candle.stick"): ({"type"}, {
        "symbol": "s", "candles": ["s"] * 7, "time": "n",
    }),
    ("/contractMarket/snapshot", "snapshot.24h"): ({"type", "id"}, {
        "highPrice": "n", "lastPrice": "n", "lowPrice": "n", "price24HoursBefore": "n",
        "priceChg": "n", "priceChgPct": "n", "symbol": "s", "ts": "n", "turnover": "n",
        "volume": "n",
    }),
    ("/contract/instrument", "mark.index.price"): ({"type"}, {
        "markPrice": "n", "indexPrice": "n", "granularity": "n", "timestamp": "n",
    }),
    ("/contract/instrument", "funding.rate"): ({"type"}, {
        "granularity": "n", "fundingRate": "n", "timestamp": "n",
    }),
    ("/contract/announcement", "funding.begin"): (set(), {
        "symbol": "s", "fundingTime": "n", "fundingRate": "n", "timestamp": "n",
    }),
}  # fmt: skip


def letters(value: Any) -> Any:
    """The shape of a JSON value."""
    if isinstance(value, dict):
        return {key: letters(item) for key, item in value.items() if key not in GONE}
    if isinstance(value, list):
        # Of levels one stands for all.
        return [letters(item) for item in (value[:1] if isinstance(value[0], list) else value)]
    return {str: "s", int: "n", float: "n"}.get(type(value), type(value).__name__)


async def one_of_each(client: Client, few: Shop) -> dict[tuple[str, str], Json]:
    """One frame of every topic and subject."""
    few.exchange.clock.set(few.exchange.clock.now_ms() // (8 * 3_600_000) * 8 * 3_600_000 - 500)
    async with line(client) as one:
        for channel in {channel for channel, _ in FRAMES}:
            tail = "_1min" if channel.endswith("Candle") else ""
            await one.subscribe(f"{channel}:XBTUSDTM{tail}")
        few.clock.now += 3.0
        found: dict[tuple[str, str], Json] = {}
        while len(found) < len(FRAMES):
            frame = await one.until(lambda frame: "topic" in frame)
            key = (frame["topic"].partition(":")[0], frame["subject"])
            if key in FRAMES:
                found[key] = frame
    return found


def recordings() -> Iterator[tuple[str, Json]]:
    """The recorded frames of topics that still exist."""
    files = [*sorted((RECORDED / "sdk_ws_public").glob("*.json")), *RECORDED.glob("ws_[el]*.json")]
    for file in files:
        yield file.name, json.loads(file.read_text())
    for name in ("tardis_ws_2024-01.jsonl", "roq_ws_public_2025-08.jsonl"):
        for number, text in enumerate((RECORDED / name).read_text().splitlines()):
            yield f"{name}:{number}", json.loads(text)


async def test_every_frame_has_its_keys_and_types(few_client: Client, few: Shop) -> None:
    for key, frame in (await one_of_each(few_client, few)).items():
        extra, table = FRAMES[key]
        assert set(frame) == {"topic", "subject", "data"} | extra, key
        assert letters(frame["data"]) == table, key


@recorded
def test_the_tables_are_those_of_recorded_frames() -> None:
    met = set()
    for name, frame in recordings():
        key = (frame["topic"].partition(":")[0], frame["subject"])
        extra, table = FRAMES[key]
        met.add(key)
        assert set(frame) == {"topic", "subject", "data"} | extra, name
        assert letters(frame["data"]) == table, name
    assert met == set(FRAMES)


@recorded
async def test_the_ticket_and_the_control_frames_are_those_of_recorded_ones(
    few_client: Client,
) -> None:
    ticket = json.loads((RECORDED / "sdk_rest_public/POST_v1_bullet_public.json").read_text())
    ours, theirs = await bullet(few_client), ticket["data"]
    assert set(ours) == set(theirs)
    for key, value in theirs["instanceServers"][0].items():
        assert type(ours["instanceServers"][0][key]) is type(value)
    frames = json.loads((RECORDED / "ws_control_frames.json").read_text())
    assert frames[0]["frame"]["type"] == "welcome"
    async with line(few_client) as one:
        for said, heard in zip(frames[1::2], frames[2::2], strict=True):
            # The excerpt's candles are of contracts that are listed here too.
            await one.socket.send(json.dumps(said["frame"]))
            answer = await one.until(lambda frame: "id" in frame)
            assert answer == heard["frame"]


async def replayed(client: Client, one: Line, seconds: float, clock: list[float]) -> Json:
    clock[0] += seconds
    frame = await one.message("/contractMarket/tickerV2:XBTUSDTM")
    rest = await data(client, "/api/v1/ticker", symbol="XBTUSDTM")
    assert frame["data"]["bestBidPrice"] == rest["bestBidPrice"]
    return frame


async def test_a_replay_streams_until_its_market_ends(tmp_path: Path) -> None:
    clock = [1000.0]
    options = SandboxOptions(replay=write_csv(tmp_path / "c.csv", candles()))
    exchange = LocalExchange(options, lambda: clock[0], lambda: 0.0)
    async with TestClient(TestServer(application(exchange))) as client, line(client) as one:
        await control(client, "stream", connection_life_ms=30 * DAY_MS)
        await one.subscribe("/contractMarket/tickerV2:XBTUSDTM")
        first = await replayed(client, one, 0.0, clock)
        assert await replayed(client, one, 2.0, clock) != first
        last = await replayed(client, one, 3 * DAY_MS / 1000, clock)
        assert exchange.is_over
        ticks = (await look(client))["tally"]["ticks"]
        clock[0] += 60.0
        await one.answer(type="ping")
        assert last["data"]["sequence"] > first["data"]["sequence"]
        assert (await look(client))["tally"]["ticks"] == ticks
