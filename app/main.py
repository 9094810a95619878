"""The application as a server runs it: settings in, ASGI application out."""

import ctypes
import gc
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from fastapi import FastAPI

from app.container.application import create_api
from app.container.runtime_values import code_version, new_id
from app.container.startup import open_service
from app.foundation.metrics import Metrics
from app.settings import Settings
from app.telemetry.logging import configure_logging

_SECRET_BYTES = 32
# A computing thread yields the interpreter after half a millisecond: with the usual five, each
# answer during a scoring took six milliseconds longer.
_SWITCH_S = 0.0005
# A market update makes thousands of objects a second and hardly a reference cycle. One collection
# of ten thousand young objects takes up to five milliseconds of the event loop.
_GC_THRESHOLDS = (10_000, 20, 100)
# Each of some twenty threads would get a memory arena of its own: the service with the whole market
# held 338 MB with them, and 292 MB with two.
_MALLOC_ARENAS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h
_log = structlog.get_logger("service")


def create_app(settings: Settings) -> FastAPI:
    """The whole service; nothing is opened before the server starts its lifespan."""
    configure_logging(
        level=settings.log.level, form=settings.log.format, secrets=known_secrets(settings)
    )
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_service(settings, metrics, app.state.give_up) as state:
            yield state

    given = settings.http.cursor_secret
    app = create_api(
        lifespan,
        metrics=metrics,
        new_id=new_id,
        monotonic=time.monotonic,
        cursor_secret=(
            secrets.token_bytes(_SECRET_BYTES)
            if given is None
            else given.get_secret_value().encode()
        ),
        version=code_version(),
        docs=settings.http.docs,
        cors_origins=settings.http.cors_origins,
        logs_requests=settings.log.level in {"debug", "info"},
        allowed_hosts=(*settings.http.allowed_hosts, settings.http.host.lower()),
    )
    app.state.give_up = _given_up
    return app


def tune_interpreter() -> None:
    """Set thread switching, garbage collection and memory arenas of this process for a server.

    The imported program is frozen: a collection does not traverse it any more. A C library
    without `mallopt` keeps its own arenas.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_ARENA_MAX, _MALLOC_ARENAS)
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.collect()
    gc.freeze()


def _given_up(error: Exception) -> None:
    """Whoever serves the application may put something in this place that ends the process."""
    _log.error("service_not_started", cause=str(error))


def known_secrets(settings: Settings) -> list[str]:
    """Every secret value that the settings hold, as it could turn up in a log."""
    given = settings.http.cursor_secret
    password = urlsplit(settings.database.url).password
    return [
        *([] if given is None else [given.get_secret_value()]),
        *([] if password is None else [password, unquote(password)]),
        *settings.notifications.key_list,
        *settings.security.pepper_list,
    ]
