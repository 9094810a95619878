"""Opens the real application in process: lifespan, state and client, as the server would."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import fields
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import httpx2
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.container.application import MY_SYMBOLS, HttpApi, create_api, request_state
from app.foundation.http.permissions import AUTHENTICATOR
from app.foundation.metrics import Metrics
from app.foundation.principals import Principal
from app.my_symbols import MySymbolsServiceV2


class OpenAuthenticator:
    """No key exists: callers on this machine need none."""

    is_open = True

    def identify(self, token: str, peer: str | None) -> None:
        del token, peer

    def explain(self, token: str, peer: str | None) -> tuple[str, str]:
        del token, peer
        return "unknown", "anonymous"

    def identify_session(self, token: str, peer: str | None, *, is_protected: bool) -> None:
        del token, peer, is_protected

    def watch(
        self, principal: Principal, on_end: Callable[[], None]
    ) -> AbstractContextManager[None]:
        del principal, on_end
        return nullcontext()


OPEN = OpenAuthenticator()
SECRET = b"a secret for tests only"
PREFIX = "/api/symbol-mgmt"


def make_api(state: Mapping[str, Any] | None = None, **options: Any) -> HttpApi:
    """An application whose lifespan yields `state`, such as {"my_symbols": service}."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"effects": [], AUTHENTICATOR: OPEN, **_complete(state or {})}

    return make_api_with(lifespan, **options)


def _complete(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with the use cases of its service; those that the service lacks are None."""
    if MY_SYMBOLS not in state:
        return dict(state)
    names = [one.name for one in fields(MySymbolsServiceV2)]
    parts = SimpleNamespace(**{name: getattr(state[MY_SYMBOLS], name, None) for name in names})
    parts.keys = parts.keys or SimpleNamespace(ring=OPEN)
    return {**request_state(cast("MySymbolsServiceV2", parts)), **state}


def make_api_with(lifespan: Any, **options: Any) -> HttpApi:
    numbers = count(1)
    ticks = count()
    given = {
        "metrics": Metrics(),
        "new_id": lambda: f"request-{next(numbers):08d}",
        "monotonic": lambda: next(ticks) * 0.001,
        "cursor_secret": SECRET,
        "allowed_hosts": ("service", "s"),
        **options,
    }
    return create_api(lifespan, **given)


@cache
def openapi_document() -> dict[str, Any]:
    """Of the product; made once, for it takes a second. Not to be changed."""
    return make_api().openapi()


@asynccontextmanager
async def open_client(api: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that talks to `api` in process; crashes come back as the 500 that they answer."""
    async with api.router.lifespan_context(api) as state:
        transport = httpx2.ASGITransport(with_state(api, state), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client


def serve(
    routers: Sequence[APIRouter], state: Mapping[str, Any] | None = None, **options: Any
) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    """A client of an application that has just these routers, below the usual prefix."""
    if options:
        return open_client(make_api(state, routers=routers, **options))
    key = tuple(map(id, routers))
    if key not in _SHARED:
        given: dict[str, Any] = {}
        _SHARED[key] = (_made_once(routers, given), given, routers)
    api, given, _ = _SHARED[key]
    given.clear()
    given.update(state or {})
    return open_client(api)


# Routes are analysed at the first request, which takes longer than most tests. The routers are
# kept beside, so that no other can get their ids.
_SHARED: dict[tuple[int, ...], tuple[FastAPI, dict[str, Any], Sequence[APIRouter]]] = {}


def _made_once(routers: Sequence[APIRouter], given: Mapping[str, Any]) -> FastAPI:
    """Each opening copies what is `given` by then."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"effects": [], AUTHENTICATOR: OPEN, **_complete(given)}

    return make_api_with(lifespan, routers=routers)


def with_state(api: FastAPI, state: Any) -> ASGIApp:
    """What a server does: each request gets a copy of the lifespan's state."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await api({**scope, "state": dict(state or {})}, receive, send)

    return app
