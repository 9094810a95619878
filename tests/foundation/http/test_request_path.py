"""Cost of a request around its use case: no thread, no search, nothing twice."""

import asyncio
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware

from app.container.application import ROOT_ROUTERS, ROUTERS
from app.foundation.http.middleware import RequestMiddleware
from app.foundation.http.origin_guard import OriginGuard
from app.foundation.http.protocol import PREFIX
from app.foundation.http.response_cache import ResponseCacheMiddleware
from app.foundation.http.routing import QuickRouter
from tests.support.harness import make_api

READS = [
    route
    for router in (*ROUTERS, *ROOT_ROUTERS)
    for route in router.routes
    if isinstance(route, APIRoute) and "GET" in (route.methods or ())
]
PATHS = [
    (number, re.sub(r"\{[^}]+\}", "BTC%2FUSDT", route.path))
    for number, router in enumerate(ROUTERS)
    for route in router.routes
    if isinstance(route, APIRoute)
]


class Body(BaseModel):
    number: int


def _asked(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _asked(one)


@pytest.mark.parametrize("route", READS, ids=lambda route: route.path)
def test_no_read_waits_for_a_thread(route: APIRoute) -> None:
    calls = [one.call for one in _asked(route.dependant)]
    assert all(asyncio.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in calls)


@pytest.mark.parametrize(("number", "path"), PATHS)
def test_a_router_is_skipped_for_paths_of_other_routers(number: int, path: str) -> None:
    named = [at for at, router in enumerate(ROUTERS) if _may_have(router, path)]
    assert number in named
    assert len(named) <= 2  # /alerts/rules could be an alert, and the like


def test_B16_nothing_around_a_session_ends_it_when_its_client_has_gone() -> None:
    """As starlette's BaseHTTPMiddleware does: it runs what it wraps in a task of its own."""
    api = make_api(cors_origins=("https://page.example",))
    around = []
    for outermost in (api.outermost, api.build_middleware_stack()):
        layer: Any = outermost
        while layer is not None:
            around.append(type(layer))
            layer = getattr(layer, "app", None)
    assert {RequestMiddleware, ResponseCacheMiddleware, OriginGuard, CORSMiddleware} <= set(around)
    assert not [one for one in around if issubclass(one, BaseHTTPMiddleware)]


@pytest.mark.parametrize("path", ["", "/", "/nothing", "/portfolio/", "/portfolio/a/b/c/d/e"])
def test_an_unknown_path_is_matched_against_no_route(path: str) -> None:
    assert not any(_may_have(router, path) for router in ROUTERS)


def _may_have(router: APIRouter, path: str) -> bool:
    assert isinstance(router, QuickRouter)
    return router.may_have(PREFIX + path)
