"""Maps errors to problem+json responses; never echoes a value of the request."""

import asyncio
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
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
    FieldFault,
    NotFoundError,
    PreconditionFailedError,
    RateLimitedError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.http.field_faults import (
    MAX_FAULTS,
    NO_SHAPE,
    RequestShape,
    bounds_of,
    kind_of,
    sentence,
)
from app.foundation.http.protocol import (
    ENCODED_SLASH,
    PREFIX,
    PROBLEM_JSON,
    STATUS_OF_CODE,
    USUAL_STATUS,
    phrase,
)

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
_FAULT_EXAMPLE: Final[dict[str, Any]] = {
    "loc": ["body", "method"],
    "type": "enum",
    "message": "must be one of equal, hrp; received string",
    "received": "string",
    "expected": "one of equal, hrp",
    "allowed": ["equal", "hrp"],
    "constraints": {"type": "string"},
    "example": "equal",
    "remedy": "replace",
}


class RequestError(ServiceError):
    """Request refused before any use case; the code decides the status."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: Sequence[FieldFault] = (),
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        super().__init__(code, detail, facts=facts)
        self.errors = tuple(errors)


def invalid(place: str, name: str, kind: str, detail: str) -> RequestError:
    """Returns a 422 about one named part of the request; `kind` is stable, such as 'repeated'."""
    fault = FieldFault((place, name), kind, detail, "string")
    return RequestError(Code.VALIDATION_FAILED, detail, errors=[fault])


class FieldError(BaseModel):
    """One fault of the request with its remedy; the value itself is never shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FAULT_EXAMPLE]})

    loc: list[str | int] = Field(
        examples=[["body", "symbol"]],
        description="Path to the field: part of the request, then names and positions (from 0).",
    )
    type: str = Field(examples=["missing"], description="Stable kind of the fault.")
    message: str = Field(description="Fault and remedy in words; may change.")
    received: str | None = Field(
        None, description="Kind of the value that came, such as `string`; the value is not shown."
    )
    expected: str | None = Field(None, description="Values that the field accepts, in words.")
    allowed: list[str] | None = Field(
        None, description="All accepted values, or with `extra_forbidden` the known names."
    )
    constraints: dict[str, Any] | None = Field(
        None, description="Bounds, length, pattern and format of the field, as in JSON Schema."
    )
    example: Any = Field(None, description="A value that the field accepts; none for a secret.")
    remedy: Literal["add", "replace", "remove"] = Field(
        description="`add` the field, `replace` its value, or `remove` the field."
    )


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
# Numbers, ids, symbols and names of rules; no key, token or password of this service.
_IDENTIFIER: Final = re.compile(
    r"[0-9]{1,18}|[0-9a-f\-]{32,36}|[A-Z0-9]{2,24}|[a-z]{1,24}(?:_[a-z]{1,24}){0,4}", re.ASCII
)


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
    errors: Sequence[FieldFault] = (),
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
        "instance": _instance(request.scope, status, errors),
        "request_id": str(request.scope.get("state", {}).get("request_id", "")),
    }
    sent = dict(headers or {})
    wait = _whole_seconds(retry_after_s, required=status in {429, 503})
    if wait is not None:
        body["retry_after_s"] = wait
        sent["Retry-After"] = str(wait)
    if errors:
        body["errors"] = explain(request.scope, errors)
    # Facts are extension members: they may add to a problem, never replace a part of it.
    body |= {name: fact for name, fact in (facts or {}).items() if name not in body}
    request.scope.setdefault("state", {})["problem_code"] = code.value
    return JSONResponse(body, status, headers=sent, media_type=PROBLEM_JSON)


async def on_service_error(request: Request, error: Exception) -> Response:
    """Handles domain errors and request errors."""
    if not isinstance(error, ServiceError):
        raise error
    faults = _faults(request, error)
    if faults:
        await load_request_shape(request)
    names_fields = isinstance(error, RequestError) and error.code is Code.VALIDATION_FAILED
    return problem_response(
        request,
        status_of(error),
        error.code,
        sentence(explain(request.scope, faults)) if names_fields and faults else error.detail,
        retry_after_s=error.retry_after_s,
        errors=faults,
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
    found = faults_of(error.errors())
    if any(fault.loc[:1] == ("path",) for fault in found):
        return problem_response(request, 404, Code.NOT_FOUND, "There is nothing at this address.")
    await load_request_shape(request)
    naive = any(fault.type == Code.TIMEZONE_REQUIRED.value for fault in found)
    code = Code.TIMEZONE_REQUIRED if naive else Code.VALIDATION_FAILED
    detail = sentence(explain(request.scope, found))
    return problem_response(request, 422, code, detail, errors=found)


def faults_of(items: Iterable[Any]) -> tuple[FieldFault, ...]:
    """Converts pydantic's errors; of each value only its kind is taken."""
    faults = (
        FieldFault(
            tuple(item["loc"]),
            str(item["type"]),
            str(item["msg"]),
            "nothing" if item["type"] == "missing" else kind_of(item.get("input")),
            bounds=bounds_of(item.get("ctx", {})),
        )
        for item in items
    )
    return tuple(islice(faults, MAX_FAULTS))


async def load_request_shape(request: Request) -> None:
    """Makes the schemas of the route in a thread, once: a large body takes half a second."""
    route = request.scope.get("route")
    if route is not None and "request_shape" not in vars(route):
        await asyncio.to_thread(getattr, route, "request_shape", None)


def explain(scope: Scope, faults: Sequence[FieldFault]) -> list[dict[str, Any]]:
    """Returns the entries of `errors` by the schemas of the matched route."""
    shape: RequestShape = getattr(scope.get("route"), "request_shape", NO_SHAPE)
    return [shape.explain(fault) for fault in faults[:MAX_FAULTS]]


def _faults(request: Request, error: ServiceError) -> Sequence[FieldFault]:
    """Returns the faults of a refusal: its own, the field that it names, or that of its text."""
    if isinstance(error, RequestError):
        return error.errors
    if status_of(error) != HTTPStatus.UNPROCESSABLE_ENTITY:
        return ()
    if error.field is not None:
        return (FieldFault((error.field,), error.code.value, error.detail),)
    loc = None if error.subject is None else _place_of(request, error.subject)
    if loc is None:
        return ()
    return (FieldFault(loc, error.code.value, error.detail, "string"),)


def _place_of(request: Request, text: str) -> tuple[str | int, ...] | None:
    """Returns the location of the first parameter or field with this text."""
    parts = {
        "path": {name: str(value) for name, value in request.path_params.items()},
        "query": dict(request.query_params),
        "body": request.scope.get("state", {}).get("document"),
    }
    return next(_places(parts, text, ()), None)


def _places(
    value: object, text: str, loc: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str) and value.replace(ENCODED_SLASH, "/") == text:
        yield loc
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _places(part, text, (*loc, name))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from _places(part, text, (*loc, at))


def _instance(scope: Scope, status: int, faults: Sequence[FieldFault]) -> str:
    """Returns the path that was asked for.

    A path parameter that is unknown or does not look like an identifier is shown by its name in
    braces, because its value may be a secret at the wrong place.
    """
    template = template_of(scope)
    if template is None:
        return "about:blank"
    if status == HTTPStatus.NOT_FOUND or any(fault.loc[:1] == ("path",) for fault in faults):
        return template
    for name, value in scope.get("path_params", {}).items():
        if _IDENTIFIER.fullmatch(str(value)):
            template = template.replace(f"{{{name}}}", str(value))
    return template


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
