"""Rows I12-I15: query strings, cursors and paths."""

import base64
import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.foundation.http.errors import RequestError
from app.foundation.http.pagination import Cursors, after, cut
from tests.support.harness import SECRET
from tests.support.problem_assertions import located, problem

ITEMS = "/api/symbol-mgmt/samples/items"
SYMBOLS = "/api/symbol-mgmt/samples/symbols"


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "1000000000",
        "1e3",
        "1_0",
        "%205",
        "5%20",
        "+5",
        "%2B5",
        "%D9%A1",
        "%EF%BC%91",
        "",
        "0x10",
        "5.0",
        "05",
        "501",
        "true",
        "null",
        "1" * 400,
    ],
)
async def test_I12_limits_are_plain_numbers_in_range(client: httpx2.AsyncClient, text: str) -> None:
    body = problem(await client.get(f"{ITEMS}?limit={text}"), 422, "validation_failed")
    assert body["errors"][0]["loc"] == ["query", "limit"]


async def test_I12_the_largest_page_is_500_and_parameters_come_once(
    client: httpx2.AsyncClient,
) -> None:
    assert (await client.get(f"{ITEMS}?limit=500")).status_code == 200
    for query in ("limit=5&limit=5", "limit=5&limit=6", "limit=5&%6Cimit=6"):
        body = problem(await client.get(f"{ITEMS}?{query}"), 422, "validation_failed")
        assert located(body) == [{"loc": ["query", "limit"], "type": "repeated"}]
    body = problem(await client.get(f"{ITEMS}?limt=5"), 422, "validation_failed")
    assert located(body) == [{"loc": ["query", "limt"], "type": "extra_forbidden"}]
    many = "&".join(f"a{number}=1" for number in range(100))
    problem(await client.get(f"{ITEMS}?{many}"), 422, "validation_failed")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("prefix=%00", "invalid_string"),
        ("prefix=%E2%80%AE", "invalid_string"),
        ("%00=1", "invalid_string"),
        ("prefix=%ff", "invalid_utf8"),
        ("prefix=%ed%a0%80", "invalid_utf8"),
    ],
)
async def test_query_text_is_sound(client: httpx2.AsyncClient, query: str, code: str) -> None:
    problem(await client.get(f"{ITEMS}?{query}"), 400, code)


@pytest.mark.parametrize(
    "query",
    [
        "amount=1_0",
        "amount=NaN",
        "amount=1e3",
        "amount=%D9%A1",
        "firm=1",
        "firm=yes",
        "firm=True",
        "since=1767225600",
        "since=2026-02-30T00:00:00Z",
        "since=now",
        "amount=",
    ],
)
async def test_other_kinds_of_parameters_are_strict_too(
    client: httpx2.AsyncClient, query: str
) -> None:
    body = problem(await client.get(f"{SYMBOLS}/A?{query}"), 422, "validation_failed")
    assert body["errors"][0]["loc"] == ["query", query.split("=", maxsplit=1)[0]]


async def test_sound_parameters_arrive_as_meant(client: httpx2.AsyncClient) -> None:
    query = "amount=12.50&firm=true&since=2026-01-01T05:30:00%2B05:30"
    body = (await client.get(f"{SYMBOLS}/A?{query}")).json()
    assert (body["amount"], body["at"]) == ("12.5", "2026-01-01T00:00:00Z")
    naive = await client.get(f"{SYMBOLS}/A?since=2026-01-01T00:00:00")
    problem(naive, 422, "timezone_required")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("2026-01-01T00:00:00", "timezone_required"),
        ("2026-01-01", "timezone_required"),
        ("2026-01-01T24:00:00Z", "validation_failed"),
        ("2026-01-01T00:60:00Z", "validation_failed"),
        ("2026-01-01T00:00:60Z", "validation_failed"),
        ("0000-01-01T00:00:00Z", "validation_failed"),
        ("0001-01-01T00:00:00%2B14:00", "validation_failed"),
        ("9999-12-31T23:59:59-12:00", "validation_failed"),
        ("2026-01-01T00:00:00%2B99:99", "validation_failed"),
    ],
)
async def test_T06_a_time_without_a_zone_or_sense_is_refused(
    client: httpx2.AsyncClient, text: str, code: str
) -> None:
    body = problem(await client.get(f"{SYMBOLS}/A?since={text}"), 422, code)
    assert body["errors"][0]["loc"] == ["query", "since"]


async def test_pages_cover_the_list_once(client: httpx2.AsyncClient) -> None:
    names: list[str] = []
    cursor = None
    for _ in range(10):
        params = {"limit": "7"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(ITEMS, params=params)).json()
        names += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == [f"item-{number:03d}" for number in range(25)]


async def test_I13_cursors_cannot_be_forged_or_carried_over(client: httpx2.AsyncClient) -> None:
    page = (await client.get(f"{ITEMS}?limit=5")).json()
    good = page["next_cursor"]
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    flipped = bytes([raw[0] ^ 1]) + raw[1:]
    moved = raw[:-3] + b'9"]'
    unsigned = json.dumps(["item-003"]).encode()
    forged = [
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (flipped, moved, unsigned, b"", b"\x00" * 16, raw + b" ", raw[:10])
    ]
    other = Cursors(b"another secret").encode("items", {"prefix": "item"}, ("item-003",))
    listing = Cursors(SECRET).encode("other", {"prefix": "item"}, ("item-003",))
    for text in [*forged, other, listing, good + "=", good[:-1], "ключ", "a", good.swapcase()]:
        response = await client.get(ITEMS, params={"limit": "5", "cursor": text})
        body = problem(response, 422, "validation_failed")
        assert located(body) == [{"loc": ["query", "cursor"], "type": "cursor"}]
    filtered = await client.get(ITEMS, params={"cursor": good, "prefix": "item-0"})
    problem(filtered, 422, "validation_failed")
    problem(await client.get(ITEMS, params={"cursor": "x" * 1025}), 422, "validation_failed")
    assert (await client.get(ITEMS, params={"cursor": good, "limit": "3"})).status_code == 200


@given(
    st.lists(
        st.one_of(st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False)),
        max_size=4,
    ).map(tuple)
)
def test_a_cursor_gives_back_its_position(position: tuple[str | int | float, ...]) -> None:
    cursors = Cursors(SECRET)
    chosen = {"a": 1, "b": None, "c": "x"}
    text = cursors.encode("list", chosen, position)
    assert cursors.decode("list", dict(reversed(chosen.items())), text) == position
    assert cursors.decode("list", chosen, None) is None
    with pytest.raises(RequestError):
        cursors.decode("list", {**chosen, "a": 2}, text)


def test_a_page_ends_where_the_rows_end() -> None:
    rows = [1, 2, 3, 4]
    assert cut(rows, 4, lambda row: (row,)) == ([1, 2, 3, 4], None)
    assert cut(rows, 3, lambda row: (row,)) == ([1, 2, 3], (3,))
    assert cut([], 3, lambda row: (row,)) == ([], None)
    assert after(rows, 2, lambda row: (row,), (2,)) == ([3, 4], None)
    assert after(rows, 1, lambda row: (row,), (2,)) == ([3], (3,))
    assert "secret" not in repr(Cursors(SECRET))


@pytest.mark.parametrize(
    "payload",
    ["' OR 1=1 --", "%", "_", "item-00%", "(a+)+$", "^item", "item-00_", "*", "\\", "item' UNION"],
)
async def test_I14_text_of_a_query_arrives_as_it_is(
    client: httpx2.AsyncClient, payload: str
) -> None:
    response = await client.get(ITEMS, params={"prefix": payload})
    assert response.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    "path",
    [
        "/samples/symbols/%2e%2e",
        "/samples/symbols/%2e%2e/items",
        "/samples/symbols/..%2fitems",
        "/samples/symbols/%00",
        "/samples/symbols/A%00B",
        "/samples/symbols/%0d%0aX:1",
        "/samples/symbols/%ff",
        "/samples/symbols/%E2%80%AEA",
        "/samples/symbols/%C0%AE",
        "/samples/symbols/%D0%A1%D9%A1",
        "/samples/symbols/" + "A" * 65,
        "/samples/symbols/%5c..%5c",
        "/samples/symbols/%EF%BC%91%EF%BC%92",
        "/samples/numbers/x",
        "/samples/numbers/%D9%A1x",
        "/samples/numbers/1e3",
        "/samples/items/",
        "/samples//items",
        "/samples/%69tems/",
        "/samples/symbols/",
        "/samples/symbols/A/B",
        "/nowhere",
    ],
)
async def test_I15_impossible_identifiers_are_not_found(
    client: httpx2.AsyncClient, path: str
) -> None:
    response = await client.get("/api/symbol-mgmt" + path)
    body = problem(response, 404, "not_found")
    assert body["detail"] == "There is nothing at this address."
    assert "errors" not in body


async def test_I15_an_encoded_slash_stays_inside_its_segment(client: httpx2.AsyncClient) -> None:
    once = await client.get(f"{SYMBOLS}/BTC%2FUSDT:USDT")
    assert once.json()["symbol"] == "BTC/USDT:USDT"
    once = await client.get(f"{SYMBOLS}/BTC%2fUSDT%3AUSDT")
    assert once.json()["symbol"] == "BTC/USDT:USDT"
    # Decoded once and no further: the registry finds no such symbol.
    twice = await client.get(f"{SYMBOLS}/BTC%252FUSDT:USDT")
    assert twice.json()["symbol"] == "BTC%2FUSDT:USDT"
    assert (await client.get(f"{SYMBOLS}/..")).status_code == 404
