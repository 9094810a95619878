"""What every error answer must be, whatever caused it."""

from typing import Any

import httpx2
import requests

from app.foundation.errors import Code

REQUIRED = {"type", "title", "status", "code", "detail", "instance", "request_id"}
OPTIONAL = {"retry_after_s", "errors"}
FAULT = {"loc", "type", "message", "remedy"}
FAULT_OPTIONAL = {"received", "expected", "allowed", "constraints", "example"}


def problem(
    response: httpx2.Response, status: int, code: str | Code, *, extra: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Assert a whole problem document and give it back."""
    assert response.status_code == status, response.text
    body = well_formed(response, extra=extra)
    assert body["code"] == str(code)
    return body


def well_formed(
    response: httpx2.Response | requests.Response, *, extra: frozenset[str] = frozenset()
) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body.keys() >= REQUIRED
    assert body.keys() <= REQUIRED | OPTIONAL | extra
    assert body["status"] == response.status_code
    assert body["code"] in set(Code)
    assert body["type"] == f"urn:my-symbols:problem:{body['code']}"
    assert body["request_id"] == response.headers["x-request-id"]
    for error in body.get("errors", ()):
        assert FAULT <= error.keys() <= FAULT | FAULT_OPTIONAL
        assert error["remedy"] in {"add", "replace", "remove"}
    if response.status_code in {429, 503}:
        assert int(response.headers["retry-after"]) == body["retry_after_s"] >= 1
    return body


def located(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Location and kind of each fault of a problem, without their explanation."""
    return [{"loc": one["loc"], "type": one["type"]} for one in body["errors"]]
