"""Each fault of the control endpoint, seen from the client's side."""

import asyncio
import gzip
import json
import time
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import START_MS, Shop, data, failure

Client = TestClient[Any, Any]
ACTIVE = "/api/v1/contracts/active"
STAMP = "/api/v1/timestamp"


async def arm(client: Client, **fault: Any) -> int:
    async with client.post("/_control/faults", json=fault) as response:
        assert response.status == 200, await response.text()
        return int((await response.json())["ids"][0])


async def test_faults_act_on_their_path_so_many_times_after_so_many(client: Client) -> None:
    await arm(client, kind="status", status=502, path=STAMP, times=2, skip=1)
    statuses = []
    for _ in range(5):
        async with client.get(STAMP) as response:
            statuses.append(response.status)
    assert statuses == [200, 502, 502, 200, 200]
    assert (await data(client, "/api/v1/status"))["status"] == "open"


async def test_faults_are_listed_and_taken_back(client: Client) -> None:
    first = await arm(client, kind="error", code="100005", path=STAMP)
    second = await arm(client, kind="delay", seconds=0.0)
    async with client.get("/_control/faults") as response:
        listed = await response.json()
    assert [item["id"] for item in listed] == [first, second]
    assert listed[0]["params"] == {"code": "100005"}
    assert await failure(client, STAMP) == (200, "100005")
    async with client.delete("/_control/faults", params={"id": first}):
        pass
    assert await data(client, STAMP) == START_MS
    async with client.delete("/_control/faults"):
        pass
    async with client.get("/_control/faults") as response:
        assert await response.json() == []


async def test_several_faults_at_once_and_unknown_ones(client: Client) -> None:
    async with client.post(
        "/_control/faults",
        json=[{"kind": "too_many", "path": STAMP}, {"kind": "html", "path": "/api/v1/status"}],
    ) as response:
        assert len((await response.json())["ids"]) == 2
    assert await failure(client, STAMP) == (200, "200002")
    for wrong in ({"kind": "nonsense"}, {"path": "x"}, {"kind": "window"}):
        async with client.post("/_control/faults", json=wrong) as response:
            assert response.status == 400
            assert "error" in await response.json()


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "status", "status": 500}, 500, "500000"),
        ({"kind": "status", "status": 404}, 404, "404000"),
        ({"kind": "status", "status": 503, "code": "1", "message": "x"}, 503, "1"),
        ({"kind": "error", "code": "300000"}, 200, "300000"),
        ({"kind": "too_many"}, 200, "200002"),
        ({"kind": "overload"}, 429, "429000"),
    ],
)
async def test_failure_envelopes(
    client: Client, fault: dict[str, Any], status: int, code: str
) -> None:
    await arm(client, **fault)
    assert await failure(client, STAMP) == (status, code)


async def test_overload_has_no_rate_headers(client: Client) -> None:
    await arm(client, kind="overload", times=1)
    async with client.get(STAMP) as response:
        assert not [name for name in response.headers if name.lower().startswith("gw-")]
    async with client.get(STAMP) as response:
        assert "gw-ratelimit-remaining" in response.headers


@pytest.mark.parametrize(("reset", "header"), [("absent", None), ("86400000000", "86400000000")])
async def test_a_window_closed_by_hand(
    client: Client, whole: Shop, reset: str, header: str | None
) -> None:
    async with client.post(
        "/_control/faults", json={"kind": "window", "seconds": 5, "reset": reset}
    ):
        pass
    for _ in range(2):
        async with client.get(STAMP) as response:
            assert response.status == 429
            assert response.headers.get("gw-ratelimit-reset") == header
    assert whole.exchange.pool.tally.in_closed_window == 1
    whole.monotonic.now += 5.0
    assert await data(client, STAMP) == START_MS


async def test_pages_that_are_not_json(client: Client) -> None:
    await arm(client, kind="cloudflare", path=STAMP, times=1)
    async with client.get(STAMP) as response:
        assert (response.status, response.content_type) == (429, "text/html")
        assert "1015" in await response.text()
    await arm(client, kind="html", path=STAMP, times=1)
    async with client.get(STAMP) as response:
        assert (response.status, response.content_type) == (200, "text/html")
    await arm(client, kind="empty", path=STAMP, times=1)
    async with client.get(STAMP) as response:
        assert await response.read() == b""
    await arm(client, kind="garbage", path=STAMP, times=1)
    async with client.get(STAMP) as response:
        with pytest.raises(UnicodeDecodeError):
            (await response.read()).decode()
    await arm(client, kind="no_data", path=STAMP, times=1)
    async with client.get(STAMP) as response:
        assert await response.json() == {"code": "200000", "msg": "Position does not exist"}
    await arm(client, kind="content_type", value="image/png", path=STAMP, times=1)
    async with client.get(STAMP) as response:
        assert response.content_type == "image/png"
        assert json.loads(await response.read())["data"] == START_MS
    await arm(client, kind="redirect", location="http://127.0.0.1:9/x", path=STAMP, times=1)
    async with client.get(STAMP, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "http://127.0.0.1:9/x")


async def test_cut_padded_and_exploding_bodies(client: Client) -> None:
    await arm(client, kind="truncate", path=ACTIVE, times=1, fraction=0.25)
    async with client.get(ACTIVE) as response:
        with pytest.raises(json.JSONDecodeError):
            json.loads(await response.read())
    await arm(client, kind="oversize", path=STAMP, times=1, bytes=3_000_000)
    async with client.get(STAMP) as response:
        body = await response.read()
        assert len(body) == 3_000_000
        assert json.loads(body)["data"] == START_MS
    await arm(client, kind="gzip_bomb", path=STAMP, times=1, bytes=20 << 20)
    client.session._auto_decompress = False
    async with client.get(STAMP) as response:
        small = await response.read()
    assert len(small) < 50_000
    assert len(gzip.decompress(small)) == 20 << 20


async def test_slow_and_silent_answers(client: Client) -> None:
    await arm(client, kind="delay", seconds=0.2, path=STAMP, times=1)
    started = time.monotonic()
    assert await data(client, STAMP) == START_MS
    assert time.monotonic() - started >= 0.2
    await arm(client, kind="drip", pieces=4, seconds=0.05, path=STAMP, times=1)
    started = time.monotonic()
    assert await data(client, STAMP) == START_MS
    assert time.monotonic() - started >= 0.2
    hang = await arm(client, kind="hang", path=STAMP)
    with pytest.raises(TimeoutError):
        await client.get(STAMP, timeout=aiohttp.ClientTimeout(total=0.1))
    waiting = asyncio.create_task(data(client, STAMP))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    async with client.delete("/_control/faults", params={"id": hang}):
        pass
    assert await waiting == START_MS
    await arm(client, kind="reset", path=STAMP, times=2)
    with pytest.raises(aiohttp.ClientError):
        await client.get(STAMP)


async def contract(client: Client, symbol: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = await data(client, ACTIVE)
    return next(item for item in listed if item["symbol"] == symbol)


async def test_malformed_records(client: Client) -> None:
    spoil = {"kind": "malformed", "path": ACTIVE, "symbol": "SOLUSDTM", "times": 1}
    await arm(client, **spoil, field="multiplier", value=None)
    assert (await contract(client, "SOLUSDTM"))["multiplier"] is None
    await arm(client, **spoil, field="multiplier", remove=True)
    assert "multiplier" not in await contract(client, "SOLUSDTM")
    await arm(client, **spoil, field="multiplier", value=True)
    assert (await contract(client, "SOLUSDTM"))["multiplier"] is True
    await arm(client, **spoil, field="multiplier", value="1.2E-7")
    assert (await contract(client, "SOLUSDTM"))["multiplier"] == "1.2E-7"
    await arm(client, **spoil, field="markPrice", raw="1.2E-7")
    async with client.get(ACTIVE) as response:
        assert '"markPrice":1.2E-7' in await response.text()
    await arm(client, **spoil, field="markPrice", value=None)
    assert (await contract(client, "XBTUSDTM"))["markPrice"] is not None
    rows = {"symbol": "XBTUSDTM", "granularity": "60"}
    await arm(client, kind="malformed", path="/api/v1/kline/*", field=4, value="x", times=1)
    assert {row[4] for row in await data(client, "/api/v1/kline/query", **rows)} == {"x"}
    await arm(client, kind="malformed", path="/api/v1/ticker", field="price", raw="NaN", times=1)
    async with client.get("/api/v1/ticker", params={"symbol": "XBTUSDTM"}) as response:
        assert '"price":NaN' in await response.text()
    await arm(client, kind="scalar", path="/api/v1/ticker", value=7, times=1)
    assert await data(client, "/api/v1/ticker", symbol="XBTUSDTM") == 7


async def test_lists_that_lose_repeat_or_shuffle(client: Client) -> None:
    await arm(client, kind="vanish", path=ACTIVE, share=0.25, times=1)
    kept = await data(client, ACTIVE)
    assert len(kept) == 556 - 139
    assert kept[0]["symbol"] == "XBTUSDTM"
    await arm(client, kind="vanish", path=ACTIVE, symbols=["XBTUSDTM"], times=1)
    assert "XBTUSDTM" not in {item["symbol"] for item in await data(client, ACTIVE)}
    await arm(client, kind="empty_list", path=ACTIVE, times=1)
    assert await data(client, ACTIVE) == []
    query = {"symbol": "XBTUSDTM", "granularity": "60"}
    right = await data(client, "/api/v1/kline/query", **query)
    await arm(client, kind="duplicate", path="/api/v1/kline/query", times=1)
    assert await data(client, "/api/v1/kline/query", **query) == [r for r in right for _ in (1, 2)]
    await arm(client, kind="unordered", path="/api/v1/kline/query", times=1)
    shuffled = await data(client, "/api/v1/kline/query", **query)
    assert shuffled != right
    assert sorted(shuffled) == right


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"ms": -90_000}, START_MS - 90_000),
        ({"unit": "s"}, START_MS // 1000),
        ({"unit": "ns"}, START_MS * 1_000_000),
    ],
)
async def test_a_skewed_clock(client: Client, fault: dict[str, Any], expected: int) -> None:
    await arm(client, kind="clock_skew", **fault)
    assert await data(client, STAMP) == expected
    assert (await data(client, "/api/v1/status"))["status"] == "open"


async def test_the_exchange_is_closed_or_only_cancels(client: Client) -> None:
    for state in ("close", "cancelonly"):
        await arm(client, kind="exchange_status", status=state, message="upgrade", times=2)
        assert await data(client, "/api/v1/status") == {"status": state, "msg": "upgrade"}
        assert await data(client, STAMP) == START_MS


async def test_headers_can_be_set_and_taken_away(client: Client) -> None:
    await arm(
        client, kind="headers", set={"gw-ratelimit-reset": None, "gw-ratelimit-limit": "many"}
    )
    async with client.get(STAMP) as response:
        assert "gw-ratelimit-reset" not in response.headers
        assert response.headers["gw-ratelimit-limit"] == "many"


async def test_contracts_change_their_status(client: Client) -> None:
    for status, listed in (
        ("Paused", True),
        ("CancelOnly", True),
        ("BeingSettled", True),
        ("Frozen", True),
        ("Settled", False),
        ("Closed", False),
        ("Init", False),
    ):
        async with client.post(
            "/_control/faults",
            json={"kind": "contract_status", "symbol": "ETHUSDTM", "status": status},
        ):
            pass
        active = {item["symbol"]: item["status"] for item in await data(client, ACTIVE)}
        assert active.get("ETHUSDTM") == (status if listed else None)
        assert (await data(client, "/api/v1/contracts/ETHUSDTM"))["status"] == status
        query = {"symbol": "ETHUSDTM"}
        if listed:
            await data(client, "/api/v1/ticker", **query)
        else:
            assert (await failure(client, "/api/v1/ticker", **query))[1] == "200003"
    async with client.delete("/_control/faults"):
        pass
    assert (await contract(client, "ETHUSDTM"))["status"] == "Open"
