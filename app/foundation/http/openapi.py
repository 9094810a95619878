"""Docs UI from installed assets, and an OpenAPI document with every error response."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from app.foundation.errors import Code
from app.foundation.http.errors import Problem, describe
from app.foundation.http.openapi_fields import (
    Schemas,
    complete_field,
    describe_fields,
    example_of,
)
from app.foundation.http.origin_guard import SAFE
from app.foundation.http.permissions import (
    CHECKS_PERMISSION,
    SECURITY_SCHEMES,
    access_of,
    check_permission,
    principal_of,
    public,
    requires,
)
from app.foundation.http.protocol import PREFIX, PROBLEM_JSON, USUAL_STATUS, phrase
from app.foundation.principals import ANONYMOUS, Access, Permission, Role

TITLE: Final = "My Symbols"
DOCS_PATH: Final = "/docs"
OPENAPI_PATH: Final = "/openapi.json"
_ASSETS_PATH: Final = "/docs-assets"
_ASSETS: Final = Path(fastapi_offline.__file__).parent / "static"
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
DESCRIPTION: Final = """\
Decides which KuCoin futures symbols to hold, with what weight and size, from live data.

* Times are ISO 8601 in UTC with `Z`. Scores are 0..1. Weights are per cent with up to six
  decimals, exact. Shares, returns and drawdowns are fractions. Money and prices are decimal
  strings.
* A symbol may be given in any spelling (`BTCUSDT`, `XBTUSDTM`, `BTC-USDT`, `BTC%2FUSDT:USDT`)
  or as its UUID; answers use the standard spelling.
* Data that depends on the market has a time (`as_of`), a source (`data_source`) and a freshness
  (`data_status`).
* Errors are `application/problem+json` (RFC 9457) with a stable `code`.
* Changes accept `Idempotency-Key` and, where a version is known, `If-Match`.
* Callers send an API key as `Authorization: Bearer` or `X-API-Key`, or the cookie of a log-in at
  `/sessions`, then with `X-Requested-With` at every change; `x-required-role` of an
  operation names the least role (viewer < trader < operator < admin), `x-required-scope` the scope
  that is enough by itself.
"""
SERVERS: Final = ({"url": "/", "description": "The service that sends this document."},)
TAGS: Final = (
    {"name": "portfolio", "description": "Members, weights, plans and their history."},
    {"name": "symbols", "description": "The registry of contracts and its spellings."},
    {"name": "universe", "description": "Eligible contracts, and reasons against the others."},
    {"name": "market", "description": "Market data of one symbol."},
    {"name": "sectors", "description": "Classification of coins into sectors."},
    {"name": "scoring", "description": "Scores, rankings and their explanation."},
    {"name": "research", "description": "Backtests over the stored history."},
    {
        "name": "signals",
        "description": "Signals of sources: votes, consensus and outcome.",
    },
    {"name": "alerts", "description": "Conditions that need attention."},
    {"name": "notifications", "description": "Notification channels and their delivery log."},
    {"name": "stream", "description": "Events as they happen, and replay of missed ones."},
    {"name": "configuration", "description": "Weights, thresholds and limits, versioned."},
    {"name": "jobs", "description": "Background work that survives a restart of the process."},
    {"name": "keys", "description": "API keys of callers: roles, scopes, rotation."},
    {"name": "audit", "description": "Changes and refused requests with their actors."},
    {"name": "users", "description": "People with a password, and the caller itself."},
    {"name": "sessions", "description": "Log-in by password or key, and log-out."},
    {"name": "system", "description": "Health, status and sample data."},
    {"name": "probes", "description": "For orchestrators and Prometheus."},
)
# Changes by the cookie of a session need a header that only a page of this origin can send.
_BUNDLE: Final = "SwaggerUIBundle({"
_INTERCEPTOR: Final = (
    'requestInterceptor: (request) => { request.headers["X-Requested-With"] = "docs";'
    " return request; },"
)
_OPEN_BANNER: Final = (
    '<p style="background:#fff3cd;padding:12px;margin:0;font-family:sans-serif">Open mode: no API'
    " key exists, so callers on this machine may do everything but live trading. End it with"
    " <code>my-symbols keys create NAME --role admin</code>.</p>"
)
# Errors that any operation can return.
_ALWAYS: Final = (
    Code.BAD_REQUEST,
    Code.INVALID_UTF8,
    Code.INVALID_STRING,
    Code.METHOD_NOT_ALLOWED,
    Code.NOT_ACCEPTABLE,
    Code.URI_TOO_LONG,
    Code.HOST_NOT_ALLOWED,
    Code.HEADERS_TOO_LARGE,
    Code.VALIDATION_FAILED,
    Code.INTERNAL_ERROR,
    Code.OVERLOADED,
    Code.SHUTTING_DOWN,
    Code.DATABASE_UNAVAILABLE,
    Code.DATABASE_CONTENTION,
)
_WITH_BODY: Final = (
    Code.MALFORMED_JSON,
    Code.DUPLICATE_JSON_KEY,
    Code.NON_FINITE_NUMBER,
    Code.NUMBER_OUT_OF_RANGE,
    Code.JSON_TOO_DEEP,
    Code.PAYLOAD_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
)
_WITH_KEY: Final = (
    Code.IDEMPOTENCY_IN_PROGRESS,
    Code.IDEMPOTENCY_KEY_REUSED,
    Code.RATE_LIMITED,
)
_WITH_VERSION: Final = (Code.PRECONDITION_FAILED,)
_PROBES: Final = "probes"
_READERS: Final = Permission(Role.VIEWER)


def install_docs(
    api: FastAPI,
    log_in: Callable[[], Response] | None = None,
    documents: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType({}),
) -> None:
    """Serves /docs and the document to viewers; a hash in the policy admits the inline script.

    `documents` are further documents by path, each built at its first use. A browser without a
    session gets the page of `log_in` instead. The assets are public files of the docs UI.
    """
    page = get_swagger_ui_html(
        openapi_url=OPENAPI_PATH,
        title=f"{TITLE}: HTTP API",
        swagger_js_url=f"{_ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS_PATH}/favicon.png",
        swagger_ui_parameters={
            "displayRequestDuration": True,
            "docExpansion": "list",
            "persistAuthorization": False,
        },
    )
    html = bytes(page.body).decode().replace(_BUNDLE, _BUNDLE + _INTERCEPTOR, 1)
    hashes = " ".join(f"'{_sha256(script)}'" for script in _INLINE_SCRIPT.findall(html))
    policy = (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; font-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )

    with_banner = html.replace("<body>", f"<body>{_OPEN_BANNER}", 1)

    async def show(request: Request) -> Response:
        is_browser = "text/html" in request.headers.get("accept", "")
        if log_in is not None and is_browser and principal_of(request.scope) is ANONYMOUS:
            return log_in()
        check_permission(request.scope, _READERS)
        is_open = access_of(request.scope) is Access.OPEN
        page = with_banner if is_open else html
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    def openapi() -> dict[str, Any]:
        return api.openapi()  # `install_openapi` replaces the method

    endpoints = {OPENAPI_PATH: _document_endpoint(openapi), DOCS_PATH: show}
    endpoints |= {path: _document_endpoint(make) for path, make in documents.items()}
    for path, endpoint in endpoints.items():
        route = Route(path, requires(Role.VIEWER)(endpoint), include_in_schema=False)
        setattr(route, CHECKS_PERMISSION, True)
        api.router.routes.append(route)
    api.mount(_ASSETS_PATH, public(StaticFiles(directory=_ASSETS)), name="docs-assets")


Endpoint = Callable[[Request], Awaitable[Response]]


def _document_endpoint(make: Callable[[], dict[str, Any]]) -> Endpoint:
    """Returns the endpoint of a JSON document for viewers, which is built once."""
    lock, encoded = asyncio.Lock(), list[bytes]()

    async def show_document(request: Request) -> Response:
        check_permission(request.scope, _READERS)
        async with lock:
            if not encoded:  # takes a second of computing: runs in a thread
                encoded.append(await asyncio.to_thread(lambda: bytes(JSONResponse(make()).body)))
        return Response(encoded[0], media_type="application/json")

    return show_document


def install_openapi(api: FastAPI) -> None:
    """Completes the document at its first use."""

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = complete(
                get_openapi(
                    title=api.title,
                    version=api.version,
                    openapi_version=api.openapi_version,
                    description=api.description,
                    routes=api.routes,
                    tags=api.openapi_tags,
                )
            )
        return api.openapi_schema

    api.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Adds all error responses to every operation and removes null from optional parameters.

    Changes and returns the schema.
    """
    schema.setdefault("components", {})["securitySchemes"] = dict(SECURITY_SCHEMES)
    parts = schema["components"].setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    parts.update(problem.pop("$defs", {}))
    parts["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        parts.pop(unused, None)
    describe_fields(parts)
    schema["servers"] = list(SERVERS)
    schema["components"]["examples"] = _problem_examples()
    for path, methods in schema.get("paths", {}).items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                _never_null(parameter["schema"])
                _complete_parameter(parameter, parts)
            _add_problems(operation, changes=method.upper() not in SAFE, has_names="{" in path)
            _add_examples(operation, parts)
    return schema


def _complete_parameter(parameter: dict[str, Any], schemas: Schemas) -> None:
    """Adds unit and example of a parameter; its own example stays."""
    shape, name = parameter["schema"], parameter["name"]
    field = {**shape, "description": parameter.get("description") or shape.get("description", "")}
    complete_field(name, field)
    parameter["description"] = field.pop("description", "")
    shape.clear()
    shape.update(field)
    if parameter.get("required") and "example" not in parameter:
        parameter["example"] = example_of(shape, schemas, name)


def _add_examples(operation: dict[str, Any], schemas: Schemas) -> None:
    """Adds an example to the request body and to every successful JSON response."""
    successes = [
        response for status, response in operation["responses"].items() if int(status) < 300
    ]
    for part in (operation.get("requestBody", {}), *successes):
        content = part.get("content", {}).get("application/json")
        if content is not None and not content.keys() & {"example", "examples"}:
            content["example"] = example_of(content.get("schema", {}), schemas)


def _problem_examples() -> dict[str, Any]:
    """Returns one example per error code; every error response refers to them."""
    return {
        code.value: {
            "summary": phrase(status),
            "value": {
                "type": f"urn:my-symbols:problem:{code.value}",
                "title": phrase(status),
                "status": status,
                "code": code.value,
                "detail": f"{phrase(status)}: {code.value.replace('_', ' ')}.",
                "instance": f"{PREFIX}/portfolio",
                "request_id": "6f0b6c1e6d8e4a559f4b6f8f0b4f2a10",
            },
        }
        for code, status in USUAL_STATUS.items()
    }


def _never_null(shape: dict[str, Any]) -> None:
    """Removes null from an optional parameter: a parameter on the wire is always text."""
    kinds = [kind for kind in shape.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        shape |= kinds[0]
        del shape["anyOf"]
    elif kinds:
        shape["anyOf"] = kinds


def _add_problems(operation: dict[str, Any], *, changes: bool, has_names: bool) -> None:
    responses: dict[str, Any] = operation.setdefault("responses", {})
    table: dict[int, list[str]] = {}
    refusals: tuple[Code, ...] = (Code.FORBIDDEN,) if changes else ()
    if operation.get("security"):
        forged = (Code.CSRF_REFUSED,) if changes else ()
        refusals = (Code.UNAUTHENTICATED, Code.FORBIDDEN, *forged, Code.RATE_LIMITED)
    for code in (*refusals, *_general_codes(operation, has_names=has_names)):
        table.setdefault(USUAL_STATUS[code], []).append(code.value)
    for status, names in sorted(table.items()):
        own = responses.get(str(status), {}).get("description", "")
        own_names = re.findall(r"`([a-z0-9_]+)`", own)
        merged = list(dict.fromkeys([*own_names, *names]))
        responses[str(status)] = {"description": describe(status, merged)}
    for status_text, response in responses.items():
        if int(status_text) >= 400:
            codes = re.findall(r"`([a-z0-9_]+)`", response["description"])
            response["content"] = {
                PROBLEM_JSON: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
                }
            }
        if status_text in {"429", "503"}:
            response["headers"] = _RETRY_AFTER
        if status_text == "429":
            response["headers"] = {**_RETRY_AFTER, **_RATE_LIMIT}


_RETRY_AFTER: Final[Mapping[str, Any]] = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
}
_RATE_LIMIT: Final[Mapping[str, Any]] = {
    "RateLimit": {
        "description": "Limit, requests left and seconds until its window ends.",
        "schema": {"type": "string", "examples": ['"requests";r=0;t=1']},
    },
    "RateLimit-Policy": {
        "description": "Quota and window in seconds of the limit.",
        "schema": {"type": "string", "examples": ['"requests";q=50;w=1']},
    },
}


def _general_codes(operation: Mapping[str, Any], *, has_names: bool) -> tuple[Code, ...]:
    if _PROBES in operation.get("tags", ()):
        return (Code.INTERNAL_ERROR,)
    headers = {
        str(part["name"]).lower()
        for part in operation.get("parameters", ())
        if part.get("in") == "header"
    }
    return (
        *_ALWAYS,
        *(_WITH_BODY if "requestBody" in operation else ()),
        *(_WITH_KEY if "idempotency-key" in headers else ()),
        *(_WITH_VERSION if "if-match" in headers else ()),
        *((Code.NOT_FOUND,) if has_names else ()),
    )


def _sha256(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
