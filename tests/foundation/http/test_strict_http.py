"""Ambiguous requests are refused before any effect; earlier requests are answered."""

import json

import pytest

from app.foundation.http.server import MAX_HEAD_BYTES
from tests.foundation.http.test_server import GET, POST, SAMPLES, Answer, exchange, listening

SMUGGLED = f"GET {SAMPLES}/symbols/SMUGGLED HTTP/1.1\r\nHost: s\r\n\r\n"
ITEMS = f"{SAMPLES}/items"
LAST = "Connection: close\r\n\r\n"
BODY = '{"symbol":"BTCUSDT"}'


async def all_of(port: int, *parts: str) -> bytes:
    """Everything that is answered until the server ends the connection."""
    return await exchange(port, *(part.encode("latin-1") for part in parts))


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
async def test_I18_ambiguous_requests_are_refused(request_text: str) -> None:
    async with listening() as port:
        raw = await all_of(port, request_text + SMUGGLED)
    answer = Answer(raw)
    answer.problem(400, "bad_request")
    assert answer.headers["connection"] == "close"
    assert answer.rest == b""


async def test_nonsense_behind_a_request_is_never_taken_for_its_answer() -> None:
    async with listening() as port:
        raw = await all_of(port, f"{GET}\r\n{GET}\r\nNONSENSE\r\n\r\n")
    first = Answer(raw)
    second = Answer(first.rest)
    assert (first.status, second.status) == (200, 200)
    assert second.rest == b""


async def test_a_body_that_turns_out_broken_is_never_acted_on() -> None:
    good = f"{POST}Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    broken = f"{POST}Transfer-Encoding: chunked\r\n\r\n14\r\n{BODY}\r\nnonsense\r\n"
    async with listening() as port:
        alone = Answer(await all_of(port, broken))
        behind = await all_of(port, good + broken)
    alone.problem(400, "bad_request")
    assert b"bad_request" not in behind  # it would be taken for the answer to the good one


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


async def test_pipelined_requests_are_bounded() -> None:
    async with listening() as port:
        raw = await all_of(port, f"{GET}\r\n" * 5_000)
    assert raw.count(b"HTTP/1.1 200") == 17


async def test_trailers_are_not_headers_of_the_request() -> None:
    chunk = f"{len(BODY):x}\r\n{BODY}\r\n"
    async with listening() as port:
        head = f"{POST}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        raw = await all_of(port, f"{head}{chunk}0\r\nIdempotency-Key: not a key\r\n\r\n")
    assert Answer(raw).status == 201


async def test_an_unsupported_upgrade_gets_one_http_response() -> None:
    async with listening() as port:
        raw = await all_of(port, f"{GET}Connection: upgrade\r\nUpgrade: h2c\r\n\r\n{SMUGGLED}")
    answer = Answer(raw)
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert answer.rest == b""


async def test_a_head_that_comes_in_drops_has_an_end() -> None:
    drop = "X-Drop: " + "x" * 10_000 + "\r\n"
    async with listening() as port:
        raw = await all_of(port, GET, *[drop] * (MAX_HEAD_BYTES // 10_000 + 1))
    Answer(raw).problem(431, "headers_too_large")


async def test_a_head_in_many_pieces_is_read_as_one() -> None:
    async with listening() as port:
        raw = await all_of(port, *f"{GET}X-A: b\r\n{LAST}")
    assert Answer(raw).status == 200
