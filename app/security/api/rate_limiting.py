"""Refuses requests beyond a rate limit before anything else answers them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from prometheus_client import Counter
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.errors import problem_response
from app.foundation.http.origin_guard import SAFE
from app.foundation.http.permissions import PRINCIPAL
from app.foundation.http.responses import MORE_HEADERS, Header
from app.foundation.http.route_limits import RouteLimits
from app.foundation.principals import Principal
from app.security.api.client_address import CLIENT_ADDRESS
from app.security.domain.addresses import ClientAddress, site_of
from app.security.domain.rate_limits import limits_of
from app.security.services.count_exchange import CountExchange
from app.security.services.rate_limiter import Admission, RateLimiter

# In the state of the lifespan: SharedWindowStorage where several processes use one database.
SHARED_WINDOWS: Final = "shared_windows"
COUNT_EXCHANGE: Final = "count_exchange"  # likewise: CountExchange
TOO_MANY: Final = 4429  # close code of a WebSocket
UNLIMITED: Final = frozenset({"/livez", "/readyz"})  # orchestrators must always get an answer
_DENIAL: Final = "websocket.http.response"  # extension of servers that can refuse with a response
_REMEMBERED: Final = 4_096


@dataclass(frozen=True, slots=True)
class RateLimitMiddleware:
    """Counts each request for its principal and its address.

    Inside of the authentication, outside of the response cache and of the permission of the route.
    """

    app: ASGIApp
    limiter: RateLimiter
    routes: RouteLimits
    refusals: Counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan" or scope["path"] in UNLIMITED:
            await self.app(scope, receive, send)
            return
        state = scope["state"]
        principal: Principal = state[PRINCIPAL]
        client: ClientAddress = state[CLIENT_ADDRESS]
        exchange: CountExchange | None = state.get(COUNT_EXCHANGE)
        if exchange is not None:
            exchange.attach(self.limiter)
        method = "GET" if kind == "websocket" else scope["method"]
        admission = await self.limiter.admit(
            limits_of(
                principal,
                site_of(client.counted),
                is_change=method not in SAFE,
                route=self.routes.find(method, scope["path"]),
            ),
            state.get(SHARED_WINDOWS),
        )
        state[MORE_HEADERS] = (*state.get(MORE_HEADERS, ()), *headers_of(admission))
        if admission.retry_after_s is None:
            await self.app(scope, receive, send)
            return
        self.refusals.labels(admission.limit.value).inc()
        await _refuse(scope, receive, send, admission)


def headers_of(admission: Admission) -> tuple[Header, Header]:
    """RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-10."""
    return (
        _policy(admission.limit.value, admission.quota, admission.window_s),
        _state(admission.limit.value, admission.remaining, admission.reset_s),
    )


@lru_cache(_REMEMBERED)
def _policy(name: str, quota: int, window_s: int) -> Header:
    return b"ratelimit-policy", f'"{name}";q={quota};w={window_s}'.encode()


@lru_cache(_REMEMBERED)
def _state(name: str, remaining: int, reset_s: int) -> Header:
    return b"ratelimit", f'"{name}";r={remaining};t={reset_s}'.encode()


async def _refuse(scope: Scope, receive: Receive, send: Send, admission: Admission) -> None:
    if scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": TOO_MANY})
        return
    per = "second" if admission.window_s == 1 else "minute"
    refused = problem_response(
        Request({**scope, "type": "http"}),
        429,
        Code.RATE_LIMITED,
        f"The limit {admission.limit.value} is {admission.quota} requests per {per}.",
        retry_after_s=admission.retry_after_s,
        facts={"limit": admission.limit.value},
    )
    await refused(scope, receive, send)
