"""A service's stream behind a real socket, and clients of it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
import uvicorn
from starlette.types import ASGIApp
from websockets.asyncio.client import ClientConnection, connect

from app.foundation.http.server import server_config
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.operations.api import stream_routes as routes
from app.operations.services.event_stream import EventStream
from app.security.services.audit import SecurityAudit
from app.security.services.keys import ApiKeyService
from app.security.services.tickets import TicketService
from tests.support.event_contract import check_message
from tests.support.harness import PREFIX, make_api
from tests.support.trading_desk import NOW, Desk

PATIENCE_S = 60.0


@asynccontextmanager
async def listening(app: ASGIApp, **options: Any) -> AsyncIterator[uvicorn.Server]:
    """`app` on a free port of the loopback interface; it is asked to stop at the end."""
    numbers = count(1)
    config = server_config(
        app, host="127.0.0.1", port=0, new_id=lambda: f"server-{next(numbers):08d}", **options
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server._serve())
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        try:
            yield server
        finally:
            server.should_exit = True
            await running


def port_of(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@dataclass
class StreamDesk(Desk):
    """A desk whose changes are followed by a stream, as in one process of the service."""

    metrics_registry: Metrics = field(default_factory=Metrics)
    keys: ApiKeyService | None = None
    security_audit: SecurityAudit | None = None
    tickets: TicketService | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stream = EventStream(self.database, lambda: NOW, self.metrics_registry)
        self.registry = self.market  # it resolves symbols
        self.database.publish = lambda _: self.stream.wake()

    def metric(self, name: str, **labels: str) -> float:
        value = self.metrics_registry.registry.get_sample_value(f"mysymbols_{name}", labels)
        return 0.0 if value is None else value

    async def until(self, holds: Callable[[], bool]) -> None:
        """Fails when it takes too long."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.01)


@dataclass
class Client:
    """A WebSocket client that reads one JSON message at a time."""

    connection: ClientConnection

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            heard: dict[str, Any] = json.loads(await self.connection.recv())
        check_message(heard, "stream")
        return heard

    async def events(self, number: int) -> list[dict[str, Any]]:
        """The next events; other messages are passed over, but a gap or an error fails."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < number:
                heard = await self.hear()
                assert heard["type"] not in {"gap", "error"}, heard
                if heard["type"] == "event":
                    found.append(heard)
        return found

    async def subscribe(self, *topics: str, resume_from: int | None = None) -> dict[str, Any]:
        """Gives the confirmation; what was resumed is noted before it."""
        await self.say(type="subscribe", topics=list(topics), resume_from=resume_from)
        while (heard := await self.hear())["type"] not in {"subscribed", "error"}:
            assert heard["type"] in {"hello", "resumed", "heartbeat"}, heard
        return heard


@dataclass
class Served:
    """A running server of a desk's stream."""

    desk: StreamDesk
    server: uvicorn.Server

    @property
    def address(self) -> str:
        return f"127.0.0.1:{port_of(self.server)}{PREFIX}"

    @asynccontextmanager
    async def client(self, query: str = "", **options: Any) -> AsyncIterator[Client]:
        async with connect(f"ws://{self.address}/stream{query}", **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def sse(self, query: str, **headers: str) -> AsyncIterator["SseClient"]:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{self.address}/events?{query}", headers=headers) as answer,
        ):
            yield SseClient(answer)

    async def stuck(self, path: str) -> socket.socket:
        """A client that reads nothing after the head of the answer; its buffers are small."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, ("127.0.0.1", port_of(self.server)))
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        extra = upgrade if path == "/stream" else ""
        head = f"GET {PREFIX}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{extra}\r\n"
        await loop.sock_sendall(made, head.encode())
        said = b""
        while b"\r\n\r\n" not in said:
            said += await loop.sock_recv(made, 1)
        return made


def masked(text: str) -> bytes:
    """A text frame as a client sends it, masked with zeros."""
    raw = text.encode()
    assert 126 <= len(raw) < 65_536
    return b"\x81\xfe" + len(raw).to_bytes(2) + bytes(4) + raw


@dataclass
class SseClient:
    """Reads server-sent events one at a time."""

    answer: aiohttp.ClientResponse

    async def hear(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.answer.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
        if "data" in fields:
            fields["data"] = json.loads(fields["data"])
            check_message(fields["data"], "events")
        return fields


@asynccontextmanager
async def served(
    database: Database,
    *,
    keys: ApiKeyService | None = None,
    audit: SecurityAudit | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """The stream of a filled desk on a real socket, following the database.

    With `keys` callers need one of them; without, it is in open mode.
    """
    desk = StreamDesk(database)
    desk.keys = keys
    desk.security_audit = audit
    desk.tickets = None if keys is None else TicketService(keys)
    await desk.open()
    await desk.stream.open()
    api = make_api({"my_symbols": desk}, routers=[routes.router], **options.pop("api", {}))
    evictions = desk.metrics_registry.stream_evictions
    options.setdefault("on_stalled", lambda kind: evictions.labels(kind).inc())
    async with listening(api, **options) as server, asyncio.TaskGroup() as group:
        following = [group.create_task(desk.stream.follow(lambda: None))]
        if keys is not None:
            following.append(group.create_task(keys.ring.follow(lambda: None)))
        yield Served(desk, server)
        for task in following:
            task.cancel()
