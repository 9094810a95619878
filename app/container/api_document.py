"""OpenAPI document of the HTTP API without a running service, for the documentation."""

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from app.container.application import create_api
from app.container.runtime_values import new_id
from app.foundation.metrics import Metrics


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {}


def api_document(release: str) -> dict[str, Any]:
    """Returns the document as the service of that release sends it."""
    api = create_api(
        _no_lifespan,
        metrics=Metrics(),
        new_id=new_id,
        monotonic=time.monotonic,
        cursor_secret=b"unused: no request is served",
        version=release,
    )
    return api.openapi()


if __name__ == "__main__":
    json.dump(api_document(version("my-symbols")), sys.stdout, indent=1)
