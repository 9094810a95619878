"""A virtual clock, the local exchange over a real socket, and the adapter that asks it."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from app.adapters.kucoin.exchange import KucoinExchange, open_exchange
from app.adapters.kucoin.limiter import KucoinLimits
from app.foundation.data_status import DataSource
from app.foundation.errors import ServiceError
from app.market.domain.models import Rejection
from app.market.services.ports import Exchange
from app.sandbox.exchange import LocalExchange as Sandbox
from app.sandbox.options import SandboxOptions
from app.sandbox.routes import EXCHANGE
from app.sandbox.server import create_exchange

START_S = 1_760_000_000.0
Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fits_the_port(exchange: KucoinExchange) -> Exchange:
    """Checked by mypy, and used below so that every test drives the port's own shape."""
    return exchange


@dataclass
class VirtualTime:
    """Time that passes only when somebody sleeps; concurrent sleepers share it."""

    passed: float = 1_000.0
    naps: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.passed

    def wall(self) -> float:
        return START_S + self.passed

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        until = self.passed + seconds
        await asyncio.sleep(0)
        self.passed = max(self.passed, until)

    def advance(self, seconds: float) -> None:
        self.passed += seconds


@dataclass
class RealTime:
    """The loop's own time, for tests about sockets and concurrency."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime.fromtimestamp(START_S + self.monotonic(), UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Heard:
    """What the adapter told its observers."""

    requests: list[tuple[str, str, float]] = field(default_factory=list)
    rejections: list[tuple[str, Rejection]] = field(default_factory=list)

    def request(self, path: str, outcome: str, seconds: float) -> None:
        self.requests.append((path, outcome, seconds))

    def rejection(self, path: str, rejection: Rejection) -> None:
        self.rejections.append((path, rejection))

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, outcome, _ in self.requests]


@asynccontextmanager
async def asking(
    base_url: str,
    time: VirtualTime | RealTime | None = None,
    limits: KucoinLimits | None = None,
    heard: Heard | None = None,
) -> AsyncIterator[KucoinExchange]:
    """The adapter, on virtual time unless told otherwise."""
    clock = time or VirtualTime()
    ears = heard or Heard()
    async with open_exchange(
        base_url=base_url,
        source=DataSource.SANDBOX,
        now=clock.now,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
        dice=random.Random(5),
        limits=limits or KucoinLimits(),
        on_request=ears.request,
        on_rejection=ears.rejection,
    ) as exchange:
        assert fits_the_port(exchange) is exchange
        yield exchange


@asynccontextmanager
async def serving(
    app: web.Application, listener: socket.socket | None = None
) -> AsyncIterator[str]:
    """An aiohttp application on a free loopback port, or on a socket that is already bound."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    sock = listener or socket.create_server(("127.0.0.1", 0), backlog=128)
    try:
        await web.SockSite(runner, sock).start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        await runner.cleanup()
        sock.close()


@dataclass
class Counting:
    """A server of one handler that counts its visitors."""

    respond: Respond
    paths: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        return await self.respond(request)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", self.handle)
        async with serving(app) as url:
            yield url


def answering(body: bytes, status: int = 200, **headers: str) -> Counting:
    """A server that always says the same."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def respond(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=names)

    return Counting(respond)


def envelope(data: Any, code: str = "200000") -> bytes:
    return json.dumps({"code": code, "data": data}).encode()


@dataclass
class Local:
    """The local exchange with few contracts, its clock and its address."""

    url: str
    sandbox: Sandbox
    time: VirtualTime | RealTime

    def fault(self, kind: str, path: str = "*", times: int | None = None, **params: Any) -> None:
        self.sandbox.faults.arm(kind, path, times, 0, params)

    @property
    def total(self) -> int:
        return self.sandbox.pool.tally.total

    @property
    def in_closed_window(self) -> int:
        return self.sandbox.pool.tally.in_closed_window

    def count(self, path: str) -> int:
        return self.sandbox.pool.tally.by_path[path]


@asynccontextmanager
async def local_exchange(
    time: VirtualTime | RealTime | None = None,
    *,
    contracts: int | None = 12,
    listener: socket.socket | None = None,
    quota: int = 2000,
) -> AsyncIterator[Local]:
    """The sandbox, its rate-limit window on the same clock as the adapter's."""
    clock = time or VirtualTime()
    options = SandboxOptions(contracts=contracts, quota=quota)
    app = create_exchange(options, lambda: clock.now().timestamp(), clock.monotonic)
    async with serving(app, listener) as url:
        yield Local(url, app[EXCHANGE], clock)


async def refused(work: Awaitable[object]) -> ServiceError:
    """The error of the domain with which the work ends."""
    with pytest.raises(ServiceError) as caught:
        await work
    return caught.value
