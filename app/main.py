"""The application as a server runs it: settings in, ASGI application out."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI

from app.api.application import create_api
from app.container import assemble, code_version, new_id
from app.settings import Settings
from app.telemetry.logging import configure_logging
from app.telemetry.metrics import Metrics

_SECRET_BYTES = 32


def create_app(settings: Settings) -> FastAPI:
    """The whole service; nothing is opened before the server starts its lifespan."""
    configure_logging(
        level=settings.log.level, form=settings.log.form, secrets=known_secrets(settings)
    )
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with assemble(settings, metrics) as services:
            yield {
                "my_symbols": services.my_symbols,
                "mode": services.mode,
                "standing": services.standing,
            }

    given = settings.http.cursor_secret
    return create_api(
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
        allowed_hosts=(*settings.http.allowed_hosts, settings.http.host.lower()),
    )


def known_secrets(settings: Settings) -> list[str]:
    """Every secret value that the settings hold, as it could turn up in a log."""
    given = settings.http.cursor_secret
    password = urlsplit(settings.database.url).password
    return [
        *([] if given is None else [given.get_secret_value()]),
        *([] if password is None else [password, unquote(password)]),
    ]
