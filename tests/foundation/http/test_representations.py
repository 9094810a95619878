"""CSV by RFC 4180 without formulas, and the choice of a representation."""

from typing import Any

import httpx2
import pytest

from app.foundation.http.pagination import Page
from app.foundation.http.permissions import requires
from app.foundation.http.representations import CsvRows, negotiate, rows_in
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Json, MoneyString, Out, Share
from app.foundation.principals import Role
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem

SAMPLES = "/api/symbol-mgmt/samples"


class Inner(Out):
    left: str | None
    right: int


class Row(Out):
    name: str
    amount: MoneyString | None
    share: Share | None
    inner: Inner | None
    free: Json
    firm: bool


class Rows(Out):
    as_of: str | None
    lines: list[Row]


def row(name: str, **changes: Any) -> Row:
    inner = Inner(left=None, right=3)
    given = {"amount": "-0.50", "share": -1e-7, "inner": inner, "free": [1, {"a": "b"}]}
    return Row.model_validate({"name": name, "firm": True, **given, **changes})


NAMES = ["plain", 'quo"te', "com,ma", "new\r\nline", "", *(f"{one}A1" for one in "=+-@|%\t")]


async def ask(rows: Rows, accept: str = "text/csv") -> httpx2.Response:
    router = api_router("portfolio", "/rows")

    @router.get("", summary="Rows")
    @rows_in("lines")
    @requires(Role.VIEWER)
    async def list_rows() -> Rows:
        return rows

    async with serve([router]) as client:
        return await client.get(f"{PREFIX}/rows", headers={"Accept": accept})


async def test_cells_are_quoted_and_never_formulas() -> None:
    found = await ask(Rows(as_of="now", lines=[row(name) for name in NAMES]))
    assert found.headers["content-type"] == "text/csv; charset=utf-8"
    assert found.headers["vary"] == "Accept"
    assert found.headers["x-as-of"] == "now"
    rest = '-0.5,-1e-07,,3,"[1,{""a"":""b""}]",true'
    names = [
        "plain", '"quo""te"', '"com,ma"', '"new\r\nline"', "",
        *(f"'{one}A1" for one in "=+-@|%"), "'\tA1",
    ]  # fmt: skip
    lines = ["name,amount,share,inner.left,inner.right,free,firm"]
    assert found.text == "\r\n".join([*lines, *(f"{name},{rest}" for name in names)]) + "\r\n"


async def test_missing_values_are_empty() -> None:
    missing = row("x", amount=None, share=None, inner=None, free=None, firm=False)
    found = await ask(Rows(as_of=None, lines=[missing]))
    assert found.text.split("\r\n")[1] == "x,,,,,,false"
    assert "x-as-of" not in found.headers


async def test_pages_link_the_next_one_with_the_same_query(client: httpx2.AsyncClient) -> None:
    path = f"{SAMPLES}/items?prefix=item&limit=20"
    first = await client.get(path, headers={"Accept": "text/csv"})
    plain = (await client.get(path)).json()
    link = f'<?prefix=item&limit=20&cursor={plain["next_cursor"]}>; rel="next"'
    assert first.headers["link"] == link
    assert first.text.split("\r\n")[:2] == ["name", "item-000"]
    rest = f"{SAMPLES}/items{link[1:].partition('>')[0]}"
    second = await client.get(rest, headers={"Accept": "text/csv"})
    assert second.text.count("\r\n") == 6
    assert "link" not in second.headers


async def test_an_unknown_type_is_refused_with_the_known_ones(client: httpx2.AsyncClient) -> None:
    for accept, path, allowed in (
        ("text/html", "/items", ["application/json", "text/csv"]),
        ("text/csv", "/versioned", ["application/json"]),
        ("image/*, text/csv;q=0", "/items", ["application/json", "text/csv"]),
    ):
        refused = await client.get(SAMPLES + path, headers={"Accept": accept})
        body = problem(refused, 406, "not_acceptable", extra=frozenset({"allowed"}))
        assert body["allowed"] == allowed
    sent = await client.post(f"{SAMPLES}/bare", headers={"Accept": "text/csv"})
    problem(sent, 406, "not_acceptable", extra=frozenset({"allowed"}))


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "a/b"),
        ("*/*", "a/b"),
        ("c/d", "c/d"),
        ("c/*", "c/d"),
        ("c/d;q=0.5, a/b;q=0.4", "c/d"),
        ("c/d;q=0.5, */*;q=0.5", "a/b"),
        ("*/*, a/b;q=0", "c/d"),  # the most specific range decides
        ("C/D; charset=utf-8; q=0.2", "c/d"),
        ("e/f", None),
        ("a/b;q=0, c/d;q=0.0", None),
        ("no range", "a/b"),
        ("x/y," * 400, "a/b"),
    ],
)
def test_the_preferred_type_is_chosen(accept: str, chosen: str | None) -> None:
    assert negotiate(accept, ("a/b", "c/d")) == chosen


def test_only_lists_of_objects_have_rows() -> None:
    def endpoint() -> None: ...

    assert CsvRows.of(endpoint, Page[Row]) is not None
    assert [CsvRows.of(endpoint, kind) for kind in (Rows, Inner, Page[str], None)] == [None] * 4
