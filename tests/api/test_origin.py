"""S16: a page of another site cannot change anything through its visitor's browser."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.api.harness import PREFIX, serve
from tests.api.judging import problem
from tests.api.sample_routes import sample_router

ADD = f"{PREFIX}/samples/bare"
READ = f"{PREFIX}/samples/versioned"
ALLOWED = "https://desk.example"


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([sample_router()], cors_origins=(ALLOWED,)) as opened:
        yield opened


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://service.evil.example",
        "http://service:81",
        "http://[x",
    ],
)
async def test_S16_a_foreign_page_may_not_change_anything(
    client: httpx2.AsyncClient, origin: str
) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = await client.request(method, ADD, headers={"Origin": origin})
        problem(answer, 403, "forbidden")


@pytest.mark.parametrize("origin", ["http://service", ALLOWED, None])
async def test_S16_our_own_page_allowed_origins_and_other_clients_may(
    client: httpx2.AsyncClient, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = await client.post(ADD, headers=headers)
    assert answer.is_success


async def test_S16_reading_is_not_refused_here_but_never_shared(client: httpx2.AsyncClient) -> None:
    answer = await client.get(READ, headers={"Origin": "http://evil.example"})
    assert answer.is_success
    assert "access-control-allow-origin" not in answer.headers
