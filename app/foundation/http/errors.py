"""Maps errors to problem+json responses; never echoes a value of the request."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from app.foundation.errors import (
    BadResponseError,
    Code,
    ConflictError,
    ExchangeTimeoutError,
    Fact,
    NotFoundError,
    PreconditionFailedError,
    RateLimitedError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.http.protocol import PREFIX, PROBLEM_JSON, STATUS_OF_CODE, USUAL_STATUS, phrase

# Subclasses come before their parents: the first match decides.
STATUS_OF_CLASS: Final[tuple[tuple[type[ServiceError], int], ...]] = (
    (BadResponseError, 502),
    (ExchangeTimeoutError, 504),
    (UnavailableError, 503),
    (NotFoundError, 404),
    (ConflictError, 409),
    (PreconditionFailedError, 412),
    (RefusedError, 422),
    (RateLimitedError, 429),
)


_BELOW_PREFIX: Final = PREFIX + "/"
Location = tuple[str | int, ...]


class RequestError(ServiceError):
    """Request refused before any use case; the code decides the status."""

    def __init__(
        self, code: Code, detail: str, *, errors: Sequence[tuple[Location, str]] = ()
    ) -> None:
        super().__init__(code, detail)
        self.errors = tuple(errors)


def invalid(place: str, name: str, kind: str, detail: str) -> RequestError:
    """Returns a 422 about one named part of the request; `kind` is stable, such as 'repeated'."""
    return RequestError(Code.VALIDATION_FAILED, detail, errors=[((place, name), kind)])


class FieldError(BaseModel):
    """Location and kind of one fault in the request, without the value."""

    loc: list[str | int] = Field(
        examples=[["body", "symbol"]],
        description="Path to the field: part of the request, then names and positions (from 0).",
    )
    type: str = Field(examples=["missing"], description="Stable kind of the fault.")


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable, `detail` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        examples=["urn:my-symbols:problem:portfolio_full"], description="URN of the code."
    )
    title: str = Field(examples=["Conflict"], description="Phrase of the status.")
    status: int = Field(examples=[409], description="HTTP status.")
    code: Literal[tuple(Code)] = Field(  # type: ignore[valid-type]  # made from the registry
        examples=["portfolio_full"], description="Stable code."
    )
    detail: str = Field(
        examples=["The portfolio holds its maximum of 10 symbols."],
        description="Cause and remedy in words; may change.",
    )
    instance: str = Field(
        examples=["/api/symbol-mgmt/portfolio/add-symbol"], description="Path of the request."
    )
    request_id: str = Field(
        examples=["6f0b6c1e6d8e4a559f4b6f8f0b4f2a10"],
        description="Identifier of the request, as in its `X-Request-ID` and in the log.",
    )
    retry_after_s: int | None = Field(
        None,
        examples=[None],
        description="Time to wait before a retry; null if a retry alone does not help.",
    )
    errors: list[FieldError] | None = Field(
        None, examples=[None], description="Faults by field; only with status 422."
    )


def problems(*codes: Code, also: Iterable[int] = ()) -> dict[int | str, dict[str, Any]]:
    """Returns OpenAPI `responses` of a route: `problems(Code.PORTFOLIO_FULL, Code.SYMBOL_UNKNOWN)`.

    Each code has its usual status; `also` names further statuses. The application adds the errors
    that every route can return (422, 500 and others).
    """
    table: dict[int, list[str]] = {status: [] for status in also}
    for code in codes:
        table.setdefault(USUAL_STATUS[code], []).append(code.value)
    return {
        status: {"description": describe(status, names)} for status, names in sorted(table.items())
    }


def describe(status: int, codes: Sequence[str]) -> str:
    """Returns the description of an error response: its HTTP phrase and its possible codes."""
    names = ", ".join(f"`{name}`" for name in codes)
    return f"{phrase(status)}: {names}" if names else phrase(status)


__all__ = ["RequestError", "install", "invalid", "problem_response", "problems"]

_log = structlog.get_logger(component="api")

DEFAULT_RETRY_S: Final = 5
CHALLENGE: Final = 'Bearer realm="my-symbols"'
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SAME: Final = {"HEAD": "GET"}  # every GET route also answers HEAD
CLIENT_CLOSED: Final = 499  # logged for a disconnected client; never sent

_CODE_OF_STATUS: Final[Mapping[int, Code]] = {
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.PAYLOAD_TOO_LARGE,
    414: Code.URI_TOO_LONG,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
    422: Code.VALIDATION_FAILED,
    431: Code.HEADERS_TOO_LARGE,
}
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}", re.ASCII)


def status_of(error: ServiceError) -> int:
    """Returns the HTTP status of a domain error; a RequestError goes by its code."""
    if isinstance(error, RequestError):
        return STATUS_OF_CODE[error.code]
    return next((status for kind, status in STATUS_OF_CLASS if isinstance(error, kind)), 500)


def problem_response(
    request: Request,
    status: int,
    code: Code,
    detail: str,
    *,
    retry_after_s: float | None = None,
    errors: Sequence[tuple[Location, str]] = (),
    facts: Mapping[str, Fact] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Renders one problem; 429 and 503 always have Retry-After."""
    body: dict[str, Any] = {
        "type": f"urn:my-symbols:problem:{code.value}",
        "title": phrase(status),
        "status": status,
        "code": code.value,
        "detail": detail,
        # The template, not the path: text of the caller is never echoed.
        "instance": template_of(request.scope) or "about:blank",
        "request_id": str(request.scope.get("state", {}).get("request_id", "")),
    }
    sent = dict(headers or {})
    wait = _whole_seconds(retry_after_s, required=status in {429, 503})
    if wait is not None:
        body["retry_after_s"] = wait
        sent["Retry-After"] = str(wait)
    if errors:
        body["errors"] = [{"loc": list(map(_safe, loc)), "type": kind} for loc, kind in errors]
    # Facts are extension members: they may add to a problem, never replace a part of it.
    body |= {name: fact for name, fact in (facts or {}).items() if name not in body}
    request.scope.setdefault("state", {})["problem_code"] = code.value
    return JSONResponse(body, status, headers=sent, media_type=PROBLEM_JSON)


async def on_service_error(request: Request, error: Exception) -> Response:
    """Handles domain errors and request errors."""
    if not isinstance(error, ServiceError):
        raise error
    return problem_response(
        request,
        status_of(error),
        error.code,
        error.detail,
        retry_after_s=error.retry_after_s,
        errors=error.errors if isinstance(error, RequestError) else (),
        facts=error.facts,
        headers=_headers(error),
    )


def _headers(error: ServiceError) -> Mapping[str, str] | None:
    """Returns the challenge of a 401, or the Location of the rebalance run in progress."""
    if error.code is Code.UNAUTHENTICATED:
        return {"WWW-Authenticate": CHALLENGE}
    run_id = error.facts.get("run_id")
    if error.code is not Code.REBALANCE_IN_PROGRESS or run_id is None:
        return None
    return {"Location": f"{PREFIX}/portfolio/rebalances/{run_id}"}


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Handles pydantic errors: 422 with locations and kinds; an impossible path is a 404."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = [(tuple(item["loc"]), str(item["type"])) for item in error.errors()]
    if any(loc[:1] == ("path",) for loc, _ in found):
        return problem_response(request, 404, Code.NOT_FOUND, "There is nothing at this address.")
    naive = any(kind == Code.TIMEZONE_REQUIRED.value for _, kind in found)
    code = Code.TIMEZONE_REQUIRED if naive else Code.VALIDATION_FAILED
    detail = _sentence([(tuple(item["loc"]), str(item["msg"])) for item in error.errors()])
    return problem_response(request, 422, code, detail, errors=_bounded(found))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Handles errors of the framework: unknown address, wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    code = _CODE_OF_STATUS.get(
        status,
        Code.BAD_REQUEST if status < HTTPStatus.INTERNAL_SERVER_ERROR else Code.INTERNAL_ERROR,
    )
    detail = {
        404: "There is nothing at this address.",
        405: "This address does not know that method.",
    }.get(status, f"{phrase(status)}.")
    headers = {"Allow": ", ".join(_known_methods(request))} if status == 405 else error.headers
    return problem_response(request, status, code, detail, headers=headers)


async def on_unhandled(request: Request, error: Exception) -> Response:
    """Handles unexpected errors: the traceback goes to the log, a request id to the caller."""
    _log.error("unhandled_error", kind=type(error).__name__, exc_info=error)
    return problem_response(
        request,
        500,
        Code.INTERNAL_ERROR,
        "Something went wrong here; the log holds more under this request id.",
    )


async def on_disconnect(request: Request, error: Exception) -> Response:
    """Handles a client that disconnected while sending; the response is only logged."""
    del request, error
    return Response(status_code=CLIENT_CLOSED)


def install(api: FastAPI) -> None:
    """Registers all handlers."""
    api.add_exception_handler(ServiceError, on_service_error)
    api.add_exception_handler(RequestValidationError, on_invalid_request)
    api.add_exception_handler(HTTPException, on_http_exception)
    api.add_exception_handler(ClientDisconnect, on_disconnect)
    api.add_exception_handler(Exception, on_unhandled)


def template_of(scope: Scope) -> str | None:
    """Returns the path template of the matched route; None if none matched."""
    path = getattr(scope.get("route"), "path_format", None)
    if not isinstance(path, str):
        return None
    below = scope["path"].startswith(_BELOW_PREFIX) and not path.startswith(PREFIX)
    return PREFIX + path if below else path


def _known_methods(request: Request) -> list[str]:
    # The framework names only the methods of the first route; one address may have several.
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": _SAME.get(method, method)})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _whole_seconds(seconds: float | None, *, required: bool) -> int | None:
    if seconds is None or not math.isfinite(seconds):
        return DEFAULT_RETRY_S if required else None
    return max(1, math.ceil(seconds))


def _safe(part: str | int) -> str | int:
    if isinstance(part, int):
        return part
    return part if _SAFE_NAME.fullmatch(part) else "?"


def _bounded(found: Sequence[tuple[Location, str]]) -> Sequence[tuple[Location, str]]:
    return found[:32]


def _sentence(found: Sequence[tuple[Location, str]]) -> str:
    """Returns the first invalid locations with pydantic's messages, which never hold the input."""
    places = {".".join(str(_safe(part)) for part in loc): message for loc, message in found}
    shown = sorted(places.items())[:8]
    return "Invalid request: " + "; ".join(f"{place}: {message}" for place, message in shown) + "."
