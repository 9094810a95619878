"""A frozen local exchange for the tests: built once, put back to its start before each."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from app.sandbox.exchange import LocalExchange
from app.sandbox.options import SandboxOptions
from app.sandbox.server import application

# Saturday 21 November 2026, 19:50:17.123 UTC.
START_MS = 1_795_290_617_123


class Watch:
    """A clock that the test moves, in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Shop:
    """An exchange with its clocks."""

    def __init__(self, **options: Any) -> None:
        self.clock = Watch(START_MS / 1000)
        self.monotonic = Watch(1000.0)
        self.exchange = LocalExchange(SandboxOptions(**options), self.clock, self.monotonic)


@pytest.fixture(scope="session")
def _whole() -> Shop:
    return Shop(seed=7)


@pytest.fixture
def whole(_whole: Shop) -> Iterator[Shop]:
    """All 556 contracts, shared: look, do not plant."""
    _whole.monotonic.now += 1000.0
    _whole.exchange.faults.disarm()
    _whole.exchange.contracts.statuses.clear()
    _whole.exchange.pool.reset()
    _whole.exchange.pool.quota = 2000
    _whole.exchange.pool.tally = type(_whole.exchange.pool.tally)()
    _whole.exchange.clock.set(START_MS, 1.0)
    _whole.exchange.forget_answers()
    yield _whole
    _whole.exchange.faults.disarm()


@pytest.fixture
def small() -> Shop:
    """Thirty contracts of one's own, to be changed."""
    return Shop(seed=7, contracts=30)


@pytest.fixture(scope="session")
def _few() -> Shop:
    return Shop(seed=7, contracts=30)


@pytest.fixture
def few(_few: Shop) -> Iterator[Shop]:
    """Thirty contracts, shared: move the clocks, do not plant."""
    exchange = _few.exchange
    exchange.faults.disarm()
    exchange.contracts.statuses.clear()
    exchange.pool.reset()
    exchange.pool.tally = type(exchange.pool.tally)()
    exchange.clock.set(START_MS, 1.0)
    exchange.forget_answers()
    yield _few
    exchange.faults.disarm()


async def _client(shop: Shop) -> AsyncIterator[TestClient[Any, Any]]:
    server = TestServer(application(shop.exchange))
    jar = aiohttp.DummyCookieJar()
    async with TestClient(server, cookie_jar=jar) as client:
        yield client


@pytest.fixture
async def client(whole: Shop) -> AsyncIterator[TestClient[Any, Any]]:
    """HTTP to the whole exchange."""
    async for one in _client(whole):
        yield one


@pytest.fixture
async def small_client(small: Shop) -> AsyncIterator[TestClient[Any, Any]]:
    """HTTP to the small exchange."""
    async for one in _client(small):
        yield one


@pytest.fixture
async def few_client(few: Shop) -> AsyncIterator[TestClient[Any, Any]]:
    """HTTP to the shared small exchange, with a stream of its own."""
    async for one in _client(few):
        yield one


async def data(client: TestClient[Any, Any], path: str, **query: Any) -> Any:
    """The `data` of a successful answer."""
    async with client.get(path, params=query) as response:
        body = await response.json(content_type=None)
        assert response.status == 200, body
        assert body["code"] == "200000", body
        return body["data"]


async def failure(client: TestClient[Any, Any], path: str, **query: Any) -> tuple[int, str]:
    """HTTP status and code of a failed answer, which carries no data."""
    async with client.get(path, params=query) as response:
        body = await response.json(content_type=None)
        assert "data" not in body
        assert isinstance(body["msg"], str)
        return response.status, body["code"]
