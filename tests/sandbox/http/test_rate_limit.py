"""The public pool: weights, headers, the fixed window of real time, and what is counted."""

from typing import Any

from aiohttp.test_utils import TestClient

from app.sandbox.http.rate_limit import WEIGHTS, PublicPool
from tests.sandbox.conftest import Shop

Client = TestClient[Any, Any]


def pool_at(quota: int) -> tuple[PublicPool, list[float]]:
    now = [100.0]
    return PublicPool(quota, lambda: now[0]), now


def test_the_window_starts_with_the_first_request_and_refills_whole() -> None:
    pool, now = pool_at(10)
    first = pool.arrive("a", "p", "p", 4)
    assert (first.allowed, first.remaining, first.reset) == (True, 6, "30000")
    now[0] += 29.0
    assert pool.arrive("a", "p", "p", 6).reset == "1000"
    assert not pool.arrive("a", "p", "p", 1).allowed
    now[0] += 1.0
    again = pool.arrive("a", "p", "p", 1)
    assert (again.allowed, again.remaining, again.reset) == (True, 9, "30000")


def test_addresses_have_their_own_windows() -> None:
    pool, _ = pool_at(3)
    assert pool.arrive("a", "p", "p", 3).allowed
    assert not pool.arrive("a", "p", "p", 3).allowed
    assert pool.arrive("b", "p", "p", 3).allowed


def test_requests_after_a_429_count_as_inside_the_closed_window() -> None:
    pool, now = pool_at(5)
    pool.arrive("a", "p", "p", 5)
    pool.arrive("a", "p", "p", 1)
    assert (pool.tally.rejected, pool.tally.in_closed_window) == (1, 0)
    pool.arrive("a", "p", "p", 1)
    assert (pool.tally.rejected, pool.tally.in_closed_window) == (2, 1)
    now[0] += 30.0
    pool.arrive("a", "p", "p", 1)
    assert (pool.tally.rejected, pool.tally.in_closed_window) == (2, 1)
    assert (pool.tally.total, pool.tally.weight) == (4, 6)


def test_a_light_request_after_a_rejected_heavy_one_is_also_late() -> None:
    pool, _ = pool_at(5)
    pool.arrive("a", "p", "p", 4)
    assert not pool.arrive("a", "p", "p", 3).allowed
    assert pool.arrive("a", "p", "p", 1).allowed
    assert pool.tally.in_closed_window == 1


def test_a_window_closed_by_hand_tells_once_and_then_counts() -> None:
    pool, now = pool_at(100)
    pool.close(2.0, "present")
    told = pool.arrive("a", "p", "p", 1)
    assert (told.allowed, told.remaining, told.reset, told.headers) == (False, 0, "2000", True)
    now[0] += 1.5
    assert pool.arrive("a", "p", "p", 1).reset == "500"
    assert pool.tally.in_closed_window == 1
    now[0] += 0.5
    assert pool.arrive("a", "p", "p", 1).allowed
    pool.close(1.0, "absent")
    assert pool.arrive("a", "p", "p", 1).headers is False
    pool.close(1.0, "-7")
    assert pool.arrive("a", "p", "p", 1).reset == "-7"


async def test_every_endpoint_costs_its_weight(client: Client) -> None:
    queries = {"symbol": "XBTUSDTM", "granularity": "60", "from": "1", "to": "2"}
    for template, weight in WEIGHTS.items():
        query = dict(queries)
        if template.split("/")[3] in ("index", "interest", "premium"):
            query["symbol"] = {
                "index": ".KXBTUSDT",
                "interest": ".XBTINT",
                "premium": ".XBTUSDTMPI",
            }[template.split("/")[3]]
        path = template.replace("{symbol}", "XBTUSDTM")
        method = "POST" if path == "/api/v1/bullet-public" else "GET"
        async with client.request(method, path, params=query) as first:
            assert first.status == 200, path
            before = int(first.headers["gw-ratelimit-remaining"])
            assert first.headers["gw-ratelimit-limit"] == "2000"
            assert int(first.headers["gw-ratelimit-reset"]) <= 30_000
        async with client.request(method, path, params=query) as second:
            assert before - int(second.headers["gw-ratelimit-remaining"]) == weight, path


async def test_beyond_the_quota_comes_429_until_the_real_window_ends(
    client: Client, whole: Shop
) -> None:
    whole.exchange.pool.quota = 6
    whole.exchange.clock.set(speed=1000.0)
    for _ in range(3):
        async with client.get("/api/v1/timestamp") as response:
            assert response.status == 200
    # A minute of exchange time in a moment of real time does not open the window.
    whole.clock.now += 0.06
    async with client.get("/api/v1/timestamp") as response:
        body = await response.json()
        assert response.status == 429
        assert body == {"code": "429000", "msg": "Too Many Requests"}
        assert response.headers["gw-ratelimit-remaining"] == "0"
        left = int(response.headers["gw-ratelimit-reset"])
    whole.monotonic.now += left / 1000
    async with client.get("/api/v1/timestamp") as response:
        assert response.status == 200


async def test_counters_tell_paths_times_and_late_arrivals(client: Client, whole: Shop) -> None:
    whole.exchange.pool.quota = 4
    for _ in range(4):
        async with client.get("/api/v1/timestamp"):
            pass
    async with client.get("/api/v1/contracts/XBTUSDTM"):
        pass
    async with client.get("/_control/counters") as response:
        counted = await response.json()
    assert counted["total"] == 5
    assert counted["weight"] == 4
    assert counted["rejected"] == 3
    assert counted["in_closed_window"] == 2
    assert counted["by_path"] == {"/api/v1/timestamp": 4, "/api/v1/contracts/{symbol}": 1}
    assert counted["by_status"] == {"200": 2, "429": 3}
    assert [row["in_closed_window"] for row in counted["arrivals"]] == [False] * 3 + [True] * 2
    assert counted["arrivals"][-1]["target"] == "/api/v1/contracts/XBTUSDTM"
    async with client.post("/_control/reset"):
        pass
    async with client.get("/_control/counters") as response:
        assert (await response.json())["total"] == 0
