"""Answers that are given again: only the same answer to the same question."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from starlette.responses import Response

from app.api.deps import IfNoneMatchDep, holds
from app.api.kept import of_market, of_memory
from app.api.responses import answer, not_modified
from app.api.routing import api_router
from app.api.schemas import QueryInt
from app.domain.errors import Code, NotFoundError, UnavailableError
from app.services.standing import Stand
from app.telemetry.metrics import Metrics
from tests.api.harness import PREFIX, serve

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAG = '"1"'


@dataclass
class Bench:
    """A stand that is moved by hand, and how often an answer was worked out."""

    things: tuple[object, ...] = ("first",)
    committed: object = "committed"
    is_known: bool = True
    fails: bool = False
    made: list[str] = field(default_factory=list)
    during: Callable[[], None] = lambda: None

    def now(self) -> Stand:
        if self.fails:
            raise UnavailableError(Code.SHUTTING_DOWN, "closed")
        return Stand(self.committed if self.is_known else None, self.things, (), NOON, 0.0)

    async def asked(self) -> Stand:
        return Stand(self.committed, self.things, (), NOON, 0.0)


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

    @router.get("/anew")
    async def anew() -> dict[str, int]:
        bench.made.append("anew")
        return {"number": len(bench.made)}

    return router


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([routes(bench)], {"standing": bench}) as client:
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
