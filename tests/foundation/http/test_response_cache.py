"""Response cache: the same response only for the same request and the same state."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.health import Mode
from app.foundation.http import response_cache
from app.foundation.http.dependencies import IfNoneMatchDep, holds
from app.foundation.http.permissions import requires
from app.foundation.http.response_cache import (
    CachedResponse,
    LruCache,
    ResponseCacheMiddleware,
    accepts_gzip,
    cacheable,
)
from app.foundation.http.responses import answer, not_modified
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import MoneyString, Out, QueryInt, UtcTime
from app.foundation.metrics import Metrics
from app.foundation.principals import Role
from app.foundation.state_version import Input, StateVersion
from tests.support.harness import PREFIX, make_api, open_client, serve

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAG, WEAK = '"run"', 'W/"run"'
LARGE = b'{"text":"' + b"much the same " * 40_000 + b'"}'
PARTS = (Input.SCORES, Input.SYMBOLS, Input.MARKET, Input.PORTFOLIO)


@dataclass
class Source:
    """Versions that a test changes by hand, and the endpoints that have run."""

    numbers: dict[Input, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    mode: Mode = Mode.NORMAL
    has_to_ask: bool = False
    fails: bool = False
    runs: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    failure: Exception | None = None
    gate: asyncio.Event | None = None  # endpoints answer once it is set

    def version(self, depends_on: Input) -> StateVersion | None:
        if self.fails:
            raise UnavailableError(Code.SHUTTING_DOWN, "closed")
        asks = self.has_to_ask and Input.PORTFOLIO in depends_on
        return None if asks else self._version(depends_on)

    async def load_version(self, depends_on: Input) -> StateVersion:
        await asyncio.sleep(0)
        return self._version(depends_on)

    def _version(self, depends_on: Input) -> StateVersion:
        numbers = (number for part, number in self.numbers.items() if part in depends_on)
        return self.mode, *numbers

    def change(self, part: Input = Input.MARKET) -> None:
        self.numbers[part] += 1


class Sample(Out):
    name: str
    price: MoneyString
    share: float | None
    at: UtcTime


SAMPLE = Sample(name="é\u2028", price=Decimal("1.50"), share=0.1, at=NOON)


def routes(source: Source) -> APIRouter:
    router = api_router("sample")

    @router.get("/cached/{name}")
    @cacheable(depends_on=Input.DECISION)
    @requires(Role.VIEWER)
    async def cached(name: str, held: IfNoneMatchDep, part: QueryInt = 0) -> Response:
        source.runs.append(name)
        if source.gate is not None:
            await source.gate.wait()
        if source.failure is not None:
            raise source.failure
        if holds(held, TAG):
            return not_modified(TAG)
        body = f"{len(source.runs)} {part} {list(source.numbers.values())}".encode()
        source.during()
        return answer(body, headers={"ETag": TAG})

    for path, part in (("scores", Input.SCORES), ("market", Input.MARKET),
                       ("symbols", Input.SYMBOLS), ("record", Input.PORTFOLIO)):  # fmt: skip
        router.get(f"/{path}", name=path)(of_part(source, path, part))

    @router.get("/large")
    @cacheable(depends_on=Input.SCORES, compress=True)
    @requires(Role.VIEWER)
    async def large(held: IfNoneMatchDep) -> Response:
        source.runs.append("large")
        return not_modified(TAG) if holds(held, TAG) else answer(LARGE, headers={"ETag": TAG})

    @router.get("/versioned")
    @cacheable(depends_on=Input.PORTFOLIO)
    @requires(Role.VIEWER)
    async def versioned() -> Response:
        return answer(LARGE, headers={"ETag": TAG})

    _add_uncached(router, source)
    return router


def _add_uncached(router: APIRouter, source: Source) -> None:
    @router.get("/stream")
    @cacheable(depends_on=Input.SCORES)
    @requires(Role.VIEWER)
    async def stream() -> Response:
        source.runs.append("stream")
        return StreamingResponse(iter(["one ", "two"]))

    @router.get("/model")
    @cacheable(depends_on=Input.DECISION)
    @requires(Role.VIEWER)
    async def model() -> Sample:
        return SAMPLE

    @router.get("/plain-model")
    @requires(Role.VIEWER)
    async def plain_model() -> Sample:
        return SAMPLE

    @router.get("/unmarked")
    @requires(Role.VIEWER)
    async def unmarked(request: Request) -> dict[str, int]:
        source.runs.append(request.url.path)
        return {"number": len(source.runs)}

    @router.post("/cached/{name}")
    @requires(Role.VIEWER)
    async def change(name: str) -> dict[str, str]:
        source.runs.append(f"POST {name}")
        return {"name": name}


def of_part(source: Source, path: str, part: Input) -> Any:
    @requires(Role.VIEWER)
    @cacheable(depends_on=part)
    async def give() -> Response:
        source.runs.append(path)
        return answer(b"{}")

    return give


@asynccontextmanager
async def opened(source: Source) -> AsyncIterator[httpx2.AsyncClient]:
    state = {"state_versions": source, "mode": lambda: source.mode}
    async with serve([routes(source)], state) as client:
        yield client


async def ask(client: httpx2.AsyncClient, path: str = "/cached/a", **headers: str) -> Any:
    response = await client.get(PREFIX + path, headers=headers)
    return response.status_code, response.content


async def test_a_response_is_repeated_while_nothing_changes() -> None:
    source = Source()
    async with opened(source) as client:
        one = await client.get(f"{PREFIX}/cached/a")
        two = await client.get(f"{PREFIX}/cached/a")
        head = await client.head(f"{PREFIX}/cached/a")
    assert source.runs == ["a"]
    assert one.content == two.content
    own = {"x-request-id"}
    assert {name: value for name, value in one.headers.items() if name not in own} == {
        name: value for name, value in two.headers.items() if name not in own
    }
    assert one.headers["x-request-id"] != two.headers["x-request-id"]
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(one.content))


async def test_cached_responses_count_under_their_route() -> None:
    source, metrics = Source(), Metrics()
    async with serve([routes(source)], {"state_versions": source}, metrics=metrics) as client:
        for _ in range(3):
            await ask(client)
    route = f"{PREFIX}/cached/{{name}}"
    assert metrics.http_requests.labels("GET", route, "200")._value.get() == 3


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/cached/b", {}),
        ("/cached/a?part=1", {}),
        ("/cached/a", {"If-None-Match": TAG}),
        ("/cached/a", {"If-None-Match": '"other"'}),
    ],
)
async def test_another_request_has_its_own_response(path: str, headers: Any) -> None:
    source = Source()
    async with opened(source) as client:
        first = await ask(client)
        other = await ask(client, path, **headers)
        assert other != first
        assert await ask(client, path, **headers) == other
        assert await ask(client) == first
    assert len(source.runs) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Prefer": "respond-async"},
        {"Content-Length": "0"},
        {"Cookie": "session=1"},
    ],
)
async def test_requests_with_other_inputs_reach_their_endpoint(headers: Any) -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        await ask(client, **headers)
        await ask(client, **headers)
    assert len(source.runs) == 3


async def test_a_foreign_host_is_refused_before_the_cache() -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        assert (await ask(client, Host="evil.example"))[0] == 421
    assert source.runs == ["a"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("has_to_ask", [False, True])
async def test_a_change_of_each_part_renews_the_response(part: Input, has_to_ask: bool) -> None:
    source = Source(has_to_ask=has_to_ask)
    async with opened(source) as client:
        first = await ask(client)
        assert await ask(client) == first
        source.change(part)
        second = await ask(client)
        assert second != first
        assert await ask(client) == second
    assert len(source.runs) == 2


async def test_a_response_is_renewed_only_for_the_parts_that_it_depends_on() -> None:
    source = Source()
    paths = {"scores": Input.SCORES, "market": Input.MARKET,
             "symbols": Input.SYMBOLS, "record": Input.PORTFOLIO}  # fmt: skip

    async def runs() -> list[str]:
        source.runs.clear()
        for path in paths:
            await ask(client, f"/{path}")
        return list(source.runs)

    async with opened(source) as client:
        assert await runs() == list(paths)
        assert await runs() == []
        for path, part in paths.items():
            source.change(part)
            assert await runs() == [path]


async def test_a_change_while_the_endpoint_runs_leaves_nothing_old_behind() -> None:
    source = Source()
    source.during = source.change
    async with opened(source) as client:
        await ask(client)
        source.during = lambda: None
        second = await ask(client)
        assert await ask(client) == second
    assert len(source.runs) == 2  # the first may have been made of the state before


async def test_errors_are_never_cached() -> None:
    source = Source(failure=NotFoundError(Code.NOT_FOUND, "It is not there."))
    async with opened(source) as client:
        assert (await ask(client))[0] == 404
        assert (await ask(client))[0] == 404
        assert len(source.runs) == 2
        source.failure = None
        assert (await ask(client))[0] == 200


async def test_unmarked_routes_other_methods_and_streams_are_never_cached() -> None:
    source = Source()
    async with opened(source) as client:
        for _ in range(2):
            await ask(client, "/unmarked")
            await client.post(f"{PREFIX}/cached/a")
            assert (await ask(client, "/stream"))[1] == b"one two"
    assert len(source.runs) == 6


async def test_an_unreadable_state_leaves_the_refusal_to_the_endpoint() -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        source.fails = True
        await ask(client)
        await ask(client)
    assert len(source.runs) == 3


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NotFoundError(Code.NOT_FOUND, "It is gone."), 404, "not_found"),
        (ZeroDivisionError("a bug"), 500, "internal_error"),
    ],
)
async def test_a_failed_renewal_is_a_problem_and_the_next_one_succeeds(
    failure: Exception, status: int, code: str
) -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        source.change()
        source.failure = failure
        refused = await client.get(f"{PREFIX}/cached/a")
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert refused.headers["content-type"] == "application/problem+json"
        source.failure = None
        assert (await ask(client))[0] == 200


async def test_a_repeated_response_carries_the_present_mode() -> None:
    source = Source()
    async with opened(source) as client:

        async def mode() -> str:
            response = await client.get(f"{PREFIX}/cached/a")
            assert response.headers["x-frame-options"] == "DENY"
            return str(response.headers["x-service-mode"])

        assert [await mode(), await mode()] == ["NORMAL", "NORMAL"]
        assert len(source.runs) == 1
        source.mode = Mode.DEGRADED
        assert [await mode(), await mode()] == ["DEGRADED", "DEGRADED"]
        assert len(source.runs) == 2


async def test_a_response_during_whose_making_the_mode_turned_is_not_repeated() -> None:
    source = Source()

    def freeze() -> None:
        source.mode = Mode.FROZEN

    async with opened(source) as client:
        source.during = freeze
        first = await client.get(f"{PREFIX}/cached/a")
        source.mode, source.during = Mode.NORMAL, lambda: None
        second = await client.get(f"{PREFIX}/cached/a")
    modes = [one.headers["x-service-mode"] for one in (first, second)]
    assert (modes, len(source.runs)) == (["FROZEN", "NORMAL"], 2)


async def renewing(source: Source, count: int) -> None:
    """Until `count` endpoints have begun."""
    while len(source.runs) < count:
        await asyncio.sleep(0)


async def test_requests_during_a_renewal_share_it() -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        source.change()
        source.gate = asyncio.Event()
        many = [asyncio.ensure_future(ask(client)) for _ in range(8)]
        await renewing(source, 2)
        source.gate.set()
        assert len(set(await asyncio.gather(*many))) == 1
    assert len(source.runs) == 2


async def test_a_request_after_a_change_does_not_share_the_renewal_before_it() -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        source.change()
        source.gate = asyncio.Event()
        early = asyncio.ensure_future(ask(client))
        await renewing(source, 2)
        source.change()
        late = asyncio.ensure_future(ask(client))
        await renewing(source, 3)
        source.gate.set()
        await early
        assert (await late)[1].endswith(b"[0, 0, 2, 0]")
        assert (await ask(client))[1].endswith(b"[0, 0, 2, 0]")


async def test_a_cancelled_or_failed_renewal_blocks_no_request() -> None:
    source = Source()
    async with opened(source) as client:
        await ask(client)
        source.change()
        source.gate = asyncio.Event()
        one = asyncio.ensure_future(ask(client))
        await renewing(source, 2)
        two = asyncio.ensure_future(ask(client))
        await asyncio.sleep(0)
        one.cancel()
        source.gate.set()
        assert (await two)[0] == 200


async def test_a_model_is_encoded_as_its_uncached_response() -> None:
    async with opened(Source()) as client:
        cached = await client.get(f"{PREFIX}/model")
        plain = await client.get(f"{PREFIX}/plain-model")
    assert cached.content == plain.content
    assert cached.headers["content-type"] == plain.headers["content-type"]


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True),
        ("deflate, GZip;q=0.5, br", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip ; q=1.000", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity;q=0, gzip;q=0.1", True),
        ("gzip, *;q=0", True),
        ("", False),
        ("br", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("identity, gzip;q=0.9", False),
        ("gzip;q=nan", False),
        ("gzip;q=1.9", False),
        ("gzip;level=9", False),
        ("gzip " * 100, False),
    ],
)
def test_gzip_goes_to_clients_that_accept_it(accepted: str, expected: bool) -> None:
    assert accepts_gzip(accepted.lower().encode()) is expected


async def test_gzip_carries_the_same_body_under_a_weak_tag() -> None:
    async with opened(Source()) as client:
        for _ in range(2):  # fresh, and from the cache
            plain = await get(client, "/large", "identity")
            packed = await get(client, "/large", "gzip")
            assert plain.content == packed.content == LARGE
            assert (plain.headers["etag"], packed.headers["etag"]) == (TAG, WEAK)
            assert "content-encoding" not in plain.headers
            assert packed.headers["content-encoding"] == "gzip"
            assert int(packed.headers["content-length"]) < len(LARGE) / 20
            assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
            head = await client.head(f"{PREFIX}/large", headers={"Accept-Encoding": "gzip"})
            assert (head.content, head.headers["etag"]) == (b"", WEAK)
            assert head.headers["content-length"] == packed.headers["content-length"]


@pytest.mark.parametrize(("encoding", "tag"), [("gzip", WEAK), ("identity", TAG)])
@pytest.mark.parametrize("held", [TAG, WEAK, f'"other", {WEAK}', "*"])
async def test_either_tag_is_answered_with_304(encoding: str, tag: str, held: str) -> None:
    async with opened(Source()) as client:
        for _ in range(2):
            response = await get(client, "/large", encoding, **{"If-None-Match": held})
            assert (response.status_code, response.content) == (304, b"")
            assert (response.headers["etag"], response.headers["vary"]) == (tag, "Accept-Encoding")
        other = await get(client, "/large", encoding, **{"If-None-Match": '"run-gzip"'})
        assert other.status_code == 200


async def test_a_tag_for_if_match_stays_strong() -> None:
    async with opened(Source()) as client:
        response = await get(client, "/versioned", "gzip")
    assert (response.headers["etag"], "content-encoding" in response.headers) == (TAG, False)


async def test_a_body_is_compressed_once_per_version(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(plain: bytes, *how: Any, **named: Any) -> bytes:
        sizes.append(len(plain))
        return gzip.compress(plain, *how, **named)

    monkeypatch.setattr(response_cache, "gzip", type("Gzip", (), {"compress": counted}))
    source = Source()
    async with opened(source) as client:
        await get(client, "/large", "gzip")
        source.change(Input.MARKET)
        await get(client, "/large", "gzip")
        assert sizes == [len(LARGE)]
        source.change(Input.SCORES)
        await asyncio.gather(*(get(client, "/large", "gzip") for _ in range(5)))
    assert sizes == [len(LARGE)] * 2
    assert source.runs == ["large"] * 2


async def get(client: httpx2.AsyncClient, path: str, encoding: str, **headers: str) -> Any:
    return await client.get(PREFIX + path, headers={"Accept-Encoding": encoding, **headers})


async def test_the_cache_is_bounded_in_bytes_and_drops_the_least_recently_used() -> None:
    source = Source()
    api = make_api({"state_versions": source}, routers=[routes(source)])
    middleware: Any = api.outermost
    while not isinstance(middleware, ResponseCacheMiddleware):
        middleware = middleware.app
    middleware.cache.max_bytes = 3 * 1200
    async with open_client(api) as client:
        for name in "abc":
            await ask(client, f"/cached/{name}")
        await ask(client, "/cached/a")
        assert len(source.runs) == 3
        await ask(client, "/cached/d")  # drops b
        await ask(client, "/cached/a")
        assert len(source.runs) == 4
        await ask(client, "/cached/b")
        assert len(source.runs) == 5
        await ask(client, "/large")  # larger than the cache
        assert 0 < middleware.cache.size <= middleware.cache.max_bytes


def test_replaced_and_dropped_responses_give_their_bytes_back() -> None:
    cache, source = LruCache(max_bytes=20_000), Source()

    def response(size: int) -> CachedResponse:
        return CachedResponse(200, (), b"x" * size, None, source, Input.SCORES, ())

    for size in (10_000, 1_000, 19_000, 30_000):
        cache.put(("/a", b"", b"", False, False), response(size))
    assert (cache.size, len(cache)) == (0, 0)
