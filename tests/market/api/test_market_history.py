"""Candles of all intervals, funding, open interest, books and price impact over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from app.market.domain.models import Interval
from app.market.services.backfill import first_fill
from app.market.services.exchange_clock import instant
from app.market.services.history import CHUNK_CANDLES
from app.market.storage.market_data import MarketRepository, MarketSnapshot
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import Running, running, settings_for

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KLINE, DEPTH, FUNDING = (
    f"/api/v1/{path}" for path in ("kline/query", "level2/depth100", "contract/funding-rates")
)
MINUTES = {
    "1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "8h": 480, "12h": 720,
    "1d": 1440, "1w": 10080,
}  # fmt: skip
CANDLES = "/market/BTCUSDT/candles"
DAY_MS = Interval.DAY.ms


@dataclass(frozen=True)
class Scene:
    """A service after its first fill, and an exchange whose time stands still."""

    service: Running
    url: str
    web: aiohttp.ClientSession
    now_ms: int

    async def exchange(self, path: str, **params: Any) -> Any:
        async with self.web.get(self.url + path, params=params) as answer:
            return (await answer.json())["data"]

    async def requests(self, path: str) -> int:
        async with self.web.get(f"{self.url}/_control/counters") as answer:
            return int((await answer.json())["by_path"].get(path, 0))

    async def fault(self, **fault: Any) -> None:
        async with self.web.post(f"{self.url}/_control/faults", json=fault) as answer:
            assert answer.status == 200

    async def all_pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.service.get(path, **params, **cursor)
            assert len(page["items"]) <= params["limit"]
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with _scene(database_url) as made:
        yield made


@asynccontextmanager
async def _scene(database_url: str, **kucoin: Any) -> AsyncIterator[Scene]:
    options = SandboxOptions(quota=1_000_000, contracts=14, speed=0.0)
    async with (
        serve_exchange(options, time.time) as url,
        running(settings_for(url, database_url, background=False, **kucoin)) as service,
        aiohttp.ClientSession() as web,
    ):
        await first_fill(service.services.my_symbols.market)
        scene = Scene(service, url, web, 0)
        yield Scene(service, url, web, await scene.exchange("/api/v1/timestamp"))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize("interval", MINUTES)
async def test_candles_of_every_interval_are_those_of_the_exchange(
    scene: Scene, interval: str
) -> None:
    step = MINUTES[interval] * 60_000
    end_ms = scene.now_ms // 60_000 * 60_000
    since_ms = end_ms - 30 * step
    sent = await scene.exchange(
        KLINE, symbol="XBTUSDTM", granularity=MINUTES[interval], **{"from": since_ms, "to": end_ms}
    )
    page = await scene.service.get(
        CANDLES, interval=interval, limit=100,
        **{"from": instant(since_ms).isoformat(), "to": instant(end_ms).isoformat()},
    )  # fmt: skip
    closed = [row for row in sent if row[0] + step <= scene.now_ms - 2_000 and row[0] < end_ms]
    assert len(closed) >= 28, "the running one is the exchange's only other"
    assert [_ms(one["opened_at"]) for one in page["items"]] == [row[0] for row in closed]
    for one, row in zip(page["items"], closed, strict=True):
        assert [float(one[name]) for name in ("open", "high", "low", "close")] == row[1:5]
        assert Decimal(one["volume"]) == int(row[5]) * Decimal("0.001"), "lots of 0.001 BTC"
        assert len(one["volume"].partition(".")[2]) <= 3
    assert page["data_status"] == "fresh"
    assert _ms(page["as_of"]) == closed[-1][0] + step
    if interval in {"1h", "1d"}:
        assert page["age_s"] is None, "stored"
    else:
        assert 0.0 <= page["age_s"] < 60.0
    if interval == "1w":
        assert instant(closed[0][0]).weekday() == 0, "whatever day the exchange begins a week on"


async def test_an_unknown_interval_is_refused_with_those_that_exist(scene: Scene) -> None:
    for unknown in ("3m", "6h", "1M", ""):
        answer = await scene.service.client.get(
            PREFIX + CANDLES, params={"interval": unknown, "limit": 5}
        )
        body = problem(answer, 422, "validation_failed")
        for known in MINUTES:
            assert known in body["errors"][0]["allowed"]
            assert known in body["detail"]


async def test_pages_of_fetched_candles_lose_and_repeat_nothing(scene: Scene) -> None:
    end_ms = (scene.now_ms // 60_000 - 1) * 60_000  # the exchange may be a little behind
    since_ms = end_ms - 700 * 60_000
    bounds = {"from": instant(since_ms).isoformat(), "to": instant(end_ms).isoformat()}
    for limit in (90, 500):
        items = await scene.all_pages(CANDLES, interval="1m", limit=limit, **bounds)
        opened = [_ms(one["opened_at"]) for one in items]
        assert opened == sorted(set(opened))
        assert (opened[0], opened[-1]) == (since_ms, end_ms - 60_000)
        assert len(opened) == 700
    # A page that the exchange has nothing for is empty, and names the next one.
    early = {"from": instant(scene.now_ms - 3 * DAY_MS).isoformat(), "to": bounds["to"]}
    page = await scene.service.get(CANDLES, interval="1m", limit=500, **early)
    assert page["items"] == []
    assert page["next_cursor"] is not None
    items = await scene.all_pages(CANDLES, interval="1m", limit=500, **early)
    assert len(items) > 1_400, "the exchange has minutes of one day"
    ahead = {"from": "9998-01-01T00:00Z", "to": "9999-01-01T00:00Z"}
    assert await scene.all_pages(CANDLES, interval="1m", limit=500, **ahead) == []


async def test_fetched_candles_are_cached_and_asked_for_once_at_a_time(scene: Scene) -> None:
    first_ms = scene.now_ms // (CHUNK_CANDLES * 300_000) * CHUNK_CANDLES * 300_000
    bounds = {
        "from": instant(first_ms - 10 * 300_000).isoformat(), "to": instant(first_ms).isoformat()
    }  # fmt: skip
    before = await scene.requests(KLINE)
    pages = await asyncio.gather(
        *(scene.service.get(CANDLES, interval="5m", **bounds) for _ in range(8))
    )
    assert {str(page["items"]) for page in pages} == {str(pages[0]["items"])}
    once = await scene.requests(KLINE)
    assert once - before in {1, 2}, "a chunk is one request, and one more if candles are missing"
    again = await scene.service.get(CANDLES, interval="5m", **bounds)
    assert again["items"] == pages[0]["items"]
    assert again["age_s"] >= pages[0]["age_s"]
    assert await scene.requests(KLINE) == once
    await scene.service.get("/market/ETHUSDT/candles", interval="5m", **bounds)
    assert await scene.requests(KLINE) > once, "another symbol"


async def test_cached_candles_are_fetched_anew_once_another_one_has_closed(scene: Scene) -> None:
    market = scene.service.services.my_symbols.market
    now_ms = scene.now_ms // 60_000 * 60_000 + 30_000  # no candle closes meanwhile
    for advanced_ms in (0, 180_000):
        async with scene.web.post(
            f"{scene.url}/_control/clock", json={"now_ms": now_ms + advanced_ms}
        ) as done:
            assert done.status == 200
        await market.refresh_market()
        newest = await scene.service.get(CANDLES, interval="1m", limit=5)
        last_ms = now_ms + advanced_ms - 90_000
        assert _ms(newest["items"][-1]["opened_at"]) == last_ms
        assert _ms(newest["as_of"]) == last_ms + 60_000
        before = await scene.requests(KLINE)
        assert (await scene.service.get(CANDLES, interval="1m", limit=5)) == {
            **newest, "age_s": pytest.approx(newest["age_s"], abs=30.0),
        }  # fmt: skip
        assert await scene.requests(KLINE) == before
    later = market.monotonic
    market.monotonic = lambda: later() + 3_700.0
    await scene.service.get(CANDLES, interval="1m", limit=5)
    assert await scene.requests(KLINE) > before, "the exchange may correct a closed candle"


async def test_without_the_exchange_cached_candles_are_stale_and_others_an_error(
    scene: Scene,
) -> None:
    known = await scene.service.get(CANDLES, interval="4h", limit=20)
    await scene.fault(kind="reset", path=KLINE)
    answer = await scene.service.client.get(
        PREFIX + CANDLES, params={"interval": "8h", "limit": 20}
    )
    assert answer.status_code in {502, 503, 504}
    assert answer.json()["code"].startswith("exchange_")
    same = await scene.service.get(CANDLES, interval="4h", limit=20)
    assert (same["items"], same["data_status"]) == (known["items"], "fresh")
    market = scene.service.services.my_symbols.market
    later = market.monotonic
    market.monotonic = lambda: later() + 3_700.0
    old = await scene.service.get(CANDLES, interval="4h", limit=20)
    assert (old["items"], old["data_status"]) == (known["items"], "stale")
    assert old["age_s"] > 3_600.0


async def test_requests_on_demand_leave_most_of_the_quota_to_the_feed(database_url: str) -> None:
    async with _scene(database_url, quota_per_window=150) as scene:
        seen = 0
        for interval in ("2h", "4h", "8h", "12h"):
            answer = await scene.service.client.get(
                PREFIX + CANDLES, params={"interval": interval, "limit": 5}
            )
            if answer.status_code == 200:
                seen += 1
                continue
            body = problem(answer, 503, "exchange_rate_limited")
            assert 1 <= body["retry_after_s"] <= 31
        assert seen in {1, 2}, "a tenth of 150, and six for a chunk"
        cached = await scene.service.get(CANDLES, interval="2h", limit=5)
        assert len(cached["items"]) == 5
        stored = await scene.service.get(CANDLES, interval="1h", limit=5)
        assert len(stored["items"]) == 5


async def test_funding_history_joins_memory_and_exchange(scene: Scene) -> None:
    path, eight_hours = "/market/BTCUSDT/funding", 8 * Interval.HOUR.ms
    before = await scene.requests(FUNDING)
    week = await scene.service.get(path)
    assert await scene.requests(FUNDING) == before, "the last days are in memory"
    assert len(week["items"]) == 21
    assert (week["data_status"], week["next_cursor"]) == ("fresh", None)

    since_ms = scene.now_ms - 40 * DAY_MS
    wanted = {"from": instant(since_ms).isoformat(), "limit": 50}
    items = await scene.all_pages(path, **wanted)
    sent = []
    until_ms = scene.now_ms
    while until_ms > since_ms:
        window = {"from": max(since_ms, until_ms - 10 * DAY_MS), "to": until_ms}
        sent += await scene.exchange(FUNDING, symbol="XBTUSDTM", **window)
        until_ms -= 10 * DAY_MS + 1
    rates = {row["timepoint"]: row["fundingRate"] for row in sent}
    assert [_ms(one["settled_at"]) for one in items] == sorted(rates)
    assert len(items) == 120
    for one in items:
        assert float(one["rate"]) == pytest.approx(rates[_ms(one["settled_at"])])
        assert one["interval_ms"] == eight_hours
    asked = await scene.requests(FUNDING)
    assert await scene.all_pages(path, **wanted) == items
    assert await scene.requests(FUNDING) == asked, "cached"

    dated = next(
        entry.symbol
        for entry in scene.service.services.my_symbols.registry.index.entries
        if entry.contract.kind == "dated"
    )
    nothing = await scene.service.get(f"/market/{dated}/funding")
    assert (nothing["items"], nothing["next_cursor"]) == ([], None)


async def test_open_interest_history_is_what_this_service_recorded(scene: Scene) -> None:
    services = scene.service.services.my_symbols
    entry = services.registry.resolve("BTCUSDT")
    path = "/market/BTCUSDT/open-interest"
    first = await scene.service.get(path)
    assert len(first["items"]) == 1, "the exchange keeps no history"
    assert (first["data_status"], first["as_of"]) == ("fresh", first["items"][0]["taken_at"])
    hour = Interval.HOUR.ms
    rows = [
        MarketSnapshot(entry.symbol_id, scene.now_ms - at * hour, float(at) or None, 2.5, None)
        for at in range(200, 0, -1)
    ]
    other_id = services.registry.resolve("ETHUSDT").symbol_id
    other = MarketSnapshot(other_id, rows[0].taken_ms, 9.0, 9.0, 9.0)
    async with services.market.database.write() as unit:
        await unit.get(MarketRepository).save_snapshots([*rows, other])
    since = instant(rows[0].taken_ms).isoformat()
    items = await scene.all_pages(path, limit=70, **{"from": since})
    assert len(items) == 201
    assert [_ms(one["taken_at"]) for one in items[:200]] == [one.taken_ms for one in rows]
    assert items[0] == {
        "taken_at": items[0]["taken_at"], "open_interest": "200", "mark_price": "2.5",
        "turnover_24h": None,
    }  # fmt: skip
    assert len(await scene.all_pages(path, limit=500)) == 167 + 1, "seven days by default"


async def test_the_book_has_the_levels_that_are_known_with_their_age(scene: Scene) -> None:
    sent = await scene.exchange(DEPTH, symbol="XBTUSDTM")
    before = await scene.requests(DEPTH)
    for levels, shown in ((5, 5), (20, 20), (100, 100)):
        book = await scene.service.get("/market/BTCUSDT/book", levels=levels)
        for side in ("bids", "asks"):
            rows = [[float(one["price"]), one["lots"]] for one in book[side]]
            assert rows == sent[side][:shown]
            assert all(
                Decimal(one["quantity"]) == one["lots"] * Decimal("0.001") for one in book[side]
            )
        assert book["levels_known"] == (20 if levels <= 20 else 100)
        assert (book["sequence"], book["data_status"]) == (sent["sequence"], "fresh")
        assert 0.0 <= book["age_s"] < 60.0
        assert book["reason"] is None
    assert await scene.requests(DEPTH) == before, "nothing is fetched for a reader"
    for wrong in (0, 101):
        answer = await scene.service.client.get(
            f"{PREFIX}/market/BTCUSDT/book", params={"levels": wrong}
        )
        problem(answer, 422, "validation_failed")

    scene.service.services.my_symbols.market.live.age_by(100_000.0)
    old = await scene.service.get("/market/BTCUSDT/book")
    assert (old["data_status"], old["bids"]) == ("stale", book["bids"][:20])
    assert old["age_s"] > 100_000.0


async def test_impact_sweeps_the_known_levels_and_marks_what_they_cannot_fill(scene: Scene) -> None:
    sent = await scene.exchange(DEPTH, symbol="XBTUSDTM")
    mid = (sent["bids"][0][0] + sent["asks"][0][0]) / 2.0
    for side, rows, sign in (("buy", sent["asks"], 1.0), ("sell", sent["bids"], -1.0)):
        values = [price * lots * 0.001 for price, lots in rows]
        shown, deep = sum(values[:20]), sum(values)
        for notional, used in ((values[0] / 2, 1), (sum(values[:3]) - 1.0, 3), (shown + 5.0, 21)):
            asked = f"{notional:.6f}"
            got = await scene.service.get("/market/BTCUSDT/impact", notional=asked, side=side)
            left, coins = float(asked), 0.0
            for (price, _), value in zip(rows, values, strict=True):
                taken = min(left, value)
                coins, left = coins + taken / price, left - taken
            average = float(asked) / coins
            assert float(got["average_price"]) == pytest.approx(average, rel=1e-11)
            slippage = sign * (average / mid - 1.0) * 10_000.0
            assert float(got["slippage_bp"]) == pytest.approx(slippage, abs=1e-4)
            assert slippage > 0.0
            assert (got["is_complete"], got["filled_share"]) == (True, "1")
            assert (got["levels_used"], got["levels_known"]) == (used, 20 if used <= 20 else 100)
            assert float(got["best_price"]) == rows[0][0]
            assert float(got["worst_price"]) == rows[used - 1][0]
            assert Decimal(got["notional"]) == Decimal(asked)
            assert (got["side"], got["reason"]) == (side, None)
            assert (got["data_status"], got["symbol"]) == ("fresh", "BTCUSDT")
        much = await scene.service.get(
            "/market/BTCUSDT/impact", notional=f"{deep * 4:.2f}", side=side
        )
        assert much["is_complete"] is False
        assert (much["average_price"], much["slippage_bp"]) == (None, None), "not extrapolated"
        assert float(much["filled_share"]) == pytest.approx(0.25, abs=2e-6)
        assert (much["levels_used"], much["levels_known"]) == (100, 100)
        assert float(much["notional_known"]) == pytest.approx(deep)
        assert "100 known levels hold" in much["reason"]
    good = {"notional": "1", "side": "buy"}
    for wrong in ({"notional": "0"}, {"notional": "-5"}, {"notional": "1e9"}, {"side": "long"}):
        answer = await scene.service.client.get(
            f"{PREFIX}/market/BTCUSDT/impact", params={**good, **wrong}
        )
        problem(answer, 422, "validation_failed")


async def test_a_symbol_without_a_book_has_neither_levels_nor_impact(scene: Scene) -> None:
    services = scene.service.services.my_symbols
    books = services.market.live.market.books
    symbol = next(
        entry.symbol
        for entry in services.registry.index.entries
        if entry.contract.code not in books
    )
    book = await scene.service.get(f"/market/{symbol}/book")
    assert (book["bids"], book["asks"], book["data_status"]) == (None, None, "unavailable")
    impact = await scene.service.get(f"/market/{symbol}/impact", notional="1000", side="buy")
    assert (impact["is_complete"], impact["filled_share"]) == (False, None)
    assert (impact["average_price"], impact["slippage_bp"]) == (None, None)
    assert book["reason"] == impact["reason"] == "No order book of this symbol has been received."
    for path in ("book", "candles?interval=1m", "funding", "open-interest"):
        answer = await scene.service.client.get(f"{PREFIX}/market/NOSUCH/{path}")
        problem(answer, 422, "symbol_unknown", extra=frozenset({"near_matches"}))
