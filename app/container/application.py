"""Builds the FastAPI application: routes, middleware, error handlers and OpenAPI documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, get_type_hints

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from app.alerts.api import alert_routes as alerts
from app.alerts.api import notification_routes as notifications
from app.configuration.services.current import ConfigurationChanges
from app.foundation.http import errors
from app.foundation.http.dependencies import USE_CASES, ExpensiveRequests, UseCases
from app.foundation.http.host_guard import HostGuard
from app.foundation.http.middleware import LogContextMiddleware, RequestMiddleware
from app.foundation.http.openapi import (
    DESCRIPTION,
    TAGS,
    TITLE,
    install_docs,
    install_openapi,
)
from app.foundation.http.origin_guard import OriginGuard
from app.foundation.http.pagination import Cursors
from app.foundation.http.permissions import (
    AUDIT,
    AUTHENTICATOR,
    require_declarations,
    ticket_paths,
)
from app.foundation.http.protocol import PREFIX
from app.foundation.http.response_cache import ResponseCacheMiddleware
from app.foundation.http.route_limits import RouteLimits
from app.foundation.http.routing import FiniteJSONResponse
from app.foundation.http.startup_guard import StartupGuard
from app.foundation.http.stream_slots import STREAMS_PER_PRINCIPAL, StreamSlots
from app.foundation.metrics import Metrics
from app.market.api import book_routes as market_books
from app.market.api import market_routes as market
from app.market.api import quality_routes as market_quality
from app.market.api import sector_routes as sectors
from app.market.api import symbol_routes as symbols
from app.market.services.ports import PortfolioMembers
from app.my_symbols import MySymbolsServiceV2
from app.operations.api import audit_routes as audit
from app.operations.api import change_routes as changes
from app.operations.api import configuration_routes as configuration
from app.operations.api import dashboard_routes as dashboard
from app.operations.api import job_routes as jobs
from app.operations.api import preview_routes as preview
from app.operations.api import stream_routes as stream
from app.operations.api import system_routes as system
from app.operations.api.event_schemas import ASYNCAPI_PATH, asyncapi_document
from app.performance.api import metrics_routes as portfolio_metrics
from app.performance.api import report_routes as portfolio_report
from app.performance.api import routes as portfolio_performance
from app.portfolio.api import control_routes as portfolio_controls
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import proposal_routes as portfolio_proposals
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.portfolio.services.membership import PortfolioService
from app.research.api import routes as research
from app.research.api import validation_routes as score_validation
from app.scoring.api import routes as scoring
from app.security.api import key_routes as keys
from app.security.api import session_routes as sessions
from app.security.api import user_routes as users
from app.security.api.authentication import TICKETS, AuthenticationMiddleware
from app.security.api.client_address import ClientAddressMiddleware
from app.security.api.log_in_page import log_in_page
from app.security.api.rate_limiting import RateLimitMiddleware
from app.security.api.refusals import RefusalAuditMiddleware
from app.security.domain.rate_limits import RateLimits
from app.security.services.rate_limiter import RateLimiter
from app.signals.api import routes as signals
from app.trading.api import routes as portfolio_safety

ROUTERS: Final[tuple[APIRouter, ...]] = (
    symbols.router,
    scoring.symbol_router,
    symbols.universe_router,
    market.router,
    market_books.router,
    market_quality.router,
    sectors.router,
    scoring.router,
    score_validation.router,
    research.router,
    portfolio.router,
    portfolio_changes.router,
    portfolio_controls.router,
    portfolio_proposals.router,
    portfolio_rebalance.router,
    portfolio_safety.router,
    system.integrity_router,
    portfolio_metrics.router,
    portfolio_performance.router,
    portfolio_report.router,
    alerts.rule_router,
    alerts.router,
    signals.router,
    stream.router,
    changes.router,
    notifications.router,
    configuration.router,
    preview.router,
    jobs.router,
    keys.router,
    audit.router,
    sessions.router,
    users.router,
    system.router,
    dashboard.router,
)
# Response headers that a page of an allowed origin may read.
_EXPOSED: Final = (
    *("ETag", "Link", "Location", "Retry-After", "X-Request-ID", "X-Service-Mode"),
    *("X-As-Of", "X-Data-Source", "X-Data-Status"),
    *("Idempotency-Replayed", "Preference-Applied", "WWW-Authenticate"),
    *("RateLimit", "RateLimit-Policy"),
)
ROOT_ROUTERS: Final[tuple[APIRouter, ...]] = (system.probes,)


class HttpApi(FastAPI):
    """FastAPI behind guards and response cache: a cached response never reaches the framework."""

    outermost: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.outermost(scope, receive, send)

    async def run_framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Middleware of FastAPI and Starlette, router and endpoint."""
        await super().__call__(scope, receive, send)


def create_api(
    lifespan: Lifespan[FastAPI],
    *,
    metrics: Metrics,
    new_id: Callable[[], str],
    monotonic: Callable[[], float],
    cursor_secret: bytes,
    version: str = "0",
    docs: bool = True,
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
    allowed_addresses: Sequence[str] = (),
    rate_limits: RateLimits | None = None,
    streams_per_principal: int = STREAMS_PER_PRINCIPAL,
    logs_requests: bool = True,
    routers: Sequence[APIRouter] = ROUTERS,
    root_routers: Sequence[APIRouter] = ROOT_ROUTERS,
) -> HttpApi:
    """Returns the ASGI application; `lifespan` yields the result of `request_state`.

    Nothing starts before the lifespan runs. Tests may pass `routers` of their own.
    Without `rate_limits` no request is refused for its rate.
    """
    api = HttpApi(
        title=TITLE,
        version=version,
        description=DESCRIPTION,
        openapi_tags=list(TAGS),
        openapi_url=None,  # `install_docs` serves it
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        default_response_class=FiniteJSONResponse,
        generate_unique_id_function=_operation_id,
        # Checking the environment for exporters at every request costs more than a cached answer.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    api.state.cursors = Cursors(cursor_secret)
    api.state.expensive = ExpensiveRequests()
    api.state.checks = ExpensiveRequests(running=8, waiting=0)
    api.state.stream_slots = StreamSlots(streams_per_principal)
    api.state.metrics = metrics
    errors.install(api)
    for router in root_routers:
        api.include_router(router)
    for router in routers:
        api.include_router(router, prefix=PREFIX)
    install_openapi(api)  # first: the docs serve this document
    if docs:
        install_docs(
            api,
            log_in_page(f"{PREFIX}{sessions.router.prefix}"),
            {ASYNCAPI_PATH: lambda: asyncapi_document(api.version)},
        )
    own = (route for route in api.routes if isinstance(route, Route | WebSocketRoute | Mount))
    require_declarations(
        [*own, *(route for router in (*root_routers, *routers) for route in router.routes)]
    )
    if cors_origins:
        api.add_middleware(CORSMiddleware, **_cors(cors_origins))
    # Outermost layers, also around Starlette's last-resort error handler.
    inner: ASGIApp = ResponseCacheMiddleware(LogContextMiddleware(api.run_framework))
    if rate_limits is not None:
        inner = RateLimitMiddleware(
            inner,
            RateLimiter(rate_limits, monotonic),
            RouteLimits.of(routers, PREFIX),
            metrics.rate_limited_requests,
        )
    authenticated = AuthenticationMiddleware(inner, monotonic, ticket_paths(routers, PREFIX))
    guarded = OriginGuard(StartupGuard(authenticated), allowed=tuple(cors_origins))
    named = HostGuard(guarded, frozenset(allowed_hosts))
    watched = RefusalAuditMiddleware(
        ClientAddressMiddleware(named, tuple(trusted_proxies), tuple(allowed_addresses))
    )
    api.outermost = RequestMiddleware(watched, metrics, new_id, monotonic, logs_requests)
    return api


def _operation_id(route: APIRoute) -> str:
    return route.name


def _cors(origins: Sequence[str]) -> dict[str, Any]:
    return {
        "allow_origins": list(origins),
        "allow_methods": ["GET", "POST", "PUT", "PATCH", "DELETE"],
        "allow_headers": [
            *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
            *("Prefer", "X-API-Key"),
        ],
        "expose_headers": list(_EXPOSED),
        "max_age": 600,
    }


MY_SYMBOLS = "my_symbols"


@dataclass(frozen=True, slots=True)
class _Members:
    portfolio: PortfolioService

    async def symbols(self) -> frozenset[str]:
        view = await self.portfolio.view()
        return frozenset(member.symbol for member in view.portfolio.members)


def request_state(service: MySymbolsServiceV2) -> dict[str, Any]:
    """Returns the state of requests: the service, and each of its use cases by type."""
    types = get_type_hints(MySymbolsServiceV2)
    by_type: dict[type, object] = {
        types[field.name]: getattr(service, field.name) for field in fields(MySymbolsServiceV2)
    }
    by_type[ConfigurationChanges] = service.configuration
    by_type[PortfolioMembers] = _Members(service.portfolio)
    use_cases = UseCases(by_type)
    return {
        MY_SYMBOLS: service,
        USE_CASES: use_cases,
        AUTHENTICATOR: service.keys.ring,
        AUDIT: service.security_audit,
        TICKETS: service.tickets,
    }
