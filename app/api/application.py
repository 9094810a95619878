"""Puts the HTTP side together: routes, strict reading, errors, limits, docs."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Lifespan

from app.api import errors
from app.api.at_once import AtOnce
from app.api.docs import (
    DESCRIPTION,
    OPENAPI_PATH,
    TAGS,
    TITLE,
    install_docs,
    install_openapi,
)
from app.api.errors import PREFIX
from app.api.hosts import HostGuard
from app.api.kept import KeptAnswers
from app.api.middleware import RequestBorder
from app.api.opening import OpeningGuard
from app.api.origin import OriginGuard
from app.api.paging import Cursors
from app.api.responses import Bodies, Shown
from app.api.routes import (
    alert_rules,
    alerts,
    configuration,
    jobs,
    market,
    market_quality,
    notifications,
    portfolio,
    portfolio_changes,
    portfolio_controls,
    portfolio_history,
    portfolio_marks,
    portfolio_metrics,
    portfolio_performance,
    portfolio_proposals,
    portfolio_rebalance,
    portfolio_rebalances,
    portfolio_replacement,
    portfolio_report,
    portfolio_safety,
    portfolio_trading,
    scoring,
    signals,
    stream,
    symbols,
    system,
    universe,
)
from app.api.routing import FiniteJSONResponse
from app.telemetry.metrics import Metrics

ROUTERS: Final[tuple[APIRouter, ...]] = (
    symbols.router,
    universe.router,
    market.router,
    market_quality.router,
    scoring.router,
    portfolio.router,
    portfolio_changes.router,
    portfolio_controls.router,
    portfolio_proposals.router,
    portfolio_rebalance.router,
    portfolio_rebalances.router,
    portfolio_replacement.router,
    portfolio_safety.router,
    portfolio_trading.router,
    portfolio_history.router,
    portfolio_metrics.router,
    portfolio_performance.router,
    portfolio_marks.router,
    portfolio_report.router,
    alert_rules.router,
    alerts.router,
    signals.router,
    stream.router,
    notifications.router,
    configuration.router,
    jobs.router,
    system.router,
)
# What a page of an allowed origin may read of an answer, beside its body.
_EXPOSED: Final = (
    *("ETag", "Location", "Retry-After", "X-Request-ID", "X-Service-Mode"),
    *("Idempotency-Replayed", "Preference-Applied"),
)
ROOT_ROUTERS: Final[tuple[APIRouter, ...]] = (system.probes,)


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
    routers: Sequence[APIRouter] = ROUTERS,
    root_routers: Sequence[APIRouter] = ROOT_ROUTERS,
) -> FastAPI:
    """The ASGI application. `lifespan` yields the state: {"my_symbols": MySymbolsServiceV2}.

    Nothing is started before the lifespan runs. Routers can be given, so that tests can add
    routes of their own.
    """
    api = FastAPI(
        title=TITLE,
        version=version,
        description=DESCRIPTION,
        openapi_tags=list(TAGS),
        openapi_url=OPENAPI_PATH if docs else None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        default_response_class=FiniteJSONResponse,
        generate_unique_id_function=_operation_id,
    )
    api.state.cursors = Cursors(cursor_secret)
    api.state.rankings = Bodies()
    api.state.shown = Shown()
    api.state.metrics = metrics
    errors.install(api)
    for router in root_routers:
        api.include_router(router)
    for router in routers:
        api.include_router(router, prefix=PREFIX)
    if docs:
        install_docs(api)
    install_openapi(api)
    api.add_middleware(OriginGuard, allowed=tuple(cors_origins))
    if cors_origins:
        api.add_middleware(CORSMiddleware, **_cors(cors_origins))
    # Outside of everything, also of Starlette's own last resort for crashes.
    answers = KeptAnswers(api.build_middleware_stack())
    named = HostGuard(OpeningGuard(answers), frozenset(allowed_hosts))
    border = RequestBorder(named, metrics, new_id, monotonic)
    api.middleware_stack = border
    api.state.at_once = AtOnce(border, named, answers)  # for the server, which may ask it before
    return api


def _operation_id(route: APIRoute) -> str:
    return route.name


def _cors(origins: Sequence[str]) -> dict[str, Any]:
    return {
        "allow_origins": list(origins),
        "allow_methods": ["GET", "POST", "PUT", "DELETE"],
        "allow_headers": ["Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Prefer"],
        "expose_headers": list(_EXPOSED),
        "max_age": 600,
    }
