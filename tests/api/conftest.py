"""A client of an application with the sample routes, and logs in their plain form."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
import structlog
from fastapi import FastAPI

from tests.api.harness import make_api, open_client
from tests.api.sample_routes import sample_router


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """structlog's default draws tracebacks with all their locals, which takes seconds."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def sample_api() -> FastAPI:
    """Built once: what requests change lives in the state that each opening makes anew."""
    return make_api(routers=[sample_router()])


@pytest.fixture
async def client(sample_api: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(sample_api) as opened:
        yield opened
