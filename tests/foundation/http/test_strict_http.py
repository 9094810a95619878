"""What has two readings is refused before anybody acts on it; what came before is answered."""

import asyncio
import json
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.foundation.http.server import MAX_HEAD_BYTES, OneAnswer, StrictHttp
from tests.foundation.http.test_server import GET, POST, SAMPLES, Answer, listening, talk
from tests.support.harness import make_api
from tests.support.sample_routes import sample_router

SMUGGLED = f"GET {SAMPLES}/symbols/SMUGGLED HTTP/1.1\r\nHost: s\r\n\r\n"
ITEMS = f"{SAMPLES}/items"
LAST = "Connection: close\r\n\r\n"
BODY = '{"symbol":"BTCUSDT"}'


async def all_of(port: int, *parts: str) -> bytes:
    """Everything that is answered until the server ends the connection."""
    return (await talk(port, *(part.encode("latin-1") for part in parts), whole=False)).raw


@pytest.mark.parametrize(
    "request_text",
    [
        f"GET {ITEMS} HTTP/1.1\nHost: s\n\n",
        f"GET {ITEMS} HTTP/2.0\r\nHost: s\r\n\r\n",
        f"GET {ITEMS}\r\nHost: s\r\n\r\n",
        f"GET http://elsewhere{ITEMS} HTTP/1.1\r\nHost: s\r\n\r\n",
        f"GET {ITEMS}#part HTTP/1.1\r\nHost: s\r\n\r\n",
        "CONNECT elsewhere:443 HTTP/1.1\r\nHost: s\r\n\r\n",
        f"{GET}Host: elsewhere\r\n\r\n",
        f"{GET}X-Folded: a\r\n b\r\n\r\n",
        f"{GET}X-Control: a\x01b\r\n\r\n",
        f"{GET}X-Space : a\r\n\r\n",
        f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        f"POST {SAMPLES}/orders HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"{POST}Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        f"{POST}Transfer-Encoding: chunked\r\n\r\n1;a\nx\r\nx\r\n0\r\n\r\n",
        f"{POST}Content-Length: 2, 2\r\n\r\n[]",
    ],
)
async def test_I18_what_has_two_readings_is_refused(request_text: str) -> None:
    async with listening() as port:
        raw = await all_of(port, request_text + SMUGGLED)
    answer = Answer(raw)
    answer.problem(400, "bad_request")
    assert answer.headers["connection"] == "close"
    assert answer.rest == b""


async def test_what_was_asked_before_nonsense_is_answered_before_it() -> None:
    async with listening() as port:
        raw = await all_of(port, f"{GET}\r\n{GET}\r\nNONSENSE\r\n\r\n")
    first = Answer(raw)
    second = Answer(first.rest)
    assert (first.status, second.status) == (200, 200)
    Answer(second.rest).problem(400, "bad_request")


async def test_a_body_that_turns_out_broken_is_never_acted_on() -> None:
    good = f"{POST}Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    broken = f"{POST}Transfer-Encoding: chunked\r\n\r\n14\r\n{BODY}\r\nnonsense\r\n"
    async with listening() as port:
        alone = Answer(await all_of(port, broken))
        behind = Answer(await all_of(port, good + broken))
    alone.problem(400, "bad_request")
    assert behind.status == 201
    Answer(behind.rest).problem(400, "bad_request")


async def test_requests_one_behind_the_other_are_answered_in_their_order() -> None:
    names = [f"S{number}" for number in range(8)]
    asked = [f"GET {SAMPLES}/symbols/{name} HTTP/1.1\r\nHost: s\r\n" for name in names]
    async with listening() as port:
        rest = await all_of(port, "\r\n".join(asked) + LAST)
    answered = []
    while rest:
        one = Answer(rest)
        answered.append(json.loads(one.body)["symbol"])
        rest = one.rest
    assert answered == names


async def test_nobody_has_us_read_ahead_without_end() -> None:
    async with listening() as port:
        rest = await all_of(port, f"{GET}\r\n" * 5_000)
    statuses = []
    while rest:
        one = Answer(rest)
        statuses.append(one.status)
        rest = one.rest
    assert statuses == [200] * 17 + [400]


async def test_what_follows_a_body_is_no_header_of_the_request() -> None:
    chunk = f"{len(BODY):x}\r\n{BODY}\r\n"
    async with listening() as port:
        head = f"{POST}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        raw = await all_of(port, f"{head}{chunk}0\r\nIdempotency-Key: not a key\r\n\r\n")
    assert Answer(raw).status == 201


async def test_who_wants_another_protocol_gets_one_answer_in_ours() -> None:
    async with listening() as port:
        raw = await all_of(port, f"{GET}Connection: upgrade\r\nUpgrade: h2c\r\n\r\n{SMUGGLED}")
    answer = Answer(raw)
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert answer.rest == b""


async def test_a_head_that_comes_in_drops_has_an_end() -> None:
    refused: list[int] = []

    class Counting(StrictHttp):
        def refuse(self, status: int) -> None:
            refused.append(status)

    config = uvicorn.Config(make_api(routers=[sample_router()]), log_config=None)
    connection = Counting(config=config, server_state=ServerState(), app_state={})
    connection.data_received(GET.encode())
    for _ in range(100):
        assert not refused
        connection.data_received(b"X-Drop: " + b"x" * (MAX_HEAD_BYTES // 100 - 10) + b"\r\n")
    connection.data_received(b"X-Drop: x\r\n" * 10)
    connection.data_received(b"X-Drop: x\r\n" * 10)
    assert refused == [431]


async def test_a_head_in_many_pieces_is_read_as_one() -> None:
    async with listening() as port:
        raw = await all_of(port, *f"{GET}X-A: b\r\n{LAST}")
    assert Answer(raw).status == 200


class Wire(asyncio.Transport):
    """Remembers each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


async def test_an_answer_goes_out_with_its_head_in_one_piece() -> None:
    wire = Wire()
    answer = OneAnswer(wire, asyncio.get_running_loop())
    answer.write(b"head ")
    answer.write(b"body")
    answer.write(b" more")
    await asyncio.sleep(0)
    assert wire.written == [b"head body", b" more"]


async def test_a_head_does_not_wait_for_a_body_that_is_long_in_coming() -> None:
    wire = Wire()
    answer = OneAnswer(wire, asyncio.get_running_loop())
    answer.write(b"head")
    await asyncio.sleep(0)
    assert wire.written == [b"head"]
    answer.write(b"body")
    assert wire.written == [b"head", b"body"]


async def test_a_head_without_a_body_is_sent_before_the_end() -> None:
    wire = Wire()
    answer = OneAnswer(wire, asyncio.get_running_loop())
    answer.write(b"head")
    answer.close()
    assert (wire.written, wire.is_closed) == ([b"head"], True)
    await asyncio.sleep(0)
    assert wire.written == [b"head"]


async def test_a_large_body_is_not_copied() -> None:
    wire = Wire()
    answer = OneAnswer(wire, asyncio.get_running_loop())
    answer.write(b"head")
    answer.write(b"x" * 100_000)
    assert [len(piece) for piece in wire.written] == [4, 100_000]
