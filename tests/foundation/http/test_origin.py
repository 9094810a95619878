"""S16: a page of another site changes nothing through its visitor's browser, and reads nothing."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from app.foundation.http.host_guard import HostGuard
from app.settings import HttpVariables
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.sample_routes import sample_router

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


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "service.evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example.localhostx",
        "0x7f000001",
        "127.1",
        "user@service",
        "service/",
        "[::1",
        "[::1%25lo]",
        "",
        " service",
        "service:",
        "service:port",
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", READ, "/nowhere"])
async def test_S16_a_name_that_is_not_ours_gets_nothing(
    client: httpx2.AsyncClient, host: str, path: str
) -> None:
    answer = await client.get(path, headers={"Host": host})
    problem(answer, 421, "host_not_allowed")
    assert answer.headers["connection"] == "close"
    assert host.strip(" ") == "" or f'"{host}"' not in answer.text, "nothing is echoed"


async def test_S16_a_second_host_does_not_help(client: httpx2.AsyncClient) -> None:
    twice = [("Host", "service"), ("Host", "evil.example")]
    problem(await client.get("/livez", headers=twice), 421, "host_not_allowed")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "localhost.",
        "app.localhost:3000",
        "127.0.0.1",
        "127.0.0.1:65535",
        "192.168.1.20:8000",
        "[::1]",
        "[::1]:8000",
        "service",
        "SERVICE:8000",
    ],
)
async def test_S16_our_names_at_any_port_do(client: httpx2.AsyncClient, host: str) -> None:
    answer = await client.get(READ, headers={"Host": host})
    assert answer.status_code == 200


def test_S16_names_come_from_the_settings() -> None:
    given = HttpVariables(allowed_hosts=("Desk.Example", "my_symbols"))
    assert given.allowed_hosts == ("desk.example", "my_symbols")
    for wrong in ("https://desk.example", "desk.example:8000", "*", "", "-desk", "a b"):
        with pytest.raises(ValidationError):
            HttpVariables(allowed_hosts=(wrong,))


def test_S16_allowed_origins_are_named_one_by_one() -> None:
    given = HttpVariables(cors_origins=("https://Desk.Example", "http://[::1]:3000"))
    assert given.cors_origins == ("https://desk.example", "http://[::1]:3000")
    for wrong in (
        "*", "null", "", "desk.example", "https://*.example", "https://desk.example/",
        "https://user@desk.example", "file://desk", "https://desk.example,https://other.example",
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            HttpVariables(cors_origins=(wrong,))


@pytest.mark.parametrize("host", ["evil.example", "localhost:8000"])
async def test_S16_a_socket_by_a_name_that_is_not_ours_is_closed(host: str) -> None:
    reached, said = [], []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        reached.append(scope["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        said.append(message)

    scope = {"type": "websocket", "headers": [(b"host", host.encode())]}
    await HostGuard(app)(scope, receive, send)
    await HostGuard(app)({"type": "lifespan"}, receive, send)
    if host == "evil.example":
        assert (reached, said) == (["lifespan"], [{"type": "websocket.close", "code": 4421}])
    else:
        assert (reached, said) == (["websocket", "lifespan"], [])
