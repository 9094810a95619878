"""An exchange that cannot be reached: nothing is made up, the cause is named, it heals itself."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from app.foundation.events import EventTopic
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX, openapi_document
from tests.support.service_in_process import PATIENCE_S, Running, running, settings_for

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def refusing(port: int) -> AsyncIterator[None]:
    """Nobody listens there."""
    del port
    yield


@asynccontextmanager
async def hanging(port: int) -> AsyncIterator[None]:
    """Takes the connection and never says a word."""
    gone = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    async with answering(port, silent):
        yield
        gone.set()


@asynccontextmanager
async def html(port: int) -> AsyncIterator[None]:
    """A web server that is no exchange."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTML)
        await writer.drain()
        writer.close()

    async with answering(port, page):
        yield


@asynccontextmanager
async def answering(port: int, handler: Handler) -> AsyncIterator[None]:
    server = await asyncio.start_server(handler, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (refusing, "exchange_unavailable"),
        (hanging, "exchange_timeout"),
        (html, "exchange_bad_response"),
    ],
)
async def test_it_says_so_stays_up_shows_no_score_and_recovers_by_itself(
    trouble: Callable[[int], AbstractAsyncContextManager[None]], cause: str, tmp_path: Path
) -> None:
    port = free_port()
    settings = settings_for(
        f"http://127.0.0.1:{port}",
        f"sqlite+aiosqlite:///{tmp_path}/away.sqlite3",
        connect_timeout_s=1.0,
        read_timeout_s=1.0,
        total_timeout_s=1.0,
    )
    async with AsyncExitStack() as stack:
        trouble_now = await stack.enter_async_context(AsyncExitStack())
        await trouble_now.enter_async_context(trouble(port))
        service = await stack.enter_async_context(running(settings))
        health = await service.until(
            "/health", lambda health: component(health, "exchange")["state"] == "down"
        )
        assert component(health, "exchange")["cause"] == cause
        assert component(health, "exchange")["detail"]
        assert health["mode"] == "FROZEN"
        assert health["data_status"] == "unavailable"
        assert health["as_of"] is None

        rankings = await service.client.get(f"{PREFIX}/scoring/rankings")
        assert rankings.headers["X-Service-Mode"] == "FROZEN"
        assert rankings.status_code == 503
        assert rankings.json()["code"] == "no_board_yet"
        assert int(rankings.headers["Retry-After"]) >= 1

        added = await service.client.post(
            f"{PREFIX}/portfolio/add-symbol", json={"symbol": "BTCUSDT"}
        )
        assert added.status_code == 503
        portfolio = await service.get("/portfolio")
        assert portfolio["members"] == []
        assert portfolio["data_status"] == "unavailable"
        assert (await service.client.get("/livez")).status_code == 200
        assert (await service.client.get("/readyz")).status_code == 200

        await trouble_now.aclose()

        exchange = SandboxOptions(port=port, contracts=40)
        async with serve_exchange(exchange, time.time):
            await service.until("/health", lambda health: health["data_status"] == "fresh")
            board = await service.until("/status", lambda status: status["scoring"] is not None)
            assert board["scoring"]["scored"] > 0
            await service.until("/health", lambda now: component(now, "exchange")["state"] == "up")
            async with asyncio.timeout(PATIENCE_S):  # what is told may be a second old
                while await mode(service) not in {"NORMAL", "DEGRADED"}:
                    await asyncio.sleep(0.1)
            text = (await service.client.get("/metrics")).text
            assert 'mysymbols_service_mode{mode="FROZEN"} 0.0' in text
            async with asyncio.timeout(PATIENCE_S):
                while not (told := await modes_told(service)):
                    await asyncio.sleep(0.1)
            assert told[0][0] == "FROZEN"
            assert all(was != mode for was, mode in told)
            assert [mode for _, mode in told[:-1]] == [was for was, _ in told[1:]]


async def modes_told(service: Running) -> list[tuple[str, str]]:
    """Each change of the mode that is stored as an event: from what to what."""
    stored = await service.services.my_symbols.stream.stored(0, frozenset({EventTopic.MODE}))
    return [(one.record.data["was"], one.record.data["mode"]) for one in stored.entries]


async def mode(service: Running) -> str:
    return str((await service.client.get("/livez")).headers["X-Service-Mode"])


@pytest.mark.xdist_group("openapi")  # the document takes a second: made once
async def test_what_was_stored_is_not_fresh_while_the_exchange_is_away(tmp_path: Path) -> None:
    port = free_port()
    exchange = SandboxOptions(port=port, contracts=40, quota=1_000_000)
    settings = settings_for(
        f"http://127.0.0.1:{port}", f"sqlite+aiosqlite:///{tmp_path}/before.sqlite3"
    )
    async with serve_exchange(exchange, time.time), running(settings) as service:
        await service.filled()
        run_id = (await service.post("/scoring/calculate"))["run_id"]
        await service.post("/portfolio/initialize")
        symbol = (await service.get("/portfolio"))["members"][0]["symbol"]
        assert await statuses(service, symbol, run_id) == {"fresh"}

    async with running(settings) as service:
        await service.until(
            "/health", lambda health: component(health, "exchange")["state"] == "down"
        )
        rankings = await service.get("/scoring/rankings")
        assert rankings["run_id"] != "", "what was known is still shown"
        assert rankings["data_status"] == "unavailable"
        assert (await service.get("/portfolio"))["data_status"] == "unavailable"
        assert "fresh" not in await statuses(service, symbol, run_id)
        refused = await service.client.post(f"{PREFIX}/portfolio/rebalance")
        assert refused.status_code == 503

        async with serve_exchange(exchange, time.time):
            await service.filled()
            await service.until("/scoring/rankings", lambda now: now["data_status"] == "fresh")


async def statuses(service: Running, symbol: str, run_id: str) -> set[str]:
    """`data_status` of every answer that has one, of whatever can be read."""
    found: dict[str, str] = {}
    for path, methods in openapi_document()["paths"].items():
        if "get" not in methods:
            continue
        place = path.replace("{symbol}", symbol).replace("{run_id}", run_id)
        params = {"interval": "1d", "account_balance": "1000"}
        wanted = {one["name"] for one in methods["get"].get("parameters", ())}
        query = {name: value for name, value in params.items() if name in wanted}
        answer = await service.client.get(place, params=query)
        if answer.status_code == 200 and "json" in answer.headers["content-type"]:
            body = answer.json()
            if "data_status" in body:
                found[path] = body["data_status"]
    assert len(found) > 15, found
    return set(found.values())


def component(health: dict[str, list[dict[str, str]]], name: str) -> dict[str, str]:
    return next(part for part in health["components"] if part["name"] == name)
