"""Both forms of an answer: the same bytes for who unpacks, a tag of its own, packed once."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from starlette.responses import Response

from app.foundation.http.dependencies import IfNoneMatchDep, holds
from app.foundation.http.packing import Form, Packer, packed_from
from app.foundation.http.response_cache import Shelf, of_market, of_memory
from app.foundation.http.responses import answer, not_modified
from app.foundation.http.routing import api_router
from tests.foundation.http.test_kept import Bench
from tests.support.harness import PREFIX, serve

TAG, PACKED = '"run"', '"run-gzip"'
LARGE = b'{"text":"' + b"much the same " * 40_000 + b'"}'
SMALL = b"{}"
ALWAYS, NEVER = 0, None


def routes(bench: Bench) -> APIRouter:
    router = api_router("sample")

    async def said(name: str, held: frozenset[str], body: bytes) -> Response:
        bench.made.append(name)
        return not_modified(TAG) if holds(held, TAG) else answer(body, headers={"ETag": TAG})

    @router.get("/large")
    @of_market
    async def large(held: IfNoneMatchDep) -> Response:
        return await said("large", held, LARGE)

    @router.get("/small")
    @of_market
    async def small(held: IfNoneMatchDep) -> Response:
        return await said("small", held, SMALL)

    @router.get("/versioned")
    @of_memory
    async def versioned(held: IfNoneMatchDep) -> Response:
        return await said("versioned", held, LARGE)

    return router


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([routes(bench)], {"standing": bench}) as client:
        yield client


async def asked(client: httpx2.AsyncClient, path: str, takes: str, **headers: str) -> Any:
    return await client.get(PREFIX + path, headers={"Accept-Encoding": takes, **headers})


@pytest.mark.parametrize(
    ("accepted", "least"),
    [
        ("gzip", 4096),
        ("deflate, GZip;q=0.5, br", 4096),
        ("x-gzip", 4096),
        ("*", 4096),
        ("gzip ; q=1.000", 4096),
        ("identity;q=0.5, gzip;q=0.5", 4096),
        ("identity;q=0, gzip;q=0.1", ALWAYS),
        ("gzip, *;q=0", ALWAYS),
        ("", NEVER),
        ("br", NEVER),
        ("identity", NEVER),
        ("gzip;q=0", NEVER),
        ("gzip;q=0.000, *", NEVER),
        ("*;q=0", NEVER),
        ("identity, gzip;q=0.9", NEVER),
        ("gzip;q=0.3, *;q=0.4", NEVER),
        ("gzip;q=nan", NEVER),
        ("gzip;q=1.9", NEVER),
        ("gzip;level=9", NEVER),
        ("gzip " * 100, NEVER),
    ],
)
def test_who_takes_gzip_gladly_is_given_it_and_nobody_else(
    accepted: str, least: int | None
) -> None:
    assert packed_from(accepted.encode()) == least


async def test_both_forms_say_the_same_and_each_has_a_tag_of_its_own() -> None:
    async with opened(Bench()) as client:
        for _ in range(2):  # made, and given again
            plain = await asked(client, "/large", "identity")
            packed = await asked(client, "/large", "gzip")
            assert plain.content == packed.content == LARGE
            assert (plain.headers["etag"], packed.headers["etag"]) == (TAG, PACKED)
            assert "content-encoding" not in plain.headers
            assert packed.headers["content-encoding"] == "gzip"
            assert int(packed.headers["content-length"]) < len(LARGE) / 20
            assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
            head = await client.head(f"{PREFIX}/large", headers={"Accept-Encoding": "gzip"})
            assert (head.content, head.headers["etag"]) == (b"", PACKED)
            assert head.headers["content-length"] == packed.headers["content-length"]


@pytest.mark.parametrize("takes", ["gzip", "identity"])
@pytest.mark.parametrize("held", [TAG, PACKED, f'"other", W/{PACKED}'])
async def test_who_holds_either_form_holds_the_answer(takes: str, held: str) -> None:
    async with opened(Bench()) as client:
        for _ in range(2):
            told = await asked(client, "/large", takes, **{"If-None-Match": held})
            assert (told.status_code, told.content) == (304, b"")
            assert told.headers["etag"] in held  # what a cache finds its copy by
            assert told.headers["vary"] == "Accept-Encoding"
        other = await asked(client, "/large", takes, **{"If-None-Match": '"run-gzip-gzip"'})
        assert other.status_code == 200


async def test_little_is_packed_only_for_who_refuses_it_as_it_is() -> None:
    async with opened(Bench()) as client:
        assert "content-encoding" not in (await asked(client, "/small", "gzip")).headers
        forced = await asked(client, "/small", "gzip, identity;q=0")
    assert (forced.headers["content-encoding"], forced.content) == ("gzip", SMALL)


async def test_a_version_stays_the_tag_of_what_is_changed_by_it() -> None:
    async with opened(Bench()) as client:
        told = await asked(client, "/versioned", "gzip")
    assert (told.headers["etag"], "content-encoding" in told.headers) == (TAG, False)


async def test_large_answers_are_kept_in_both_forms() -> None:
    bench = Bench()
    async with opened(bench) as client:
        for _ in range(3):
            await asked(client, "/large", "gzip")
            await asked(client, "/large", "identity")
    assert len(bench.made) == 2


async def test_what_is_still_the_same_is_not_packed_again(monkeypatch: Any) -> None:
    packed: list[int] = []

    def counted(plain: bytes, *how: Any, **named: Any) -> bytes:
        packed.append(len(plain))
        return gzip.compress(plain, *how, **named)

    monkeypatch.setattr("app.foundation.http.packing.gzip", type("Gzip", (), {"compress": counted}))
    bench = Bench()
    async with opened(bench) as client:
        await asyncio.gather(*(asked(client, "/large", "gzip") for _ in range(5)))
        bench.things = ("the market moved",)
        assert (await asked(client, "/large", "gzip")).content == LARGE
    assert packed == [len(LARGE)]


async def test_packed_answers_give_way_when_there_are_too_many() -> None:
    packer = Packer(budget=250_000)
    bodies = [bytes([number]) * 100_000 for number in (1, 2, 3)]
    for body in bodies:
        formed = await packer.formed(Form(200, (), body), 0, b"")
        assert gzip.decompress(formed.body) == body
    assert list(packer._packed) == bodies[1:]
    assert packer._size == sum(len(a) + len(b) for a, b in packer._packed.items())


def test_a_shelf_is_bounded_in_bytes_and_the_oldest_gives_way() -> None:
    shelf = Shelf[bytes](len, most=3, budget=10)
    for name, size in (("a", 4), ("b", 4), ("a", 3), ("c", 3), ("too large", 11)):
        shelf.put(name, b"x" * size)
    assert [shelf.get(name) for name in ("a", "b", "c", "too large")] == [
        b"xxx", b"xxxx", b"xxx", None,
    ]  # fmt: skip
    shelf.put("d", b"")
    assert [shelf.get(name) is None for name in ("a", "b", "c", "d")] == [False, True, False, False]
