"""ASGI application of a server process: `create_app` builds it from settings."""

import ctypes
import gc
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI

from app.container.application import create_api
from app.container.runtime_values import code_version, new_id
from app.container.startup import open_service
from app.foundation.metrics import Metrics
from app.settings import Settings, secret_values
from app.telemetry.logging import RotatedLog, configure_logging

_SECRET_BYTES = 32
# A computing thread yields the interpreter after 0.5 ms: with the default of 5 ms, each response
# during a scoring took 6 ms longer.
_SWITCH_S = 0.0005
# A market update creates thousands of objects a second and hardly a reference cycle. One
# collection of ten thousand young objects blocks the event loop for up to 5 ms.
_GC_THRESHOLDS = (10_000, 20, 100)
# Each of some twenty threads would get a memory arena of its own: the service with the whole market
# took 338 MB that way, and 292 MB with two arenas.
_MALLOC_ARENAS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h
_log = structlog.get_logger("service")


def create_app(settings: Settings) -> FastAPI:
    """Returns the whole service; opens only its log before the server starts its lifespan.

    Raises OSError for a log file that cannot be written.
    """
    log = settings.log
    configure_logging(
        level=settings.log_level,
        form=log.format,
        secrets=secret_values(settings),
        stream=None if log.file is None else RotatedLog(log.file, log.file_bytes, log.file_count),
    )
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_service(
            settings, metrics, app.state.give_up, app.state.certificate
        ) as state:
            yield state

    secret = settings.http.cursor_secret
    app = create_api(
        lifespan,
        metrics=metrics,
        new_id=new_id,
        monotonic=time.monotonic,
        cursor_secret=(
            secrets.token_bytes(_SECRET_BYTES)
            if secret is None
            else secret.get_secret_value().encode()
        ),
        version=code_version(),
        docs=settings.http.docs,
        cors_origins=settings.http.cors_origins,
        logs_requests=settings.log_level in {"debug", "info"},
        allowed_hosts=(*settings.http.allowed_hosts, settings.http.host.lower()),
        trusted_proxies=tuple(map(str, settings.http.trusted_proxies)),
        allowed_addresses=tuple(map(str, settings.http.allowed_addresses)),
        rate_limits=settings.limits.rate_limits,
        streams_per_principal=settings.limits.streams_per_principal,
    )
    app.state.give_up = _log_failed_start
    app.state.certificate = None  # of a server that speaks TLS
    return app


def tune_interpreter() -> None:
    """Tunes thread switching, garbage collection and memory arenas of this process for a server.

    The imported program is frozen, so that collections skip it. A C library without `mallopt`
    keeps its own arenas.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_ARENA_MAX, _MALLOC_ARENAS)
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.collect()
    gc.freeze()


def _log_failed_start(error: Exception) -> None:
    """Logs the error; a server may replace this callback by one that ends the process."""
    _log.error("service_not_started", cause=str(error))
