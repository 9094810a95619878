"""Rate limits of single routes: declaration at the endpoint and look-up before routing."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from fastapi import APIRouter
from starlette.routing import compile_path

from app.foundation.principals import RouteLimit

_LIMIT: Final = "__route_limit__"
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])


def limited_by(limit: RouteLimit) -> Callable[[Endpoint], Endpoint]:
    """Declares the limit of a route."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _LIMIT, limit)
        return endpoint

    return mark


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """Declared limits by method and path, as the router matches them: exactly."""

    _fixed: dict[tuple[str, str], RouteLimit] = field(default_factory=dict)
    _patterns: list[tuple[frozenset[str], re.Pattern[str], RouteLimit]] = field(
        default_factory=list
    )

    @classmethod
    def of(cls, routers: Iterable[APIRouter], prefix: str) -> "RouteLimits":
        """Limits of all routes of the routers, which are included below `prefix`."""
        table = cls()
        for route in (route for router in routers for route in router.routes):
            limit: RouteLimit | None = getattr(getattr(route, "endpoint", None), _LIMIT, None)
            if limit is None:
                continue
            path: str = prefix + getattr(route, "path", "")
            methods: set[str] = getattr(route, "methods", set())
            if "{" in path:
                table._patterns.append((frozenset(methods), compile_path(path)[0], limit))
            else:
                table._fixed.update(dict.fromkeys(((method, path) for method in methods), limit))
        return table

    def find(self, method: str, path: str) -> RouteLimit | None:
        """Limit of the route of a request; None without one."""
        limit = self._fixed.get((method, path))
        if limit is not None:
            return limit
        for methods, pattern, patterned in self._patterns:
            if method in methods and pattern.match(path):
                return patterned
        return None
