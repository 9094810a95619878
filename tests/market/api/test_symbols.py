"""Symbols, universe and market over HTTP: the whole service in front of the local exchange."""

import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import FrameType
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest

from app.foundation.idempotency import Command
from app.market.domain.models import CandleSeries, Interval
from app.market.services.backfill import first_fill
from app.market.services.exchange_clock import instant
from app.market.services.symbol_queries import SymbolFilter, select_symbols
from app.market.storage.candles import CandleRepository
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import Running, running, settings_for

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
HOUR_MS = Interval.HOUR.ms
FRESHNESS = {"as_of", "data_source", "data_status"}


@dataclass(frozen=True)
class Front:
    service: Running
    exchange_url: str

    async def answer(self, path: str, **params: Any) -> tuple[int, Any]:
        got = await self.service.client.get(PREFIX + path, params=params)
        return got.status_code, got.json()

    async def fault(self, **fault: Any) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.exchange_url}/_control/faults", json=fault) as done,
        ):
            assert done.status == 200


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[Front]:
    """A service that has asked for nothing yet."""
    options = SandboxOptions(quota=1_000_000, contracts=14)
    async with serve_exchange(options, time.time) as url:
        settings = settings_for(url, database_url, background=False)
        async with running(settings) as service:
            yield Front(service, url)


@pytest.fixture
async def front(empty: Front) -> Front:
    await first_fill(empty.service.services.my_symbols.market)
    return empty


async def test_symbols_are_listed_searched_filtered_and_paged(front: Front) -> None:
    get = front.service.get
    whole = await get("/symbols")
    assert whole.keys() >= FRESHNESS
    assert (whole["data_source"], whole["data_status"]) == ("sandbox", "fresh")
    names = [item["symbol"] for item in whole["items"]]
    assert names == sorted(names)
    assert (len(names), whole["next_cursor"]) == (14, None)

    seen: list[str] = []
    cursor = None
    while True:
        page = await get("/symbols", limit=5, **({"cursor": cursor} if cursor else {}))
        seen += [item["symbol"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        status, problem = await front.answer("/symbols", limit=5, cursor=cursor, search="B")
        assert (status, problem["code"]) == (422, "validation_failed")
    assert seen == names

    found = await get("/symbols", search="xbtusdtm")
    assert [item["symbol"] for item in found["items"]] == ["BTCUSDT"]
    ones = {item["symbol"]: item for item in whole["items"]}
    for flag in (True, False):
        some = await get("/symbols", eligible=str(flag).lower())
        assert {item["symbol"] for item in some["items"]} == {
            name for name, item in ones.items() if item["eligible"] is flag
        }
    assert all((item["excluded_by"] is None) == item["eligible"] for item in ones.values())
    layer1 = await get("/symbols", sector="layer1", status="Open")
    assert "BTCUSDT" in [item["symbol"] for item in layer1["items"]]
    assert {item["sector"] for item in layer1["items"]} == {"layer1"}
    status, _ = await front.answer("/symbols", status="Sleeping")
    assert status == 422


HOSTILE = (
    *("%", "_", "BTC%", "B_C", "' OR 1=1 --", "' UNION SELECT", "\\", "*", ".*", "^B", "[A-Z]"),
    *("(a+)+$", "(A|A)*B", "(.*)*x", "x" * 64, "(" * 64, "A" * 63 + "!"),
)


async def test_I14_search_text_is_literal(front: Front) -> None:
    names = [item["symbol"] for item in (await front.service.get("/symbols"))["items"]]
    assert not any(sign in name for name in names for sign in "%_'.*^[(x!")
    for text in HOSTILE:
        assert (await front.service.get("/symbols", search=text))["items"] == [], text
    for text in ("bt", "C", "usdt"):
        found = await front.service.get("/symbols", search=text)
        held = {item["symbol"] for item in found["items"]}
        assert {name for name in names if text.upper() in name} <= held


async def test_I14_searching_costs_the_same_whatever_the_text_says(front: Front) -> None:
    market = front.service.services.my_symbols.market
    moment = market.moment()

    def called(text: str) -> list[str]:
        """The functions of Python and of C that run, in their order."""
        names: list[str] = []

        def note(frame: FrameType, event: str, function: object) -> None:
            if event == "call":
                names.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")
            elif event == "c_call":
                names.append(getattr(function, "__qualname__", repr(function)))

        former = sys.getprofile()
        sys.setprofile(note)
        try:
            assert select_symbols(moment, frozenset(), SymbolFilter(search=text)) == ()
        finally:
            sys.setprofile(former)
        return names

    called("NOTHERE")  # the funnel is worked out once
    harmless = called("NOTHERE")
    assert not [name for name in harmless if name.startswith(("re.", "Pattern.", "fnmatch."))]
    for text in HOSTILE:
        assert called(text) == harmless, text


async def test_a_symbol_is_shown_whole_under_any_spelling(front: Front) -> None:
    service = front.service.services.my_symbols
    await service.scoring.calculate()
    entry = service.registry.resolve("BTCUSDT")
    shown = await front.service.get("/symbols/BTCUSDT")
    assert shown.keys() >= FRESHNESS
    for spelling in ("xbtusdtm", "BTC-USDT", quote("BTC/USDT:USDT", safe=""), entry.symbol_id):
        again = await front.service.get(f"/symbols/{spelling}")
        assert again["symbol"] == shown["symbol"]
    assert shown["symbol"]["symbol_id"] == entry.symbol_id
    specification = shown["specification"]
    assert specification["multiplier"] == "0.001"
    assert specification["valid_to"] is None
    assert shown["specification_history"] == [specification]
    assert shown["score"]["symbol"] == "BTCUSDT"
    assert shown["score"]["status"] == "scored"
    assert shown["symbol"]["in_portfolio"] is False

    added = await service.portfolio.add("BTCUSDT", "a test", Command("test", "request-1"))
    assert added is not None
    assert (await front.service.get("/symbols/BTCUSDT"))["symbol"]["in_portfolio"] is True
    members = await front.service.get("/symbols", in_portfolio="true")
    assert [item["symbol"] for item in members["items"]] == ["BTCUSDT"]

    formats = await front.service.get("/symbols/BTCUSDTM/formats")
    assert formats == {
        "symbol_id": entry.symbol_id,
        "standard": "BTCUSDT",
        "kucoin_futures": "XBTUSDTM",
        "kucoin_spot": "BTC-USDT",
        "ccxt": "BTC/USDT:USDT",
        "binance": "BTCUSDT",
    }


async def test_D17_unknown_and_ambiguous_spellings_say_what_was_meant(front: Front) -> None:
    for path in ("/symbols/{}", "/symbols/{}/formats", "/symbols/{}/eligibility", "/market/{}"):
        status, problem = await front.answer(path.format("BTCUSDTT"))
        assert (status, problem["code"]) == (422, "symbol_unknown")
        assert "BTCUSDT" in problem["near_matches"]
        assert "BTCUSDTT" not in str(problem)
    for path in ("/symbols/{}", "/symbols/{}/formats", "/market/{}"):
        status, problem = await front.answer(path.format(quote("ВTCUSDT")))
        assert (status, problem["code"]) == (422, "symbol_unknown"), "the first letter is Cyrillic"
        assert problem["near_matches"][0] == "BTCUSDT"
    for path in ("/symbols/ВTCUSDT\u202e", "/jobs/В"):
        status, problem = await front.answer(quote(path))
        assert (status, problem["code"]) == (404, "not_found"), "no spelling, or no symbol's place"
    said = await front.service.post("/symbols/validate", {"symbols": ["ВTCUSDT", "1000SHIB"]})
    assert said["valid"] == []
    look_alike, part = said["invalid"]
    assert (look_alike["code"], part["code"]) == ("symbol_unknown", "symbol_unknown")
    assert look_alike["near_matches"][0] == "BTCUSDT", "said, and not taken for it"
    status, problem = await front.answer("/market/BTCUSDTT/candles", interval="1h")
    assert (status, problem["code"]) == (422, "symbol_unknown")


async def test_spellings_are_validated_one_by_one(front: Front) -> None:
    sent = ["btc/usdt:usdt", "BTCUSDTT", "BTC", "x" * 200, "XBTUSDTM"]
    got = await front.service.post("/symbols/validate", {"symbols": sent})
    assert [(item["position"], item["symbol"]) for item in got["valid"]] == [
        (0, "BTCUSDT"),
        (4, "BTCUSDT"),
    ]
    invalid = {item["position"]: item for item in got["invalid"]}
    assert set(invalid) == {1, 2, 3}
    assert invalid[1]["near_matches"][0] == "BTCUSDT"
    assert invalid[1]["code"] == invalid[3]["code"] == "symbol_unknown"
    refused: list[dict[str, Any]] = [
        {"symbols": []},
        {"symbols": ["A"] * 101},
        {"symbols": [1]},
        {},
    ]
    for bad in refused:
        answer = await front.service.client.post(f"{PREFIX}/symbols/validate", json=bad)
        assert answer.status_code == 422


async def test_eligibility_and_funnel_agree_and_add_up(front: Front) -> None:
    funnel = await front.service.get("/universe/funnel")
    assert funnel.keys() >= FRESHNESS
    assert funnel["universe"] == 14
    failed = sum(stage["failed"] for stage in funnel["stages"])
    assert failed + funnel["eligible"] == funnel["universe"]
    entered = funnel["universe"]
    for stage in funnel["stages"]:
        assert (stage["entered"], stage["passed"]) == (entered, entered - stage["failed"])
        entered = stage["passed"]
    assert entered == funnel["eligible"]
    assert sum(funnel["sectors"].values()) == funnel["universe"]
    assert funnel["unclassified"] == funnel["sectors"].get("unclassified", 0)
    excluded = {item["symbol"]: item["rule"] for item in funnel["excluded"]}
    for item in (await front.service.get("/symbols"))["items"]:
        one = await front.service.get(f"/symbols/{item['symbol']}/eligibility")
        assert one["first_failure"] == excluded.get(item["symbol"])
        assert one["eligible"] is item["eligible"] is (item["symbol"] not in excluded)
        assert [rule["name"] for rule in one["rules"]] == [
            stage["name"] for stage in funnel["stages"]
        ]
        turnover = next(rule for rule in one["rules"] if rule["name"] == "turnover_24h")
        assert turnover["limit"] == "5000000"
        assert isinstance(turnover["value"], str)


async def test_a_sync_says_what_changed_or_why_nothing_was_believed(front: Front) -> None:
    quiet = await front.service.post("/symbols/sync", {})
    assert (quiet["listed"], quiet["added"], quiet["quarantined"]) == (14, [], None)
    await front.fault(kind="contract_status", symbol="ETHUSDTM", status="Paused", listed=True)
    changed = await front.service.post("/symbols/sync", {})
    assert changed["updated"] == ["ETHUSDT"]
    assert (await front.service.get("/symbols/ETHUSDT"))["symbol"]["status"] == "Paused"
    await front.fault(kind="empty_list", path="/api/v1/contracts/active")
    doubted = await front.service.post("/symbols/sync", {})
    assert doubted["quarantined"] == "14 of 14 contracts vanished at once"
    assert (doubted["delisted"], doubted["confirmations"]) == ([], 1)
    assert len((await front.service.get("/symbols"))["items"]) == 14
    await front.fault(kind="reset", path="/api/v1/contracts/active")
    answer = await front.service.client.post(f"{PREFIX}/symbols/sync")
    assert answer.status_code in {502, 503, 504}


async def test_the_market_of_a_symbol_with_the_age_of_each_part(front: Front) -> None:
    shown = await front.service.get("/market/BTC-USDT")
    assert (shown["symbol"], shown["contract"]) == ("BTCUSDT", "XBTUSDTM")
    assert (shown["data_source"], shown["data_status"]) == ("sandbox", "fresh")
    amounts = ("last_price", "bid", "ask", "mark_price", "index_price", "funding_rate")
    for name in (*amounts, "turnover_24h", "volume_24h", "open_interest"):
        assert isinstance(shown[name], str), name
    assert float(shown["bid"]) < float(shown["ask"])
    assert shown["spread_bp"] > 0
    assert shown["depth_50bp"] is None, "its twenty levels end before 50 bp"
    assert set(shown["ages"]) == {
        *("contracts", "tickers", "books", "funding", "daily_candles", "hourly_candles")
    }
    assert {part["status"] for part in shown["ages"].values()} == {"fresh"}
    assert shown["as_of"].endswith("Z")


async def test_candles_page_through_what_is_stored(front: Front) -> None:
    newest = await front.service.get("/market/BTCUSDT/candles", interval="1d", limit=10)
    assert newest.keys() >= FRESHNESS
    assert (newest["data_status"], newest["next_cursor"]) == ("fresh", None)
    assert len(newest["items"]) == 10
    opened = [item["opened_at"] for item in newest["items"]]
    assert opened == sorted(opened)
    closed = datetime.fromisoformat(opened[-1]) + timedelta(days=1)
    assert datetime.fromisoformat(newest["as_of"]) == closed, "not when the prices last came"
    first = newest["items"][0]
    assert float(first["low"]) <= float(first["open"]) <= float(first["high"])
    assert isinstance(first["volume"], str)

    bounds = {"from": opened[2], "to": opened[8]}
    seen: list[str] = []
    cursor = None
    while True:
        page = await front.service.get(
            "/market/BTCUSDT/candles",
            interval="1d",
            limit=4,
            **bounds,
            **({"cursor": cursor} if cursor else {}),
        )
        seen += [item["opened_at"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == opened[2:8]
    hours = await front.service.get("/market/BTCUSDT/candles", interval="1h", limit=500)
    assert len(hours["items"]) == 400
    for wrong in (
        {"interval": "3m"},
        {},
        {"interval": "1h", "limit": "0"},
        {"interval": "1h", "from": "2026-01-01T00:00:00"},
        {"interval": "1h", "from": opened[3], "to": opened[2]},
    ):
        status, _ = await front.answer("/market/BTCUSDT/candles", **wrong)
        assert status == 422, wrong
    bounds = {"from": "9998-01-01T00:00Z", "to": "9999-01-01T00:00Z"}
    far = await front.service.get("/market/BTCUSDT/candles", interval="1h", **bounds)
    assert far["items"] == []
    later = await front.service.get(
        "/market/BTCUSDT/candles", interval="1h", **{"from": "9998-01-01T00:00Z"}
    )
    assert later["items"] == []
    ahead = {"to": "9999-01-01T00:00Z", "limit": 10}
    same = await front.service.get("/market/BTCUSDT/candles", interval="1d", **ahead)
    assert same["items"][-1:] == newest["items"][-1:], "the newest are those that there are"


async def test_I22_a_reversed_range_is_refused_wherever_one_is_asked_for(front: Front) -> None:
    client = front.service.client
    document = (await client.get("/openapi.json")).json()
    ranged = {}
    for path, methods in document["paths"].items():
        parameters = methods.get("get", {}).get("parameters", ())
        names = {one["name"] for one in parameters}
        times = {one["name"] for one in parameters if one["schema"].get("format") == "date-time"}
        if {"from", "to"} <= times:
            ranged[path.replace("{symbol}", "BTCUSDT")] = names
    assert len(ranged) >= 6, ranged
    bounds = {"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    for path, names in ranged.items():
        interval = {"interval": "1h"} if "interval" in names else {}
        answer = await client.get(path, params={**bounds, **interval})
        problem(answer, 422, "validation_failed")
        ((place, _),) = {tuple(one["loc"]) for one in answer.json()["errors"]}
        assert place == "query", path


async def test_I22_ten_years_of_candles_come_in_pages(front: Front) -> None:
    """A page holds at most 500; an interval that the exchange lacks is refused."""
    service = front.service.services.my_symbols
    entry = service.registry.resolve("BTCUSDT")
    years = 10 * 365 * 24
    first_ms = service.market.server_clock.now_ms() // HOUR_MS * HOUR_MS - years * HOUR_MS
    opened = np.arange(years, dtype=np.int64) * HOUR_MS + first_ms
    flat = dict.fromkeys(("open", "high", "low", "close", "volume", "turnover"), np.ones(years))
    async with service.market.database.write() as unit:
        await unit.get(CandleRepository).save(
            {entry.symbol_id: CandleSeries(opened, **flat)}, Interval.HOUR
        )

    where = "/market/BTCUSDT/candles"
    asked: dict[str, Any] = {"interval": "1h", "from": instant(first_ms - 1).isoformat()}
    assert len((await front.service.get(where, **asked))["items"]) == 100
    for wrong in ({"limit": 501}, {"limit": 10**9}, {"interval": "3m"}):
        status, _ = await front.answer(where, **{**asked, **wrong})
        assert status == 422, wrong
    seen: list[str] = []
    pages = 0
    while pages == 0 or asked["cursor"] is not None:
        shown = {name: value for name, value in asked.items() if value is not None}
        page = await front.service.get(where, limit=500, **shown)
        assert len(page["items"]) <= 500
        seen += [one["opened_at"] for one in page["items"]]
        asked["cursor"] = page["next_cursor"]
        pages += 1
    assert pages == -(-years // 500)
    assert [round(datetime.fromisoformat(one).timestamp() * 1000) for one in seen] == list(opened)


async def test_without_the_exchange_nothing_is_made_up(empty: Front) -> None:
    status, problem = await empty.answer("/symbols/BTCUSDT")
    assert (status, problem["code"]) == (503, "exchange_unavailable")
    status, problem = await empty.answer("/market/BTCUSDT")
    assert (status, problem["code"]) == (503, "exchange_unavailable")
    listed = await empty.service.get("/symbols")
    assert (listed["items"], listed["data_status"], listed["as_of"]) == ([], "unavailable", None)
    funnel = await empty.service.get("/universe/funnel")
    assert (funnel["universe"], funnel["eligible"]) == (0, 0)
    answer = await empty.service.client.post(
        f"{PREFIX}/symbols/validate", json={"symbols": ["BTCUSDT"]}
    )
    assert answer.status_code == 503


@pytest.mark.parametrize("path", ["/symbols", "/universe/funnel"])
async def test_E03_lists_of_the_universe_are_encoded_in_another_thread(
    path: str, front: Front, encoding_threads: list[int]
) -> None:
    status, _ = await front.answer(path)
    assert status == 200
    assert encoding_threads
    assert threading.get_ident() not in encoding_threads
