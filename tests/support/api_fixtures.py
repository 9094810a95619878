"""Client of an application with the sample routes, and a record of where models are encoded."""

import threading
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.foundation.http import responses
from app.foundation.http.responses import json_bytes
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


@pytest.fixture
def encoding_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Threads in which models were encoded."""
    threads: list[int] = []

    def spy(model: BaseModel) -> bytes:
        threads.append(threading.get_ident())
        return json_bytes(model)

    monkeypatch.setattr(responses, "json_bytes", spy)
    return threads
