"""The local exchange as an aiohttp application."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from app.sandbox.control import add_control
from app.sandbox.exchange import LocalExchange
from app.sandbox.http.faults import respond_with_faults
from app.sandbox.http.rate_limit import WEIGHTS, RateLimitDecision
from app.sandbox.http.responses import ExchangeError, encode_error, respond
from app.sandbox.options import SandboxOptions
from app.sandbox.routes import EXCHANGE, add_routes
from app.sandbox.stream.server import ENDPOINT, add_stream

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NOT_FOUND = encode_error("404000", "Url Not Found")


def template(request: web.Request) -> str:
    """Path of the endpoint, with {symbol} in place of a symbol."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else request.path


def rate_headers(quota: int, verdict: RateLimitDecision) -> dict[str, str]:
    """Rate-limit headers of an answer; the reset is a countdown in ms."""
    if not verdict.headers:
        return {}
    headers = {
        "gw-ratelimit-limit": str(quota),
        "gw-ratelimit-remaining": str(verdict.remaining),
    }
    if verdict.reset is not None:
        headers["gw-ratelimit-reset"] = verdict.reset
    return headers


@web.middleware
async def limit_and_respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and limit each request, apply faults, and put errors into KuCoin's envelope."""
    if request.path.startswith("/_control/") or request.path == ENDPOINT:
        return await handler(request)
    exchange = request.app[EXCHANGE]
    path = template(request)
    verdict = exchange.pool.arrive(
        request.remote or "", path, request.path_qs, WEIGHTS.get(path, 1)
    )
    headers = rate_headers(exchange.pool.quota, verdict)
    if not verdict.allowed:
        body = encode_error("429000", "Too Many Requests")
        response: web.StreamResponse = respond(request, body, 429, headers=headers)
    else:
        response = await respond_with_faults(
            request, handler_in_envelope(handler), exchange.faults, headers
        )
    exchange.pool.tally.by_status[str(response.status)] += 1
    return response


def handler_in_envelope(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Wrap a handler to answer its errors in KuCoin's envelope."""

    async def answer(request: web.Request) -> web.Response:
        try:
            response = await handler(request)
        except ExchangeError as error:
            return respond(request, encode_error(error.code, error.message), error.status)
        except web.HTTPMethodNotAllowed:
            return respond(request, encode_error("404000", "Url Not Found"), 404)
        except web.HTTPNotFound:
            return respond(request, NOT_FOUND, 404)
        if not isinstance(response, web.Response):
            raise TypeError("public handlers answer with a plain response")
        return response

    return answer


def create_exchange(
    options: SandboxOptions,
    clock: Callable[[], float],
    monotonic: Callable[[], float] = time.monotonic,
) -> web.Application:
    """Create the exchange as an application.

    `clock` gives seconds since the epoch and drives exchange time; `monotonic` drives the
    rate-limit window, which speed does not shorten.
    """
    return application(LocalExchange(options, clock, monotonic))


def application(exchange: LocalExchange) -> web.Application:
    """Create an application around an existing exchange."""
    app = web.Application(middlewares=[limit_and_respond])
    app[EXCHANGE] = exchange
    add_routes(app)
    add_control(app)
    add_stream(app, exchange)
    return app


@asynccontextmanager
async def serve_exchange(
    options: SandboxOptions,
    clock: Callable[[], float],
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[str]:
    """Serve an exchange and yield its base URL; port 0 takes a free one."""
    app = create_exchange(options, clock, monotonic)
    # A used address fails before anything runs.
    listener = socket.create_server((options.host, options.port), backlog=512)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        yield f"http://{host}:{port}"
    finally:
        # Hanging answers would hold up the stop; the pause lets them leave, and lets the loop
        # notice clients that have gone, whose sockets aiohttp would otherwise leave open.
        app[EXCHANGE].faults.disarm()
        await asyncio.sleep(0.01)
        await runner.cleanup()
        listener.close()
