"""Rows I01-I11: what a body may not be; nothing of it ever comes back."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from app.foundation.http.errors import RequestError
from app.foundation.http.request_body import MAX_BODY_BYTES, MAX_DEPTH, parse
from tests.support.problem_assertions import located, problem

ORDERS = "/api/symbol-mgmt/samples/orders"
JSON = {"Content-Type": "application/json"}


async def post(client: httpx2.AsyncClient, body: str | bytes, **headers: str) -> httpx2.Response:
    return await client.post(ORDERS, content=body, headers={**JSON, **headers})


async def untouched(client: httpx2.AsyncClient) -> bool:
    return bool((await client.get(ORDERS)).json()["symbol"] == "")


async def test_a_sound_body_is_read_exactly(client: httpx2.AsyncClient) -> None:
    text = (
        '{"symbol":"BTCUSDT","amount":"1234567890.123456789012345678","weight":0.25,"lots":7,'
        '"firm":false,"at":"2026-01-01T05:30:00+05:30","reason":"caf\\u00e9\\tand \\ud83d\\ude00"}'
    )
    response = await post(client, text)
    assert response.status_code == 201
    assert response.json() == {
        "symbol": "BTCUSDT",
        "amount": "1234567890.123456789012345678",
        "weight": 0.25,
        "weight_percentage": 33.333333,
        "at": "2026-01-01T00:00:00Z",
        "details": {"fingerprint": None},
    }


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
async def test_I01_non_finite_literals(client: httpx2.AsyncClient, word: str) -> None:
    for body in (
        f'{{"symbol":"A","weight":{word}}}',
        f'{{"symbol":"A","x":[{{"y":{word}}}]}}',
        word,
    ):
        problem(await post(client, body), 400, "non_finite_number")
    assert await untouched(client)


@pytest.mark.parametrize(
    "number",
    [
        "1e400",
        "-1e400",
        "1e-400",
        "1" * 5000,
        "-" + "1" * 5000,
        "9223372036854775808",
        "1e999999",
        "0." + "0" * 400 + "1",
        "1." + "0" * 100,
    ],
)
async def test_I02_numbers_out_of_range(client: httpx2.AsyncClient, number: str) -> None:
    body = problem(
        await post(client, f'{{"symbol":"A","weight":{number}}}'), 400, "number_out_of_range"
    )
    assert number not in json.dumps(body)
    assert await untouched(client)


@pytest.mark.parametrize(
    "value",
    [
        '"NaN"',
        '"Infinity"',
        '"1_0"',
        '"١"',
        '"１"',
        "true",
        '" 5"',
        '"5 "',
        '"+5"',
        '"1e3"',
        '"0x1"',
        '"01"',
        '"."',
        '"1."',
        '".5"',
        '""',
        "[]",
        "{}",
        '"1\\n"',
        '"' + "1" * 19 + '"',
    ],
)
async def test_I03_amounts_are_plain_ascii_decimals(client: httpx2.AsyncClient, value: str) -> None:
    response = await post(client, f'{{"symbol":"A","amount":{value}}}')
    body = problem(response, 422, "validation_failed")
    assert located(body) == [{"loc": ["body", "amount"], "type": "decimal_text"}]
    assert await untouched(client)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", '"0.5"'),
        ("weight", "true"),
        ("lots", "1.0"),
        ("lots", '"1"'),
        ("lots", "false"),
        ("firm", "1"),
        ("firm", '"true"'),
        ("symbol", "5"),
        ("symbol", "null"),
        ("at", "1767225600"),
        ("at", '"1767225600"'),
        ("at", '"2026-13-01T00:00:00Z"'),
    ],
)
async def test_I03_types_are_not_coerced(
    client: httpx2.AsyncClient, field: str, value: str
) -> None:
    start = "" if field == "symbol" else '"symbol":"A",'
    response = await post(client, f'{{{start}"{field}":{value}}}')
    body = problem(response, 422, "validation_failed")
    assert [error["loc"] for error in body["errors"]] == [["body", field]]
    assert await untouched(client)


async def test_a_time_without_zone_says_so(client: httpx2.AsyncClient) -> None:
    response = await post(client, '{"symbol":"A","at":"2026-01-01T00:00:00"}')
    problem(response, 422, "timezone_required")


@pytest.mark.parametrize("text", ["0", "-0.5", "1e2", "12.50", "7"])
async def test_amounts_may_be_json_numbers(client: httpx2.AsyncClient, text: str) -> None:
    response = await post(client, f'{{"symbol":"A","amount":{text}}}')
    assert Decimal(response.json()["amount"]) == Decimal(text)


@pytest.mark.parametrize(
    "body",
    [
        '{"symbol":"A","symbol":"B"}',
        '{"symbol":"A","x":{"k":1,"k":2}}',
        '{"symbol":"A","s\\u0079mbol":"B"}',
        '[{"k":1,"k":1}]',
    ],
)
async def test_I04_duplicate_keys(client: httpx2.AsyncClient, body: str) -> None:
    problem(await post(client, body), 400, "duplicate_json_key")
    assert await untouched(client)


@pytest.mark.parametrize(
    "text",
    [
        "\\ud800",
        "\\udfff",
        "\\udc00\\ud800",
        "\\u0000",
        "\\u0007",
        "\\u001b[31m",
        "\\u202e",
        "\\u2066",
        "\\u200b",
        "\\u200d",
        "\\ufeff",
        "\u202e",
        "\u200b",
        "\u2060",
        "\u061c",
        "\x7f",
        "\U000e0041",
    ],
)
async def test_I05_text_that_deceives_or_breaks(client: httpx2.AsyncClient, text: str) -> None:
    for body in (
        f'{{"symbol":"{text}"}}',
        f'{{"symbol":"A","reason":"x{text}y"}}',
        f'{{"symbol":"A","{text}":1}}',
        f'{{"symbol":"A","x":[["{text}"]]}}',
    ):
        problem(await post(client, body.encode()), 400, "invalid_string")
    assert await untouched(client)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"symbol":"\xff"}',
        b'{"symbol":"\xed\xa0\x80"}',
        b'{"symbol":"\xc0\x80"}',
        b'\xef\xbb\xbf{"symbol":"A"}',
        '{"symbol":"A"}'.encode("utf-16"),
        '{"symbol":"A"}'.encode("utf-16-le"),
        '{"symbol":"A"}'.encode("utf-16-be"),
        '{"symbol":"A"}'.encode("utf-32"),
        '{"symbol":"A"}'.encode("utf-32-be"),
    ],
)
async def test_I06_only_utf8_without_mark(client: httpx2.AsyncClient, raw: bytes) -> None:
    problem(await post(client, raw), 400, "invalid_utf8")
    assert await untouched(client)


def nested(levels: int) -> str:
    return '{"symbol":"A","x":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def watched(body: bytes, note: Callable[[object, str, object], None]) -> None:
    former = sys.getprofile()
    sys.setprofile(note)
    try:
        parse(body)
    finally:
        sys.setprofile(former)


def steps(body: bytes) -> int:
    """Number of Python and C calls to refuse a body: a measure without a clock."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    with pytest.raises(RequestError) as refused:
        watched(body, count)
    assert refused.value.code == "json_too_deep"
    return calls


@pytest.mark.parametrize(
    "body",
    [
        nested(33),
        "[" * 60_000,
        "[" * 100_000,
        '{"a":' * 12_000,
        "[]," * 20_000 + "[" * 40,
        '"' + '\\"' * 30_000 + '",' + "[" * 33,
    ],
)
async def test_I07_deep_nesting_is_refused(client: httpx2.AsyncClient, body: str) -> None:
    problem(await post(client, body), 400, "json_too_deep")
    assert await untouched(client)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'["' + b'\\"' * 500 + b'",'])
def test_I07_looking_ends_at_the_level_that_is_too_deep(opening: bytes) -> None:
    levels = MAX_DEPTH + 1
    needed = steps(opening * levels)
    assert needed <= 4 * levels + 10
    assert steps(opening * levels * 10) == needed
    assert steps(opening * levels + b'"' + b"x" * 500_000) == needed


def test_I07_shallow_brackets_before_deep_ones_cost_a_bounded_number_of_steps_each() -> None:
    alone = steps(b"[" * 40)
    once, tenfold = (steps(b"[]," * count + b"[" * 40) - alone for count in (1_000, 10_000))
    assert tenfold <= 10 * once, "it grows faster than the body"
    # An escape belongs to its text: a long one is a single step, ended or not.
    text = b'"' + b'\\"' * 30_000
    assert steps(text + b'",' + b"[" * 33) == steps(b'"",' + b"[" * 33)


async def test_I07_the_limit_is_exact_and_brackets_in_text_do_not_count(
    client: httpx2.AsyncClient,
) -> None:
    problem(await post(client, nested(32)), 422, "validation_failed")  # parsed: x is unknown
    flat = json.dumps({"symbol": "A", "reason": '["{' * 60 + "\\"})
    assert (await post(client, flat)).status_code == 201


async def test_I08_a_large_body_is_refused_while_it_streams(client: httpx2.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"symbol":"'
        while True:
            sent += 1
            assert sent < 100, "the reader did not stop"
            yield b"A" * 4096

    response = await client.post(ORDERS, content=endless(), headers=JSON)
    body = problem(response, 413, "payload_too_large")
    assert body["title"] == "Content Too Large"
    assert sent <= MAX_BODY_BYTES // 4096 + 1
    assert await untouched(client)


async def test_I08_a_content_length_that_lies_does_not_help(client: httpx2.AsyncClient) -> None:
    large = json.dumps({"symbol": "A", "reason": "x" * MAX_BODY_BYTES})
    response = await post(client, large, **{"Content-Length": "10"})
    problem(response, 413, "payload_too_large")
    fitting = json.dumps({"symbol": "A"}) + " " * (MAX_BODY_BYTES - 15)
    assert len(fitting) == MAX_BODY_BYTES
    assert (await post(client, fitting)).status_code == 201
    problem(await post(client, fitting + " "), 413, "payload_too_large")


@pytest.mark.parametrize(
    "declared",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": ""},
        {},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json, text/html"},
    ],
)
async def test_I09_only_declared_json(client: httpx2.AsyncClient, declared: dict[str, str]) -> None:
    response = await client.post(ORDERS, content=b'{"symbol":"A"}', headers=declared)
    problem(response, 415, "unsupported_media_type")
    twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    response = await client.post(ORDERS, content=b'{"symbol":"A"}', headers=twice)
    problem(response, 415, "unsupported_media_type")
    assert await untouched(client)


@pytest.mark.parametrize(
    "declared",
    ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"],
)
async def test_json_may_be_declared_in_its_usual_ways(
    client: httpx2.AsyncClient, declared: str
) -> None:
    headers = {"Content-Type": declared}
    assert (await client.post(ORDERS, content=b'{"symbol":"A"}', headers=headers)).is_success


@pytest.mark.parametrize("name", ["role", "id", "version", "created_at", "__proto__", "x y", ""])
async def test_I10_unknown_fields(client: httpx2.AsyncClient, name: str) -> None:
    response = await post(client, json.dumps({"symbol": "A", name: "canary-value"}))
    body = problem(response, 422, "validation_failed")
    assert [error["type"] for error in body["errors"]] == ["extra_forbidden"]
    assert "canary-value" not in response.text
    assert await untouched(client)


@pytest.mark.parametrize("body", ["", "null", "[]", '[{"symbol":"A"}]', '"A"', "5", "true", "{}"])
async def test_I11_anything_but_an_object(client: httpx2.AsyncClient, body: str) -> None:
    found = problem(await post(client, body), 422, "validation_failed")
    assert found["errors"][0]["loc"][0] == "body"
    problem(await client.post(ORDERS), 422, "validation_failed")
    assert await untouched(client)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        '{"symbol"}',
        "{'symbol':1}",
        "nul",
        '{"a":1,}',
        '"\n"',
        "\\",
        '{"symbol":"A"} x',
        "01",
        "+1",
        "[1,,2]",
        '"\\x41"',
        " ",
    ],
)
async def test_malformed_json(client: httpx2.AsyncClient, body: str) -> None:
    problem(await post(client, body), 400, "malformed_json")


async def test_a_body_may_be_left_out_where_the_route_says_so(client: httpx2.AsyncClient) -> None:
    path = "/api/symbol-mgmt/samples/optional"
    assert (await client.post(path)).json()["symbol"] == "none"
    assert (await client.post(path, headers=JSON)).json()["symbol"] == "none"
    assert (await client.post(path, json={"symbol": "A"})).json()["symbol"] == "A"
    assert (await client.post(path, json={})).json()["symbol"] == "None"
    problem(
        await client.post(path, json=None, content=b"null", headers=JSON), 422, "validation_failed"
    )
    problem(await client.post(path, content=b"{}"), 415, "unsupported_media_type")


CANARY = "canary-3f9c"


@pytest.mark.parametrize(
    "document",
    [
        {"symbol": CANARY, "lots": CANARY},
        {"symbol": CANARY * 9},
        {"symbol": [CANARY]},
        {"symbol": "A", "amount": CANARY},
        {"symbol": "A", "at": CANARY},
        {"symbol": "A", "lots": 31337},
        [CANARY],
        {"symbol": "A", "weight": {CANARY: CANARY}},
    ],
)
async def test_values_are_never_echoed(client: httpx2.AsyncClient, document: Any) -> None:
    response = await client.post(ORDERS, json=document)
    problem(response, 422, "validation_failed")
    assert CANARY not in response.text
    assert "31337" not in response.text
