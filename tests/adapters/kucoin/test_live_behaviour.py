"""The exchange is away: the link says why, and comes back by itself when somebody answers."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from app.adapters.kucoin.exchange import KucoinExchange
from app.adapters.kucoin.limiter import KucoinLimits
from app.market.domain.models import ExchangeLink, LinkState
from tests.adapters.kucoin.harness import RealTime, asking, local_exchange, refused, serving

QUICK = KucoinLimits(
    connect_timeout_s=0.1,
    read_timeout_s=0.1,
    total_timeout_s=0.3,
    backoff_first_s=0.001,
    breaker_probe_s=0.1,
)


@pytest.fixture
def port() -> socket.socket:
    """A port of ours that nobody serves yet: bound, not listening, so it refuses."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def address(port: socket.socket) -> str:
    return f"http://127.0.0.1:{port.getsockname()[1]}"


async def ask_everything(exchange: KucoinExchange) -> ExchangeLink:
    """What background work does while the exchange is away: goes on trying."""
    works: list[Callable[[], Awaitable[object]]] = [
        exchange.contracts,
        exchange.tickers,
        exchange.status,
        exchange.server_time_ms,
    ]
    for work in works * 2:
        await refused(work())
    return exchange.link()


async def until_up(exchange: KucoinExchange) -> None:
    async with asyncio.timeout(60):
        while exchange.link().state is not LinkState.UP:
            await asyncio.gather(exchange.server_time_ms(), return_exceptions=True)
            await asyncio.sleep(0.01)


async def test_a_refusing_port_is_named_and_recovers(port: socket.socket) -> None:
    time = RealTime()
    async with asking(address(port), time, QUICK) as exchange:
        link = await ask_everything(exchange)
        assert (link.state, link.cause) == (LinkState.DOWN, "exchange_unavailable")
        assert link.last_success_at is None
        assert link.retry_in_s is not None
        assert link.detail is not None
        assert "refused" in link.detail
        port.listen(128)
        async with local_exchange(time, listener=port):
            await until_up(exchange)
            assert exchange.link().cause is None
            assert len((await exchange.contracts()).contracts) > 5


async def test_a_hanging_port_is_named_and_recovers(port: socket.socket) -> None:
    time = RealTime()
    port.listen(128)  # the kernel accepts, nobody reads
    async with asking(address(port), time, QUICK) as exchange:
        link = await ask_everything(exchange)
        assert (link.state, link.cause) == (LinkState.DOWN, "exchange_timeout")
        async with local_exchange(time, listener=port):
            await until_up(exchange)
            assert len((await exchange.contracts()).contracts) > 5


async def test_a_port_that_answers_with_pages_is_named_and_recovers() -> None:
    time = RealTime()
    async with local_exchange(time) as local, asking(local.url, time, QUICK) as exchange:
        local.fault("html")
        link = await ask_everything(exchange)
        assert (link.state, link.cause) == (LinkState.DOWN, "exchange_bad_response")
        local.sandbox.faults.disarm()
        await until_up(exchange)
        assert len((await exchange.contracts()).contracts) > 5


async def test_a_failure_after_success_keeps_the_time_of_the_last_success() -> None:
    time = RealTime()
    async with local_exchange(time) as local, asking(local.url, time, QUICK) as exchange:
        await exchange.server_time_ms()
        before = exchange.link()
        local.fault("hang", times=3)
        await refused(exchange.server_time_ms())
        link = exchange.link()
        assert (link.state, link.cause) == (LinkState.DOWN, "exchange_timeout")
        assert link.last_success_at == before.last_success_at
        assert link.since > before.since
        await until_up(exchange)


async def test_a_late_success_of_an_older_request_does_not_hide_the_failure() -> None:
    time = RealTime()

    async def respond(request: web.Request) -> web.Response:
        if request.path.endswith("/status"):
            return web.Response(status=400, body=b"<html></html>")
        await asyncio.sleep(0.05)
        return web.Response(body=b'{"code":"200000","data":1760000000000}')

    app = web.Application()
    app.router.add_get("/{any:.*}", respond)
    async with serving(app) as url, asking(url, time) as exchange:
        older = asyncio.ensure_future(exchange.server_time_ms())
        await asyncio.sleep(0.01)
        await refused(exchange.status())
        assert exchange.link().state is LinkState.DOWN
        await older
        assert exchange.link().state is LinkState.DOWN
        await exchange.server_time_ms()
        assert exchange.link().state is LinkState.UP
