"""Answers that are given again: only the same answer to the same question."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.http.dependencies import IfNoneMatchDep, holds
from app.foundation.http.response_cache import of_market, of_memory, of_record, of_scores
from app.foundation.http.responses import answer, not_modified
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import MoneyString, Out, QueryInt, UtcTime
from app.foundation.metrics import Metrics
from app.operations.services.response_version import Stand
from tests.support.harness import PREFIX, serve

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAG = '"1"'


@dataclass
class Bench:
    """A stand that is moved by hand, and how often an answer was worked out."""

    things: tuple[object, ...] = ("first",)
    quotes: object = "quotes"
    committed: object = "committed"
    is_known: bool = True
    fails: bool = False
    made: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    read: int = 0  # how often a request was read
    failure: Exception | None = None
    gate: asyncio.Event | None = None  # answers are not ready before it is open

    def now(self) -> Stand:
        if self.fails:
            raise UnavailableError(Code.SHUTTING_DOWN, "closed")
        return self._stand(self.committed if self.is_known else None)

    async def asked(self) -> Stand:
        return self._stand(self.committed)

    def _stand(self, committed: object | None) -> Stand:
        return Stand(committed, self.quotes, self.things, (), NOON, 0.0)


class ChangeRequest(Out):
    name: str
    price: MoneyString
    share: float | None
    at: UtcTime


SAID = ChangeRequest(name="é\u2028", price=Decimal("1.50"), share=0.1, at=NOON)


def asked_again(bench: Bench) -> APIRouter:
    router = api_router("sample")

    async def reading(request: Request) -> str:
        bench.read += 1
        return request.url.path

    @router.get("/read/{name}")
    @of_memory
    async def read(name: str, path: Annotated[str, Depends(reading)]) -> Response:
        bench.made.append(name)
        if bench.gate is not None:
            await bench.gate.wait()
        if bench.failure is not None:
            raise bench.failure
        return answer(f"{len(bench.made)} {path} {bench.things[0]}".encode())

    @router.get("/request")
    @of_memory
    async def with_request(request: Request) -> Response:
        bench.made.append("request")
        return answer(request.headers.get("x-said", "").encode())

    @router.get("/model")
    @of_memory
    async def model() -> ChangeRequest:
        return SAID

    @router.get("/plain-model")
    async def plain_model() -> ChangeRequest:
        return SAID

    return router


def routes(bench: Bench) -> APIRouter:
    router = api_router("sample")

    @router.get("/kept/{name}")
    @of_memory
    async def kept(name: str, held: IfNoneMatchDep, part: QueryInt = 0) -> Response:
        bench.made.append(name)
        if name == "missing":
            raise NotFoundError(Code.NOT_FOUND, "It is not there.")
        if holds(held, TAG):
            return not_modified(TAG)
        body = f'{{"number":{len(bench.made)},"part":{part}}}'.encode()
        bench.during()
        return answer(body, headers={"ETag": TAG})

    @router.get("/market")
    @of_market
    async def market() -> Response:
        bench.made.append("market")
        return answer(b"{}")

    @router.get("/scores")
    @of_scores
    async def scores() -> Response:
        bench.made.append("scores")
        return answer(b"{}")

    @router.get("/record")
    @of_record
    async def record() -> Response:
        bench.made.append("record")
        return answer(b"{}")

    @router.get("/anew")
    async def anew() -> dict[str, int]:
        bench.made.append("anew")
        return {"number": len(bench.made)}

    return router


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([routes(bench), asked_again(bench)], {"standing": bench}) as client:
        yield client


async def ask(client: httpx2.AsyncClient, path: str = "/kept/a", **headers: str) -> Any:
    answered = await client.get(PREFIX + path, headers=headers)
    return answered.status_code, answered.content


async def test_while_nothing_changes_an_answer_is_worked_out_once() -> None:
    bench = Bench()
    async with opened(bench) as client:
        one = await client.get(f"{PREFIX}/kept/a")
        two = await client.get(f"{PREFIX}/kept/a")
        head = await client.head(f"{PREFIX}/kept/a")
    assert bench.made == ["a"]
    assert one.content == two.content
    numbered = {"x-request-id"}
    assert {name: value for name, value in one.headers.items() if name not in numbered} == {
        name: value for name, value in two.headers.items() if name not in numbered
    }
    assert one.headers["x-request-id"] != two.headers["x-request-id"]
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(one.content))


async def test_what_is_given_again_is_counted_under_its_route() -> None:
    bench, metrics = Bench(), Metrics()
    async with serve([routes(bench)], {"standing": bench}, metrics=metrics) as client:
        for _ in range(3):
            await ask(client)
    route = f"{PREFIX}/kept/{{name}}"
    assert metrics.http_requests.labels("GET", route, "200")._value.get() == 3


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/kept/b", {}),
        ("/kept/a?part=1", {}),
        ("/kept/a", {"If-None-Match": TAG}),
        ("/kept/a", {"If-None-Match": '"other"'}),
    ],
)
async def test_another_question_has_an_answer_of_its_own(path: str, headers: Any) -> None:
    bench = Bench()
    async with opened(bench) as client:
        first = await ask(client)
        other = await ask(client, path, **headers)
        assert other != first
        assert await ask(client, path, **headers) == other
        assert await ask(client) == first
    assert len(bench.made) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Prefer": "respond-async"},
        {"Content-Length": "0"},
    ],
)
async def test_a_request_with_more_to_it_is_always_worked_out(headers: Any) -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client)
        await ask(client, **headers)
        await ask(client, **headers)
    assert len(bench.made) == 3


async def test_what_has_changed_is_worked_out_anew() -> None:
    bench = Bench()
    async with opened(bench) as client:
        first = await ask(client)
        bench.things = ("second",)
        assert await ask(client) != first


async def test_a_change_while_an_answer_is_made_leaves_nothing_old_behind() -> None:
    bench = Bench()

    def change() -> None:
        bench.things = ("second",)

    bench.during = change
    async with opened(bench) as client:
        await ask(client)
        await ask(client)
        await ask(client)
    assert len(bench.made) == 2  # the first may have been made of what was before


async def test_where_only_the_database_knows_it_is_asked() -> None:
    bench = Bench(is_known=False)
    async with opened(bench) as client:
        await ask(client)
        second = await ask(client)
        assert await ask(client) == second
        bench.things = ("second",)
        assert await ask(client) != second
    assert len(bench.made) == 3


async def test_what_is_committed_has_no_part_in_the_market() -> None:
    bench = Bench()
    async with opened(bench) as client:
        for path in ("/kept/a", "/market"):
            await ask(client, path)
        bench.committed = "something else"
        for path in ("/kept/a", "/market"):
            await ask(client, path)
        bench.is_known = False
        await ask(client, "/market")
        assert bench.made == ["a", "market", "a"]
        bench.things = ("second",)
        await ask(client, "/market")
    assert bench.made == ["a", "market", "a", "market"]


async def test_each_answer_is_made_anew_only_for_what_it_is_made_of() -> None:
    bench = Bench()
    paths = ("/kept/a", "/market", "/scores", "/record")
    all_of_them = ["a", "market", "scores", "record"]

    async def made() -> list[str]:
        bench.made.clear()
        for path in paths:
            await ask(client, path)
        return list(bench.made)

    async with opened(bench) as client:
        assert await made() == all_of_them
        assert await made() == []
        bench.quotes = "other quotes"
        assert await made() == ["a", "market"]
        bench.committed = "something else"
        assert await made() == ["a", "record"]
        bench.things = ("second",)
        assert await made() == all_of_them


async def test_a_refusal_is_no_answer_to_keep() -> None:
    bench = Bench()
    async with opened(bench) as client:
        assert (await ask(client, "/kept/missing"))[0] == 404
        assert (await ask(client, "/kept/missing"))[0] == 404
    assert len(bench.made) == 2


async def test_what_is_not_marked_is_worked_out_each_time() -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client, "/anew")
        await ask(client, "/anew")
    assert len(bench.made) == 2


async def test_without_a_database_the_route_says_so_itself() -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client)
        bench.fails = True
        await ask(client)
    assert len(bench.made) == 2


async def test_so_many_answers_are_kept_and_the_oldest_gives_way() -> None:
    bench = Bench()
    async with opened(bench) as client:
        for number in range(257):
            await ask(client, f"/kept/a?part={number}")
        await ask(client, "/kept/a?part=256")
        assert len(bench.made) == 257
        await ask(client, "/kept/a?part=0")
    assert len(bench.made) == 258


async def test_what_has_changed_is_asked_of_the_endpoint_alone() -> None:
    bench = Bench()
    async with opened(bench) as client:
        first = await client.get(f"{PREFIX}/read/a")
        for number in range(2, 5):
            bench.things = (f"thing {number}",)
            again = await client.get(f"{PREFIX}/read/a")
            assert again.text == f"{number} {PREFIX}/read/a thing {number}"
            assert (await client.get(f"{PREFIX}/read/a")).text == again.text
    assert bench.read == 1
    assert first.headers.keys() == again.headers.keys()
    assert again.headers["content-length"] == str(len(again.content))


async def test_who_wants_the_request_itself_is_given_each_one() -> None:
    bench = Bench()
    async with opened(bench) as client:
        assert (await ask(client, "/request", **{"x-said": "one"}))[1] == b"one"
        bench.things = ("second",)
        assert (await ask(client, "/request", **{"x-said": "two"}))[1] == b"two"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NotFoundError(Code.NOT_FOUND, "It is gone."), 404, "not_found"),
        (ZeroDivisionError("a bug"), 500, "internal_error"),
    ],
)
async def test_what_can_no_longer_be_said_is_a_problem(
    failure: Exception, status: int, code: str
) -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client, "/read/a")
        bench.things, bench.failure = ("second",), failure
        refused = await client.get(f"{PREFIX}/read/a")
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert refused.headers["content-type"] == "application/problem+json"
        bench.failure = None
        assert (await ask(client, "/read/a"))[0] == 200


async def test_who_comes_while_an_answer_is_made_waits_for_it() -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client, "/read/a")
        bench.things, bench.gate = ("second",), asyncio.Event()
        many = [asyncio.ensure_future(ask(client, "/read/a")) for _ in range(8)]
        while len(bench.made) < 2:  # the first of them is with the endpoint
            await asyncio.sleep(0)
        bench.gate.set()
        said = set(await asyncio.gather(*many))
    assert len(said) == 1
    assert len(bench.made) == 2


async def test_who_comes_after_a_change_does_not_get_what_was_begun_before_it() -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client, "/read/a")
        bench.things, bench.gate = ("second",), asyncio.Event()
        early = asyncio.ensure_future(ask(client, "/read/a"))
        while len(bench.made) < 2:  # it is with the endpoint
            await asyncio.sleep(0)
        bench.things = ("third",)
        late = asyncio.ensure_future(ask(client, "/read/a"))
        await asyncio.sleep(0.01)
        bench.gate.set()
        await early
        assert (await late)[1] == f"3 {PREFIX}/read/a third".encode()


async def test_one_that_is_cut_off_holds_up_nobody() -> None:
    bench = Bench()
    async with opened(bench) as client:
        await ask(client, "/read/a")
        bench.things, bench.gate = ("second",), asyncio.Event()
        one = asyncio.ensure_future(ask(client, "/read/a"))
        while len(bench.made) < 2:  # it is with the endpoint
            await asyncio.sleep(0)
        two = asyncio.ensure_future(ask(client, "/read/a"))
        one.cancel()
        bench.gate.set()
        assert (await two)[0] == 200


async def test_a_view_is_written_the_same_whoever_writes_it() -> None:
    async with opened(Bench()) as client:
        kept = await client.get(f"{PREFIX}/model")
        plain = await client.get(f"{PREFIX}/plain-model")
    assert kept.content == plain.content
    assert kept.headers["content-type"] == plain.headers["content-type"]
