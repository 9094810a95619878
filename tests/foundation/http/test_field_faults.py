"""A refusal names the field, the kind of value that came, and what is allowed; never the value."""

from collections.abc import AsyncIterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from app.container.application import MY_SYMBOLS, HttpApi
from app.foundation.errors import Code, FieldFault, RefusedError
from app.foundation.http.field_faults import NO_SHAPE, bounds_of, kind_of
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, SymbolText
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import IdPath
from app.foundation.principals import Role
from tests.support.harness import PREFIX, make_api, open_client, serve
from tests.support.problem_assertions import problem

METHODS = ["score_tilted", "inverse_volatility", "risk_parity", "hrp", "equal", "fixed"]
VALUE = "hunter2-hunter2"  # must appear in no answer


@cache
def api() -> HttpApi:
    """The routes of the product; no request of these tests reaches a use case."""
    return make_api({MY_SYMBOLS: SimpleNamespace()})


@pytest.fixture
async def product() -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(api()) as client:
        yield client


Case = tuple[str, str, dict[str, Any], dict[str, Any]]
CASES: list[Case] = [
    (
        "POST", "/portfolio/optimize-weights", {"json": {"method": VALUE}},
        {"loc": ["body", "method"], "received": "string", "allowed": METHODS,
         "example": "score_tilted", "remedy": "replace"},
    ),
    (
        "POST", "/portfolio/optimize-weights", {"json": {}},
        {"loc": ["body", "method"], "type": "missing", "received": "nothing", "allowed": METHODS,
         "remedy": "add"},
    ),
    (
        "POST", "/portfolio/optimize-weights", {"json": {"method": "hrp", "methd": VALUE}},
        {"loc": ["body", "methd"], "type": "extra_forbidden", "allowed": ["method"],
         "message": "is not known here; did you mean method", "remedy": "remove"},
    ),
    (
        "GET", f"/portfolio/history?limit={VALUE}", {},
        {"loc": ["query", "limit"], "expected": "an integer from 1 to 500", "received": "string",
         "constraints": {"type": "integer", "minimum": 1, "maximum": 500}, "example": 50},
    ),
    (
        "GET", f"/portfolio/history?limt={VALUE}", {},
        {"loc": ["query", "limt"], "allowed": ["limit", "cursor", "symbol", "action"],
         "message": "is not known here; did you mean limit", "remedy": "remove"},
    ),
    (
        "GET", f"/portfolio/history?cursor={VALUE}", {},
        {"loc": ["query", "cursor"], "remedy": "remove"},
    ),
    (
        "GET", "/portfolio/sizes?account_balance=0", {},
        {"loc": ["query", "account_balance"], "remedy": "replace", "example": "10000",
         "expected": 'a decimal number as text, such as "1234.5" above 0'},
    ),
    (
        "PUT", "/portfolio/locks/BTCUSDT",
        {"json": {"kind": "pin", "reason": "r", "expires_at": "2026-01-01T00:00:00"}},
        {"loc": ["body", "expires_at"], "type": "timezone_required",
         "expected": "an ISO 8601 time with a time zone, such as 2026-03-01T12:00:00Z",
         "example": "2026-03-01T12:00:00Z"},
    ),
    (
        "POST", "/research/backtests", {"json": {"first_day": VALUE}},
        {"loc": ["body", "first_day"], "received": "string", "remedy": "replace",
         "expected": "a day in ISO 8601 form, such as 2026-03-01"},
    ),
    (
        "PATCH", "/configuration", {"json": {"alerts": {"rules": {"drawdown": {"limit": VALUE}}}}},
        {"loc": ["body", "alerts", "rules", "drawdown", "limit"], "received": "string",
         "expected": "a number from -1000000 to 1000000"},
    ),
    (
        "PATCH", "/configuration", {"json": {"family_weights": {"tecnical": 1}}},
        {"loc": ["body", "family_weights", "tecnical"],
         "allowed": ["technical", "fundamental", "market_structure", "risk"],
         "message": "is not known here; did you mean technical"},
    ),
    (
        "POST", "/portfolio/add-symbol", {"json": {}},
        {"loc": ["body"], "message": "is refused: give exactly one of symbol and symbol_id",
         "example": {"symbol": "BTCUSDT", "reason": "weekly check"}},
    ),
    (
        "POST", "/portfolio/add-symbol", {"json": [VALUE]},
        {"loc": ["body"], "received": "array", "expected": "an object"},
    ),
    (
        "POST", "/keys", {"json": {"name": "UPPER", "role": "viewer"}},
        {"loc": ["body", "name"], "example": "engine",
         "expected": "a text that matches ^[a-z0-9][a-z0-9._-]{0,39}$"},
    ),
    (
        "POST", "/notifications/channels", {"json": {"name": "n", "kind": "webhook", "kinds": [5]}},
        {"loc": ["body", "kinds", 0], "received": "integer", "remedy": "replace"},
    ),
    (
        "PUT", "/portfolio/trading-switch",
        {"json": {"enabled": False, "reason": "r"}, "headers": {"Idempotency-Key": "a b"}},
        {"loc": ["header", "Idempotency-Key"], "type": "idempotency_key"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "more", "expected"), CASES)
async def test_a_refusal_teaches(
    product: httpx2.AsyncClient, method: str, path: str, more: Any, expected: dict[str, Any]
) -> None:
    response = await product.request(method, PREFIX + path, **more)
    code = "timezone_required" if expected.get("type") == "timezone_required" else None
    body = problem(response, 422, code or "validation_failed")
    (fault,) = body["errors"]
    assert {name: fault.get(name) for name in expected} == expected
    named = ".".join(map(str, expected["loc"]))
    assert body["detail"] == f"Invalid request: {named} {fault['message']}."
    assert fault.get("allowed") is None or fault["allowed"][0] in body["detail"]
    assert body["instance"] == PREFIX + path.partition("?")[0]
    assert VALUE not in response.text


async def test_a_secret_has_no_example(product: httpx2.AsyncClient) -> None:
    body = {"name": "ana", "role": "viewer", "password": 5}
    answer = problem(await product.post(f"{PREFIX}/users", json=body), 422, "validation_failed")
    (fault,) = answer["errors"]
    assert fault["loc"] == ["body", "password"]
    assert fault["received"] == "integer"
    assert fault["expected"] == "a text of 1 to 1024 characters"
    assert "example" not in fault


async def test_the_instance_has_only_parameters_that_look_like_identifiers(
    product: httpx2.AsyncClient,
) -> None:
    wrong = {"kind": "none", "reason": "r"}
    uuid = "2825b398-414e-46a6-920b-2d8d81fa7f5d"
    for text in ("BTCUSDT", "17", uuid, "BTC%2FUSDT:USDT", VALUE):
        body = problem(
            await product.put(f"{PREFIX}/portfolio/locks/{text}", json=wrong),
            422,
            "validation_failed",
        )
        shown = text if text in {"BTCUSDT", "17", uuid} else "{symbol}"
        assert body["instance"] == f"{PREFIX}/portfolio/locks/{shown}"
    missing = await product.get(f"{PREFIX}/nowhere/BTCUSDT")
    assert problem(missing, 404, "not_found")["instance"] == "about:blank"


class Pair(Body):
    old: SymbolText
    new: SymbolText
    parts: list[SymbolText]


async def test_a_refusal_of_a_use_case_names_its_field() -> None:
    router = api_router("portfolio", "/pairs")
    refusals = {
        "field": RefusedError(Code.VALIDATION_FAILED, "`new` is old.", field="new"),
        "elsewhere": RefusedError(Code.VALIDATION_FAILED, "No.", field="name"),
        "text": RefusedError(Code.SYMBOL_UNKNOWN, "No such symbol.", subject="XUSDT"),
        "unnamed": RefusedError(Code.SYMBOL_UNKNOWN, "No such symbol.", subject="YUSDT"),
    }

    @router.post("/{name}", summary="Refuse a pair")
    @requires(Role.VIEWER)
    async def refuse(name: IdPath, body: Pair) -> None:
        raise refusals[name]

    places = {
        "field": ["body", "new"],
        "elsewhere": ["path", "name"],
        "text": ["body", "parts", 1],
        "unnamed": None,
    }
    async with serve([router]) as client:
        for name, place in places.items():
            pair = {"old": "AUSDT", "new": "BUSDT", "parts": ["CUSDT", "XUSDT"]}
            answer = await client.post(f"{PREFIX}/pairs/{name}", json=pair)
            body = problem(answer, 422, refusals[name].code)
            assert body["detail"] == refusals[name].detail
            assert [one["loc"] for one in body.get("errors", ())] == ([place] if place else [])


def test_kinds_of_values() -> None:
    values = (None, True, 1, 1.5, "a", [1], {"a": 1}, object())
    kinds = ("null", "boolean", "integer", "number", "string", "array", "object", "other")
    assert tuple(map(kind_of, values)) == kinds
    context = {"ge": 1, "le": float("inf"), "lt": "x", "gt": "Decimal('0.5')"}
    assert bounds_of(context) == {"minimum": 1.0, "exclusiveMinimum": 0.5}


def test_a_fault_without_a_schema_has_its_own_sentence() -> None:
    entry = NO_SHAPE.explain(FieldFault(("query", "x\n"), "odd", "Value error, it is odd."))
    assert entry == {
        "loc": ["query", "?"],
        "type": "odd",
        "message": "is refused: it is odd",
        "remedy": "replace",
    }
