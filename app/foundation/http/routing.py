"""Route class of every endpoint: strict query, strict body, finite JSON."""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.dependencies.utils import get_flat_params
from fastapi.openapi.utils import get_openapi
from fastapi.params import Depends, Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, WebSocketRoute
from starlette.types import Scope

from app.foundation.errors import Code
from app.foundation.http.errors import RequestError, invalid
from app.foundation.http.field_faults import RequestShape
from app.foundation.http.openapi_fields import describe_fields
from app.foundation.http.permissions import (
    CHECKS_PERMISSION,
    check_permission,
    openapi_security,
    permission_guard,
    permission_of,
)
from app.foundation.http.protocol import PREFIX
from app.foundation.http.representations import (
    CSV_TYPE,
    JSON_TYPE,
    CsvRows,
    accept_of,
    negotiate,
    strip_tags,
)
from app.foundation.http.request_body import UNSAFE_TEXT, read_json

MAX_QUERY_FIELDS: Final = 64
_UNNEGOTIATED: Final = "probes"  # tag: orchestrators send any Accept
_NAME: Final = re.compile(r"\?P<[^>]+>")  # group names repeat across paths


class FiniteJSONResponse(JSONResponse):
    """JSON without NaN or Infinity: rendering one raises, which is a 500 and a bug."""


class _ReadRequest(Request):
    """Request whose body has been read and validated already."""

    document: Any = None

    async def body(self) -> bytes:
        return b"" if self.document is None else b"{}"

    async def json(self) -> Any:
        return self.document


class StrictRoute(APIRoute):
    """Checks the permission, validates the query and reads the body before FastAPI does."""

    checks_permission = True

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        extra = {**openapi_security(endpoint), **(options.pop("openapi_extra", None) or {})}
        super().__init__(path, endpoint, openapi_extra=extra, **options)
        is_read = (self.methods or set()) <= {"GET", "HEAD"}
        self.csv_rows = CsvRows.of(endpoint, self.response_model) if is_read else None
        if self.csv_rows is not None:
            self.responses = {**self.responses, 200: _with_csv(self.responses, self.csv_rows)}

    @cached_property
    def offers(self) -> tuple[str, ...]:
        """Media types of the successful answer, the default first; empty: not negotiated."""
        if _UNNEGOTIATED in self.tags:
            return ()
        own = getattr(self.response_class, "media_type", None)
        declared = self.responses.get(200, {}).get("content", {})
        first = own if isinstance(own, str) else JSON_TYPE
        return tuple(dict.fromkeys((first, *declared)))

    @cached_property
    def request_shape(self) -> RequestShape:
        """Schemas of the request as in the document; made at the first refusal."""
        document = get_openapi(title="", version="", routes=[self])
        schemas = document.get("components", {}).get("schemas", {})
        describe_fields(schemas)
        methods: dict[str, Any] = next(iter(document["paths"].values()), {})
        return RequestShape.from_operation(next(iter(methods.values()), {}), schemas)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        field, permission = self.body_field, permission_of(self)
        known = frozenset(
            param.alias
            for param in get_flat_params(self.dependant)
            if isinstance(param.field_info, Query)
        )

        async def strict(request: Request) -> Response:
            check_permission(request.scope, permission)
            kind = self._representation(request.scope)
            check_query(request.scope["query_string"], known)
            if self.csv_rows is not None:
                if kind != CSV_TYPE:
                    response = await handler(request)
                else:
                    plain = Request(strip_tags(request.scope), request.receive)
                    response = await self.csv_rows.convert(await handler(plain), request.scope)
                response.headers.append("Vary", "Accept")
                return response
            if field is None:
                return await handler(request)
            read = _ReadRequest(request.scope, request.receive)
            read.document = await read_json(request, required=field.field_info.is_required())
            # Dependencies (the idempotency fingerprint) read the same document.
            request.scope["state"]["document"] = read.document
            return await handler(read)

        return strict

    def _representation(self, scope: Scope) -> str:
        """Returns the media type of the answer. Raises RequestError for an Accept without one."""
        if not self.offers:
            return JSON_TYPE
        kind = negotiate(accept_of(scope), self.offers)
        if kind is None:
            names = ", ".join(self.offers)
            raise RequestError(
                Code.NOT_ACCEPTABLE,
                f"This address answers {names}; Accept names none of them.",
                facts={"allowed": self.offers},
            )
        return kind


def _with_csv(responses: Mapping[int | str, Any], rows: CsvRows) -> dict[str, Any]:
    """Returns the documentation of a successful answer with its CSV and its Link header."""
    own = dict(responses.get(200, {}))
    content = {
        CSV_TYPE: {
            "schema": {"type": "string", "description": f"One line per entry of `{rows.member}`."},
            "example": ",".join(rows.columns) + "\r\n",
        }
    }
    link = {"description": "Next page of a CSV answer.", "schema": {"type": "string"}}
    headers = {"Link": link, **own.get("headers", {})}
    return {**own, "content": {**own.get("content", {}), **content}, "headers": headers}


def check_query(raw: bytes, known: frozenset[str]) -> None:
    """Raises RequestError (400 or 422) for an unknown or repeated parameter or invalid text."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except UnicodeError:
        pairs = None
    except ValueError:
        raise invalid("query", "query", "too_many", "Too many query parameters.") from None
    if pairs is None:
        raise RequestError(Code.INVALID_UTF8, "The query must be percent-encoded UTF-8.")
    seen: set[str] = set()
    for name, value in pairs:
        if UNSAFE_TEXT.search(name) or UNSAFE_TEXT.search(value):
            raise RequestError(Code.INVALID_STRING, "The query holds control characters.")
        if name not in known:
            raise invalid("query", name, "extra_forbidden", "A query parameter is not known here.")
        if name in seen:
            raise invalid("query", name, "repeated", "A query parameter is given twice.")
        seen.add(name)


class QuickRouter(APIRouter):
    """Excludes unmatched paths by one expression: trying each route costs more than a reply."""

    _paths: tuple[int, re.Pattern[str]] | None = None

    def add_api_websocket_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        name: str | None = None,
        *,
        dependencies: Sequence[Depends] | None = None,
    ) -> None:
        """Adds a WebSocket whose permission is checked before it is accepted."""
        guarded = [permission_guard(endpoint), *(dependencies or ())]
        super().add_api_websocket_route(path, endpoint, name, dependencies=guarded)
        setattr(self.routes[-1], CHECKS_PERMISSION, True)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if self.may_have(scope["path"]) else (Match.NONE, {})

    def may_have(self, path: str) -> bool:
        """Returns False only if no route can match; always True outside of the prefix."""
        if not path.startswith(PREFIX):
            return True
        return self._any_route().fullmatch(path, len(PREFIX)) is not None

    def _any_route(self) -> re.Pattern[str]:
        """Returns one expression for the paths of all routes."""
        if self._paths is None or self._paths[0] != len(self.routes):
            patterns = (
                _NAME.sub("?:", route.path_regex.pattern.strip("^$"))
                for route in self.routes
                if isinstance(route, Route | WebSocketRoute)
            )
            self._paths = (len(self.routes), re.compile("|".join(patterns)))
        return self._paths[1]


def api_router(tag: str, prefix: str = "") -> APIRouter:
    """Returns a router with strict routes, for every routes module."""
    return QuickRouter(prefix=prefix, tags=[tag], route_class=StrictRoute)
