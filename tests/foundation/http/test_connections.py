"""Row E01: silent and slow clients never keep others out, and open connections are bounded."""

import asyncio
import errno
import inspect
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs

from app.foundation.http.server import (
    LoopErrorHandler,
    ServerLimits,
    StrictHttpProtocol,
    server_config,
)
from tests.foundation.http.test_server import GET, POST, Answer, exchange, numbered, talk
from tests.support.harness import make_api
from tests.support.sample_routes import sample_router

BRIEF = ServerLimits(read_timeout_s=0.2)
PATIENT = ServerLimits(read_timeout_s=3_600.0)
PATIENCE_S = 60.0
HALF_HEAD = GET.encode()
HALF_BODY = f'{POST}Content-Length: 100\r\n\r\n{{"symbol":'.encode()


@asynccontextmanager
async def limited(limits: ServerLimits) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    api = make_api(routers=[sample_router()])
    config = server_config(api, host="127.0.0.1", port=0, new_id=numbered(), limits=limits)
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        assert not running.done()
        await asyncio.sleep(0.01)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def opened(
    port: int, said: bytes, count: int
) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    clients = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        clients.append((reader, writer))
    return clients


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Returns the bytes sent until the server closed; fails if it does not close."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


def close(clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    for _, writer in clients:
        writer.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"\r\n", HALF_HEAD, HALF_BODY, f"{GET}\r\n".encode() + HALF_HEAD],
    ids=["nothing", "line-ends", "half-a-head", "half-a-body", "half-a-second-head"],
)
async def test_E01_a_connection_that_does_not_go_on_is_closed(said: bytes) -> None:
    async with limited(BRIEF) as (_, port):
        ((reader, writer),) = await opened(port, said, 1)
        raw = await read_to_end(reader)
        writer.close()
    assert raw.count(b"HTTP/1.1 ") == said.count(b"\r\n\r\nGET")


@pytest.mark.parametrize("said", [HALF_HEAD, HALF_BODY], ids=["head", "body"])
async def test_E01_a_byte_now_and_then_does_not_keep_it_open(said: bytes) -> None:
    async with limited(BRIEF) as (_, port):
        ((reader, writer),) = await opened(port, said, 1)
        ended = asyncio.ensure_future(read_to_end(reader))
        async with asyncio.timeout(PATIENCE_S):
            while not ended.done():
                writer.write(b"X")
                await asyncio.sleep(0.05)
        writer.close()
    assert b"HTTP/1.1 2" not in await ended


async def test_a_slow_answer_is_no_fault_of_the_client() -> None:
    api = make_api(routers=[sample_router()])

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5)
        await api(scope, receive, send)

    config = server_config(slow, host="127.0.0.1", port=0, new_id=numbered(), limits=BRIEF)
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    assert (await talk(port, f"{GET}\r\n".encode())).status == 200
    server.should_exit = True
    await running


@pytest.mark.parametrize("said", [b"", HALF_HEAD, HALF_BODY], ids=["silent", "head", "body"])
@pytest.mark.parametrize(
    "limits",
    [
        replace(PATIENT, connections=50),
        replace(PATIENT, connections_per_address=50),
    ],
    ids=["all", "address"],
)
async def test_E01_the_longest_idle_connection_is_closed_for_a_new_one(
    said: bytes, limits: ServerLimits
) -> None:
    async with limited(limits) as (server, port):
        clients = await opened(port, said, 120)
        assert (await talk(port, f"{GET}\r\n".encode())).status == 200
        assert len(server.server_state.connections) <= 50
        assert await read_to_end(clients[0][0]) == b""  # it came first
        close(clients)


async def test_E01_a_request_that_is_answered_is_never_closed_for_another() -> None:
    held = asyncio.Event()
    api = make_api(routers=[sample_router()])

    async def holding(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await held.wait()
        await api(scope, receive, send)

    limits = replace(PATIENT, connections=3)
    config = server_config(holding, host="127.0.0.1", port=0, new_id=numbered(), limits=limits)
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    asked = [asyncio.ensure_future(talk(port, f"{GET}\r\n".encode())) for _ in range(3)]
    async with asyncio.timeout(PATIENCE_S):
        while len(server.server_state.tasks) < 3:
            await asyncio.sleep(0.01)
    refused = Answer(await exchange(port, f"{GET}\r\n".encode()))
    held.set()
    assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 3
    refused.problem(503, "overloaded")
    assert refused.headers["retry-after"] == "5"
    server.should_exit = True
    await running


async def test_connections_of_a_configured_proxy_are_not_counted_by_address() -> None:
    behind = (ip_network("127.0.0.0/8"),)
    limits = replace(PATIENT, connections_per_address=5, trusted_proxies=behind)
    async with limited(limits) as (server, port):
        clients = await opened(port, b"", 20)
        assert (await talk(port, f"{GET}\r\n".encode())).status == 200
        assert len(server.server_state.connections) >= 20
        close(clients)


def test_a_proxy_is_recognised_on_a_socket_of_both_versions() -> None:
    limits = replace(PATIENT, trusted_proxies=(ip_network("10.9.0.0/16"),))
    bounded = {host: limits.bounds_address(host) for host in ("10.9.0.1", "::ffff:10.9.0.1")}
    assert bounded == {"10.9.0.1": False, "::ffff:10.9.0.1": False}
    assert all(map(limits.bounds_address, ("10.8.0.1", "::ffff:10.8.0.1", "2001:db8::1", "")))


def test_some_descriptors_are_left_for_everything_else() -> None:
    asked: dict[str, Any] = {
        "read_timeout_s": 10.0,
        "connections": 4096,
        "connections_per_address": 1024,
        "trusted_proxies": (),
    }
    many, few = (ServerLimits.within(number, **asked) for number in (16_384, 1_024))
    assert (many.connections, many.connections_per_address) == (4096, 1024)
    assert (few.connections, few.connections_per_address) == (768, 384)
    assert ServerLimits.within(100, **asked).connections == 50


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "result"),
    [(256, 2_048, 1_024, 1_024), (256, 512, 1_024, 512), (1_500, 2_048, 1_024, 1_500)],
    ids=["raised", "hard-limit", "never-lowered"],
)
def test_E01_the_descriptor_limit_is_raised_as_far_as_allowed(
    soft: int, hard: int, wanted: int, result: int
) -> None:
    program = f"""
        import resource
        from app.foundation.http.server import raise_descriptor_limit
        resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
        print(raise_descriptor_limit({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    done = subprocess.run(  # the program stands above
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == [str(result), str(result), str(hard)]


def test_the_protocol_class_stays_small() -> None:
    assert len(inspect.getsource(StrictHttpProtocol).splitlines()) <= 150


async def test_E07_failed_accepts_are_logged_once_a_second() -> None:
    now = 100.0
    handler = LoopErrorHandler(lambda: now)
    loop = asyncio.get_running_loop()
    context = {"exception": OSError(errno.EMFILE, "too many"), "message": "accept"}
    with capture_logs() as said:
        for _ in range(5_000):
            handler(loop, context)
        now = 101.0
        handler(loop, context)
    assert [(line["event"], line["cause"], line["suppressed"]) for line in said] == [
        ("accept_failed", "EMFILE", 0),
        ("accept_failed", "EMFILE", 4_999),
    ]


async def test_a_body_that_is_cut_off_by_a_stop_is_refused_as_unavailable() -> None:
    async with limited(PATIENT) as (server, port):
        ((reader, writer),) = await opened(port, HALF_BODY, 1)
        async with asyncio.timeout(PATIENCE_S):
            while not server.server_state.tasks:
                await asyncio.sleep(0.01)
        server.should_exit = True
        answer = Answer(await read_to_end(reader))
        writer.close()
    answer.problem(503, "shutting_down")


SERVED = """
import asyncio, resource, sys
from app.foundation.http.server import LoopErrorHandler, ServerLimits, server_config
import uvicorn
from tests.foundation.http.test_server import numbered
from tests.support.harness import make_api

resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

async def main():
    asyncio.get_running_loop().set_exception_handler(LoopErrorHandler())
    limits = ServerLimits.within(1024, read_timeout_s=3600.0, connections=4096,
                                 connections_per_address=1024, trusted_proxies=())
    config = server_config(make_api(), host="127.0.0.1", port=0, new_id=numbered(), limits=limits)
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await running

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "median_s", [PATIENCE_S, pytest.param(0.1, marks=pytest.mark.long)], ids=["at-all", "at-once"]
)
async def test_E01_with_1024_descriptors_1100_silent_connections_do_not_stop_the_probe(
    median_s: float,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_096)), hard))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(SERVED), stdout=-1, stderr=-1
    )
    try:
        assert child.stdout is not None
        assert child.stderr is not None
        port = int(await child.stdout.readline())
        clients = await opened(port, b"", 1_100)
        took = []
        for _ in range(20):
            begun = time.monotonic()
            raw = await exchange(port, b"GET /livez HTTP/1.1\r\nHost: s\r\n\r\n", whole=True)
            took.append(time.monotonic() - begun)
            assert Answer(raw).status == 200
        assert sorted(took)[10] < median_s
        close(clients)
    finally:
        child.send_signal(signal.SIGKILL)
        _, said = await child.communicate()
    assert said.count(b"accept") == 0
