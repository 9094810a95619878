"""Every failure is a problem document with a stable code, and tells nothing about the inside."""

import json

import httpx2
import pytest
import structlog
from starlette.requests import Request

from app.foundation.errors import Code, ServiceError
from app.foundation.http.errors import describe, problem_response, status_of
from app.foundation.http.protocol import STATUS_OF_CODE, USUAL_STATUS, phrase
from tests.support.problem_assertions import problem, well_formed
from tests.support.sample_routes import ERRORS

SAMPLES = "/api/symbol-mgmt/samples"


@pytest.mark.parametrize(
    ("name", "status", "retry"),
    [
        ("missing", 404, None),
        ("conflict", 409, None),
        ("precondition", 412, None),
        ("refused", 422, None),
        ("unavailable", 503, 3),
        ("unavailable-quietly", 503, 5),
        ("bad-response", 502, None),
        ("timeout", 504, None),
    ],
)
async def test_each_class_of_error_has_its_status(
    client: httpx2.AsyncClient, name: str, status: int, retry: int | None
) -> None:
    response = await client.get(f"{SAMPLES}/errors/{name}")
    facts = frozenset(ERRORS[name].facts)
    body = problem(response, status, ERRORS[name].code, extra=facts)
    assert body["detail"] == ERRORS[name].detail
    shown = name if name.isalpha() and status != 404 else "{name}"
    assert body["instance"] == f"{SAMPLES}/errors/{shown}"
    assert body.get("retry_after_s") == retry
    assert response.headers.get("retry-after") == (None if retry is None else str(retry))
    for fact, value in ERRORS[name].facts.items():
        assert body[fact] == value


async def test_facts_never_replace_a_part_of_the_problem(client: httpx2.AsyncClient) -> None:
    problem(await client.get(f"{SAMPLES}/errors/forging-facts"), 409, "portfolio_full")


async def test_S15_a_crash_tells_nothing_and_is_logged(client: httpx2.AsyncClient) -> None:
    with structlog.testing.capture_logs() as lines:
        response = await client.get(f"{SAMPLES}/crash")
    body = problem(response, 500, "internal_error")
    for word in ("SELECT", "secret", "/srv", "place.py", "Traceback", "RuntimeError", "File"):
        assert word not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert {line["event"] for line in lines} == {"unhandled_error", "request"}
    crash = next(line for line in lines if line["event"] == "unhandled_error")
    assert isinstance(crash["exc_info"], RuntimeError)
    canonical = next(line for line in lines if line["event"] == "request")
    assert (canonical["status"], canonical["code"]) == (500, "internal_error")
    assert body["request_id"]


@pytest.mark.parametrize("way", ["typed", "nan", "free"])
async def test_no_answer_holds_infinity(client: httpx2.AsyncClient, way: str) -> None:
    problem(await client.get(f"{SAMPLES}/infinite/{way}"), 500, "internal_error")


async def test_no_answer_holds_a_time_without_zone(client: httpx2.AsyncClient) -> None:
    problem(await client.get(f"{SAMPLES}/naive"), 500, "internal_error")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/orders", {"POST", "GET", "HEAD"}),
        ("PATCH", "/versioned", {"GET", "HEAD", "PUT"}),
        ("HEAD", "/bare", {"POST"}),
        ("TRACE", "/bare", {"POST"}),
        ("GET", "/bare", {"POST"}),
        ("QUERY", "/bare", {"POST"}),
        ("CONNECT", "/bare", {"POST"}),
    ],
)
async def test_I16_methods_that_an_address_does_not_know(
    client: httpx2.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    response = await client.request(method, SAMPLES + path)
    assert response.status_code == 405
    assert {word.strip() for word in response.headers["allow"].split(",")} == allowed
    if method != "HEAD":
        problem(response, 405, "method_not_allowed")


async def test_I16_method_overrides_are_ignored(client: httpx2.AsyncClient) -> None:
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        response = await client.get(f"{SAMPLES}/orders", headers={header: "POST"})
        assert response.status_code == 200
        response = await client.post(f"{SAMPLES}/bare", headers={header: "DELETE"})
        assert response.status_code == 200
    response = await client.post(f"{SAMPLES}/bare?_method=DELETE")
    problem(response, 422, "validation_failed")


async def test_errors_outside_the_prefix_are_problems_too(client: httpx2.AsyncClient) -> None:
    for path in ("/", "/nowhere", "/api", "/docs-assets/nowhere.js", "/docs/", "/favicon.ico"):
        response = await client.get(path)
        assert response.status_code == 404
        well_formed(response)
    response = await client.post("/docs")
    problem(response, 405, "method_not_allowed")


def test_every_code_has_one_usual_status() -> None:
    assert set(USUAL_STATUS) == set(Code)
    assert all(400 <= status <= 599 for status in USUAL_STATUS.values())
    assert set(STATUS_OF_CODE) <= set(Code)
    assert status_of(ServiceError(Code.BAD_REQUEST, "of no kind")) == 500
    assert phrase(799) == "Error"
    assert describe(404, []) == "Not Found"


async def test_waiting_times_are_whole_positive_seconds() -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": {}}
    for given, sent in ((0.0, 1), (0.2, 1), (7.01, 8), (float("inf"), 5), (None, 5)):
        response = problem_response(
            Request(scope), 503, Code.OVERLOADED, "busy", retry_after_s=given
        )
        assert json.loads(bytes(response.body))["retry_after_s"] == sent
