"""Rows that only a socket can show: I07, I08, I17, I18 and answers to what is not HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import uvicorn

from app.foundation.http.responses import SECURITY_HEADERS
from app.foundation.http.server import server_config
from tests.support.harness import make_api
from tests.support.problem_assertions import REQUIRED
from tests.support.sample_routes import sample_router

SAMPLES = "/api/symbol-mgmt/samples"
POST = f"POST {SAMPLES}/orders HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\n"
GET = f"GET {SAMPLES}/items HTTP/1.1\r\nHost: s\r\n"


def numbered() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"server-{next(numbers):08d}"


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """A real server on a free port of the loopback interface; yields the port."""
    api = make_api(routers=[sample_router()])
    server = uvicorn.Server(server_config(api, host="127.0.0.1", port=0, new_id=numbered()))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server._serve())
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            await running


class Answer:
    """One parsed answer; `rest` is what came behind it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(self.headers.get("content-length", len(body)))
        self.body, self.rest = body[:length], body[length:]

    def problem(self, status: int, code: str) -> dict[str, Any]:
        assert self.status == status, self.body
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document.keys() >= REQUIRED
        for name, value in SECURITY_HEADERS:
            assert self.headers[name.decode()] == value.decode()
        assert (document["code"], document["status"]) == (code, status)
        assert document["request_id"] == self.headers["x-request-id"]
        return document


async def talk(port: int, *parts: bytes, wait: float = 0.0, whole: bool = True) -> Answer:
    """Send the parts, read until the server closes or, if `whole` is enough, has answered."""
    return Answer(await exchange(port, *parts, wait=wait, whole=whole))


async def exchange(port: int, *parts: bytes, wait: float = 0.0, whole: bool = False) -> bytes:
    """All bytes that the server sends; see `talk`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(wait)
        async with asyncio.timeout(60):
            while True:
                piece = await reader.read(65536)
                raw += piece
                if not piece or (whole and _whole(raw)):
                    break
    except ConnectionResetError:
        pass  # the server closed while we were still sending; what it said is in `raw`
    finally:
        writer.close()
    return raw


def _whole(raw: bytes) -> bool:
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


async def test_an_ordinary_exchange() -> None:
    async with listening() as port:
        body = b'{"symbol":"BTCUSDT"}'
        request = f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body
        answer = await talk(port, request)
        assert answer.status == 201
        assert json.loads(answer.body)["symbol"] == "BTCUSDT"
        assert "server" not in answer.headers
        path = f"GET {SAMPLES}/symbols/BTC%2FUSDT:USDT HTTP/1.1\r\nHost: s\r\n\r\n"
        assert json.loads((await talk(port, path.encode())).body)["symbol"] == "BTC/USDT:USDT"


async def test_I08_a_chunked_body_is_refused_while_it_streams() -> None:
    async with listening() as port:
        head = f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode()
        chunk = b"2000\r\n" + b'{"symbol":"' + b"A" * (0x2000 - 11) + b"\r\n"
        # No last chunk ever comes: the answer cannot have waited for the end.
        answer = await talk(port, head, *([chunk] * 9))
        answer.problem(413, "payload_too_large")


async def test_I08_a_length_beyond_the_limit_is_refused_before_its_end() -> None:
    async with listening() as port:
        head = f"{POST}Content-Length: 10000000000\r\n\r\n".encode()
        answer = await talk(port, head, b"[" + b"1," * 40_000)
        answer.problem(413, "payload_too_large")
        short = f"{POST}Content-Length: 5\r\n\r\n".encode()
        answer = await talk(port, short, b'{"symbol":"A"}')
        answer.problem(400, "malformed_json")  # only the five bytes count


async def test_I07_deep_nesting_over_the_socket() -> None:
    async with listening() as port:
        head = f"{POST}Content-Length: 100000\r\n\r\n".encode()
        (await talk(port, head + b"[" * 100_000)).problem(400, "json_too_deep")


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (f"{GET}X-Filler: {'x' * 65_536}\r\n\r\n", 431, "headers_too_large"),
        (f"GET /{'x' * 102_400} HTTP/1.1\r\nHost: s\r\n\r\n", 414, "uri_too_long"),
        (
            f"GET {SAMPLES}/items?prefix={'x' * 102_400} HTTP/1.1\r\nHost: s\r\n\r\n",
            414,
            "uri_too_long",
        ),
        (f"{GET}X-Filler: {'x' * 400_000}\r\n\r\n", 431, "headers_too_large"),
        (f"{GET}X-Split: a\rSet-Cookie: b\r\n\r\n", 400, "bad_request"),
        (f"GET {SAMPLES}/items\x0d\x0aX: HTTP/1.1\r\nHost: s\r\n\r\n", 400, "bad_request"),
        (f"GET {SAMPLES}/items with space HTTP/1.1\r\nHost: s\r\n\r\n", 400, "bad_request"),
        (f"{GET}No-Colon\r\n\r\n", 400, "bad_request"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "bad_request"),
        (f"GET {SAMPLES}/items HTTP/1.1\r\n\r\n", 400, "bad_request"),  # no Host
    ],
    ids=[
        "header",
        "url",
        "query",
        "huge-header",
        "split",
        "crlf",
        "space",
        "colon",
        "tls",
        "host",
    ],
)
async def test_I17_heads_that_are_too_large_or_broken(
    request_text: str, status: int, code: str
) -> None:
    async with listening() as port:
        answer = await talk(port, request_text.encode("latin-1"))
        answer.problem(status, code)
        assert answer.headers["connection"] == "close"
        assert answer.rest == b""


async def test_I17_an_address_beyond_every_buffer() -> None:
    async with listening() as port:
        request = f"GET /{'x' * 2_000_000} HTTP/1.1\r\nHost: s\r\n\r\n"
        answer = await talk(port, request.encode())
        assert answer.status in {414, 431}  # whoever notices first: we or the parser
        answer.problem(answer.status, json.loads(answer.body)["code"])


async def test_I17_encoded_line_ends_never_reach_a_header() -> None:
    async with listening() as port:
        text = (
            f"GET {SAMPLES}/symbols/%0d%0aSet-Cookie:x=1 HTTP/1.1\r\nHost: s\r\n"
            "X-Request-ID: abcdefgh%0d%0aSet-Cookie:x\r\n\r\n"
        )
        answer = await talk(port, text.encode())
        answer.problem(404, "not_found")
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-request-id"].startswith("request-")


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: +4\r\n",
    ],
)
async def test_I18_ambiguous_framing_ends_the_connection(framing: str) -> None:
    async with listening() as port:
        smuggled = f"GET {SAMPLES}/symbols/SMUGGLED HTTP/1.1\r\nHost: s\r\n\r\n"
        text = f"{POST}{framing}\r\n0\r\n\r\n{smuggled}"
        answer = await talk(port, text.encode(), wait=0.05)
        assert answer.status in {400, 501}
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert b"SMUGGLED" not in answer.body + answer.rest


async def test_head_and_trace_over_the_socket() -> None:
    async with listening() as port:
        for method in ("HEAD", "TRACE"):
            request = f"{method} {SAMPLES}/bare HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
            answer = await talk(port, request.encode())
            assert answer.status == 405
            assert answer.headers["allow"] == "POST"
            assert (method == "HEAD") == (answer.body == b"")


async def test_a_client_that_disconnects_early_affects_no_other() -> None:
    async with listening() as port:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{POST}Content-Length: 1000\r\n\r\n{{".encode())
            await writer.drain()
            writer.close()
        answer = await talk(port, f"{GET}\r\n".encode())
        assert answer.status == 200


async def test_a_body_does_not_wait_until_its_head_is_confirmed() -> None:
    api = make_api(routers=[sample_router()])
    config = server_config(api, host="127.0.0.1", port=0, new_id=numbered())
    server = uvicorn.Server(config)
    # As the command line makes it: such a socket does not name its protocol.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.ensure_future(server._serve(sockets=[listener]))
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        _, writer = await asyncio.open_connection(*listener.getsockname())
        while not server.server_state.connections:
            await asyncio.sleep(0.01)
        (connection,) = server.server_state.connections
        bound = connection.transport.get_extra_info("socket")
        assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        await writer.wait_closed()
        server.should_exit = True
        await running
