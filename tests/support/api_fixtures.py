"""A client of an application with the sample routes."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI

from tests.support.harness import make_api, open_client
from tests.support.sample_routes import sample_router


@pytest.fixture(scope="session")
def sample_api() -> FastAPI:
    """Built once: what requests change lives in the state that each opening makes anew."""
    return make_api(routers=[sample_router()])


@pytest.fixture
async def client(sample_api: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(sample_api) as opened:
        yield opened
