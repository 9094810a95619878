"""Answered before it is read: byte for byte what the whole way says, and only while that holds."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
import uvicorn
from fastapi import FastAPI

from app.foundation.http.server import MAX_HEAD_BYTES, server_config
from app.foundation.metrics import Metrics
from app.foundation.mode import Mode
from tests.foundation.http.test_kept import TAG, Bench, asked_again, routes
from tests.foundation.http.test_packing import LARGE
from tests.foundation.http.test_packing import routes as sized
from tests.foundation.http.test_server import numbered
from tests.support.harness import PREFIX, make_api

ONE = f"GET {PREFIX}/kept/a HTTP/1.1\r\nHost: s\r\n\r\n"
OTHER = f"GET {PREFIX}/kept/b HTTP/1.1\r\nHost: s\r\n\r\n"
LARGEST = f"GET {PREFIX}/large HTTP/1.1\r\nHost: s\r\nAccept-Encoding: gzip\r\n\r\n"
POSTED = f"POST {PREFIX}/kept/a HTTP/1.1\r\nHost: s\r\nContent-Length: {len(ONE)}\r\n\r\n"


@dataclass
class Talk:
    """One connection; `desk` says what was answered before it was read."""

    desk: "Noted"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: str) -> bytes:
        """The whole answer to one request."""
        self.writer.write(request.encode())
        return await self.answer(is_head=request.startswith("HEAD"))

    async def answer(self, *, is_head: bool = False) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        body = 0 if is_head or length is None or b" 304 " in head else int(length.group(1))
        return head + await self.reader.readexactly(body)


@dataclass
class Noted:
    """The desk of the application, and how many answers it gave."""

    desk: Any
    given: list[bytes] = field(default_factory=list)

    def learn(self, data: bytes, scope: Any) -> None:
        self.desk.learn(data, scope)

    def answer(self, data: bytes, state: Any, common: Any) -> Any:
        found = self.desk.answer(data, state, common)
        if found is not None:
            self.given.append(data)
        return found


def api_of(bench: Bench, **more: Any) -> FastAPI:
    state = {"standing": bench, "mode": lambda: Mode.NORMAL}
    return make_api(state, routers=[routes(bench), sized(bench), asked_again(bench)], **more)


@asynccontextmanager
async def talking(api: FastAPI, new_id: Callable[[], str] | None = None) -> AsyncIterator[Talk]:
    desk = Noted(api.state.at_once)
    broken: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    config = server_config(api, host="127.0.0.1", port=0, new_id=new_id or numbered(), desk=desk)
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server._serve())
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        try:
            yield Talk(desk, reader, writer)
        finally:
            writer.close()
            server.should_exit = True
            await running
    assert broken == []


def told(raw: bytes) -> bytes:
    """What was said, but for what is another each time."""
    return re.sub(rb"(date|x-request-id): [^\r]+", rb"\1: *", raw)


async def test_who_asks_the_same_again_is_told_the_same_before_it_is_read() -> None:
    requests = [
        ONE,
        ONE.replace("GET", "HEAD"),
        ONE.replace("\r\n\r\n", f"\r\nIf-None-Match: {TAG}\r\n\r\n"),
        ONE.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
        ONE.replace("/kept/a", "/kept/%C3%A9"),
        LARGEST,
        LARGEST.replace("gzip", "identity"),
    ]
    api = api_of(Bench())
    async with talking(api) as talk:
        for number, request in enumerate(requests):
            talk.desk.given.clear()
            raw = [await talk.ask(request) for _ in range(4)]
            # The first is worked out, if it has not been yet; the next makes it known.
            assert len(talk.desk.given) in {2, 3}, number
            assert len({told(one) for one in raw}) == 1
            assert len({re.search(rb"x-request-id: (\S+)", one) for one in raw}) == 4
            assert b"x-service-mode: NORMAL" in raw[-1]


async def test_it_is_counted_and_logged_as_every_other() -> None:
    metrics = Metrics()
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with talking(api_of(Bench(), metrics=metrics)) as talk:
            for _ in range(5):
                await talk.ask(ONE)
    assert len(talk.desk.given) == 3
    route = f"{PREFIX}/kept/{{name}}"
    assert metrics.http_requests.labels("GET", route, "200")._value.get() == 5
    seen = [line for line in lines if line["event"] == "request"]
    assert len({line.pop("request_id") for line in seen}) == 5
    assert {frozenset(line) for line in seen} == {frozenset(seen[0])}
    assert {(line["method"], line["route"], line["status"]) for line in seen} == {
        ("GET", route, 200)
    }


def _another_thing(bench: Bench) -> None:
    bench.things = ("second",)


def _another_commit(bench: Bench) -> None:
    bench.committed = "something else"


def _who_knows(bench: Bench) -> None:
    bench.is_known, bench.committed = False, "something else"


def _closed(bench: Bench) -> None:
    bench.fails = True


async def test_what_no_longer_holds_goes_the_whole_way() -> None:
    bench = Bench()
    async with talking(api_of(bench)) as talk:
        for change in (_another_thing, _another_commit, _who_knows, _closed):
            bench.things, bench.committed, bench.is_known = ("first",), "committed", True
            before = [await talk.ask(ONE) for _ in range(3)][-1]
            known, made = len(talk.desk.given), len(bench.made)
            assert known
            change(bench)
            after = await talk.ask(ONE)
            assert (len(talk.desk.given), len(bench.made)) == (known, made + 1)
            assert told(after) != told(before)


async def test_what_has_more_to_it_is_read_each_time() -> None:
    requests = [
        ONE.replace("\r\n\r\n", "\r\nOrigin: https://elsewhere.example\r\n\r\n"),
        ONE.replace("\r\n\r\n", "\r\nX-Request-ID: mine-12345\r\n\r\n"),
        ONE.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"),
        ONE.replace("\r\n\r\n", f"\r\nX-Long: {'x' * 2048}\r\n\r\n"),
        ONE.replace("/kept/a", "/anew"),
        ONE.replace("GET", "DELETE"),
        ONE + ONE,
    ]
    async with talking(api_of(Bench())) as talk:
        for _ in range(3):
            await talk.ask(ONE)
        talk.desk.given.clear()
        for request in [one for one in requests for _ in range(3)]:
            talk.writer.write(request.encode())
            for _ in range(request.count("HTTP/1.1")):
                assert b"x-request-id" in await talk.answer()
        assert talk.desk.given == []


async def test_a_name_that_is_not_ours_is_never_known() -> None:
    foreign = ONE.replace("Host: s", "Host: elsewhere")
    api = api_of(Bench())
    async with talking(api) as talk:
        await talk.ask(ONE)
        assert b" 421 " in await talk.ask(foreign)
    assert foreign.encode() not in api.state.at_once._known


async def test_who_ends_the_connection_is_let_go() -> None:
    last = ONE.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    async with talking(api_of(Bench())) as talk:
        port = talk.writer.get_extra_info("peername")[1]
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await Talk(talk.desk, reader, writer).ask(last)
            assert await reader.read() == b""
            writer.close()
    assert talk.desk.given == []


async def test_a_body_that_looks_like_a_request_is_none() -> None:
    bench = Bench()
    async with talking(api_of(bench)) as talk:
        for _ in range(3):
            await talk.ask(ONE)
        talk.writer.write(POSTED.encode())
        refused = await talk.answer()  # before its body has come
        assert refused.startswith(b"HTTP/1.1 405")
        talk.writer.write(ONE.encode())  # it is that body
        assert b" 200 " in await talk.ask(OTHER)
    assert len(talk.desk.given) == 1
    assert bench.made == ["a", "b"]


async def test_half_a_request_is_ended_by_what_comes_behind_it() -> None:
    async with talking(api_of(Bench())) as talk:
        for _ in range(3):
            await talk.ask(ONE)
        begun = f"GET {PREFIX}/kept/b HTTP/1.1\r\nHost: s\r\nX-Long: "
        talk.writer.write(begun.encode())
        await talk.writer.drain()
        await asyncio.sleep(0.05)
        refused = await talk.ask(ONE)  # a value of that header as far as its line goes
        assert b"x-request-id" in refused
    assert len(talk.desk.given) == 1


async def test_answers_stay_in_the_order_of_what_was_asked() -> None:
    bench, waiting = Bench(), ONE.replace("/kept/a", "/read/slow")
    async with talking(api_of(bench)) as talk:
        for _ in range(3):
            await talk.ask(ONE)
        bench.gate = asyncio.Event()
        talk.writer.write(waiting.encode())
        while bench.made[-1] != "slow":  # it is with the endpoint
            await asyncio.sleep(0)
        talk.writer.write(ONE.encode())  # known, but not before the one that is not
        reader, writer = await asyncio.open_connection(*talk.writer.get_extra_info("peername"))
        for _ in range(3):
            await Talk(talk.desk, reader, writer).ask(ONE)
        writer.close()
        bench.gate.set()
        first, second = await talk.answer(), await talk.answer()
    assert (b"/read/slow" in first, b'"number"' in second) == (True, True)


async def test_a_new_answer_has_a_head_of_its_own() -> None:
    bench = Bench(made=["before"] * 8)
    async with talking(api_of(bench)) as talk:
        assert b'"number":9' in [await talk.ask(ONE) for _ in range(3)][-1]
        _another_thing(bench)
        raw = [await talk.ask(ONE) for _ in range(3)]
    assert len(talk.desk.given) == 3
    assert {told(one) for one in raw} == {told(raw[0])}
    assert b'"number":10' in raw[0]


async def test_a_connection_that_began_at_once_reads_on() -> None:
    api = api_of(Bench())
    async with talking(api) as talk:
        for _ in range(3):
            await talk.ask(ONE)
        port = talk.writer.get_extra_info("peername")[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fresh = Talk(talk.desk, reader, writer)
        assert b" 200 " in await fresh.ask(ONE)
        assert len(talk.desk.given) == 2
        assert b" 200 " in await fresh.ask(OTHER)
        assert b" 405 " in await fresh.ask(ONE.replace("GET", "DELETE"))
        writer.write(b"NONSENSE\r\n\r\n")
        assert b" 400 " in await fresh.answer()
        writer.close()


async def test_so_many_requests_are_known_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.foundation.http.at_once._MOST", 3)
    api = api_of(Bench())
    async with talking(api) as talk:
        for number in range(5):
            await talk.ask(ONE.replace("\r\n\r\n", f"\r\nX-Number: {number}\r\n\r\n"))
    asked = [data.split(b"X-Number: ")[1][:1] for data in api.state.at_once._known]
    assert asked == [b"2", b"3", b"4"]


async def test_large_answers_come_whole() -> None:
    async with talking(api_of(Bench())) as talk:
        plain = LARGEST.replace("gzip", "identity")
        raw = [await talk.ask(plain) for _ in range(3)]
    assert [one.partition(b"\r\n\r\n")[2] for one in raw] == [LARGE] * 3
    assert len(talk.desk.given) == 1
    assert len(LARGE) > MAX_HEAD_BYTES  # more than one piece of the transport
