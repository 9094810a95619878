"""HTTP routes of the stream: bullet-public, the WebSocket endpoint and its control calls.

| call | body | answer |
|---|---|---|
| GET /_control/stream | | limits, counters, time of the last broadcast, open connections |
| POST /_control/stream | limits by name, see SessionLimits | the limits |
| POST /_control/stream/close | {code?, connection?} | closes connections, 1006 without a frame |
| POST /_control/stream/burst | {topic, per_second?, seconds?} | copies of the topic's message to \
its listeners, with rising sequences |
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from app.sandbox.exchange import LocalExchange
from app.sandbox.http.responses import encode_error, encode_success, respond
from app.sandbox.routes import EXCHANGE
from app.sandbox.stream.broadcaster import Broadcaster
from app.sandbox.stream.connection import Connection
from app.sandbox.stream.faults import match_fault
from app.sandbox.stream.registry import SubscriptionRegistry

STREAM = web.AppKey("stream", Broadcaster)
ENDPOINT = "/"
BULLET = "/api/v1/bullet-public"


async def bullet(request: web.Request) -> web.Response:
    """Issue a token and name this server as the stream's endpoint."""
    broadcaster = request.app[STREAM]
    limits = broadcaster.registry.limits
    broadcaster.registry.counters.tokens += 1
    server = {
        "endpoint": f"ws://{request.host}{ENDPOINT}",
        "encrypt": False,
        "protocol": "websocket",
        "pingInterval": limits.ping_interval_ms,
        "pingTimeout": limits.ping_timeout_ms,
    }
    token = broadcaster.tokens.issue(request.app[EXCHANGE].clock.now_ms())
    return respond(request, encode_success({"token": token, "instanceServers": [server]}))


async def stream(request: web.Request) -> web.StreamResponse:
    """Serve one connection from its welcome to its end."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return respond(request, encode_error("404000", "Url Not Found"), 404)
    broadcaster = request.app[STREAM]
    registry, faults = broadcaster.registry, broadcaster.exchange.faults
    number = broadcaster.next_number()
    connect_id = request.query.get("connectId") or f"{number:024x}"
    ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)
    await ws.prepare(request)
    connection = Connection(registry, ws, number, connect_id, request.transport)
    error = _find_error(broadcaster, request, connect_id)
    if error is not None:
        code, text = error
        registry.counters.refused += 1
        registry.counters.errors[str(code)] += 1
        frame = {"id": connect_id, "type": "error", "code": code, "data": text}
        await ws.send_str(msgspec.json.encode(frame).decode())
        await ws.close()
        return ws
    broadcaster.connect(connection)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(connection.write())
        try:
            if match_fault(faults, "stream_early", "connect", connect_id) is not None:
                connection.enqueue(broadcaster.render_any_quote())
            if match_fault(faults, "stream_no_welcome", "connect", connect_id) is None:
                connection.send_control({"id": connect_id, "type": "welcome"})
            await connection.read()
        finally:
            broadcaster.disconnect(connection)
            writing.cancel()
    if not ws.closed:
        await ws.close()
    return ws


def _find_error(
    broadcaster: Broadcaster, request: web.Request, connect_id: str
) -> tuple[int, str] | None:
    """Code and text of the error that refuses a connection; None to accept it."""
    exchange = broadcaster.exchange
    if match_fault(exchange.faults, "stream_expired_token", "connect", connect_id) is not None:
        return 401, "token is expired"
    token = request.query.get("token", "")
    text = broadcaster.tokens.find_error(token, exchange.clock.now_ms())
    if text is not None:
        return 401, text
    text = broadcaster.admit(request.remote or "")
    return None if text is None else (509, text)


def _respond_json(data: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(data), status=status, content_type="application/json"
    )


async def show_stream(request: web.Request) -> web.Response:
    """Return limits, counters and open connections."""
    broadcaster = request.app[STREAM]
    registry = broadcaster.registry
    connections = [
        {
            "number": connection.number,
            "connect_id": connection.connect_id,
            "born_ms": connection.opened_ms,
            "topics": sorted(connection.topics),
            "queued": len(connection.queue),
            "sent": connection.sent,
        }
        for connection in broadcaster.connections.values()
    ]
    return _respond_json(
        {
            "terms": registry.limits,
            "tally": registry.counters,
            "looked_at_ms": registry.broadcast_ms,
            "connections": connections,
        }
    )


async def change_limits(request: web.Request) -> web.Response:
    """Change the limits."""
    limits = request.app[STREAM].registry.limits
    try:
        limits.update(msgspec.json.decode(await request.read()))
    except (ValueError, AttributeError) as error:
        return _respond_json({"error": str(error)}, 400)
    return _respond_json(limits)


async def close_connections(request: web.Request) -> web.Response:
    """Close connections."""
    body = msgspec.json.decode(await request.read() or b"{}")
    code, connect_id = int(body.get("code", 1000)), body.get("connection")
    closed = await request.app[STREAM].close_connections(code, connect_id)
    return _respond_json({"closed": closed})


async def send_burst(request: web.Request) -> web.Response:
    """Send a burst and answer at its end."""
    body = msgspec.json.decode(await request.read())
    broadcaster = request.app[STREAM]
    feed = broadcaster.registry.feeds.get(str(body.get("topic")))
    if feed is None:
        return _respond_json({"error": "the topic has no subscriber"}, 400)
    per_second, seconds = int(body.get("per_second", 20_000)), float(body.get("seconds", 1.0))
    try:
        return _respond_json({"sent": await broadcaster.burst(feed, per_second, seconds)})
    except ValueError as error:
        return _respond_json({"error": str(error)}, 400)


def add_stream(app: web.Application, exchange: LocalExchange) -> None:
    """Add the stream's routes, and end its connections with the server."""
    broadcaster = app[STREAM] = Broadcaster(SubscriptionRegistry(exchange, exchange.monotonic))

    async def shut_down(_: web.Application) -> None:
        await broadcaster.shut_down()

    app.on_shutdown.append(shut_down)
    app.router.add_post(BULLET, bullet)
    app.router.add_get(ENDPOINT, stream)
    app.router.add_get("/_control/stream", show_stream)
    app.router.add_post("/_control/stream", change_limits)
    app.router.add_post("/_control/stream/close", close_connections)
    app.router.add_post("/_control/stream/burst", send_burst)
