"""bullet-public, the WebSocket endpoint and what the control endpoint adds for the stream.

| call | body | answer |
|---|---|---|
| GET /_control/stream | | the terms, the counters, the market that was told last and the open \
connections |
| POST /_control/stream | terms by name, see terms.Terms | the terms |
| POST /_control/stream/close | {code?, connection?} | closes connections, 1006 without a frame |
| POST /_control/stream/burst | {topic, per_second?, seconds?} | that many copies of the topic's \
last kind of message to its listeners, with rising sequences |
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from app.sandbox.answers import encoded, error_body, respond
from app.sandbox.routes import EXCHANGE
from app.sandbox.stream.burst import burst
from app.sandbox.stream.connection import Connection
from app.sandbox.stream.faults import meeting
from app.sandbox.stream.hub import Hub

STREAM = web.AppKey("stream", Hub)
ENDPOINT = "/"
BULLET = "/api/v1/bullet-public"


async def bullet(request: web.Request) -> web.Response:
    """A new token, and where to go with it: this very server."""
    hub = request.app[STREAM]
    hub.tally.tokens += 1
    server = {
        "endpoint": f"ws://{request.host}{ENDPOINT}",
        "encrypt": False,
        "protocol": "websocket",
        "pingInterval": hub.terms.ping_interval_ms,
        "pingTimeout": hub.terms.ping_timeout_ms,
    }
    token = hub.tokens.issue(request.app[EXCHANGE].clock.now_ms())
    return respond(request, encoded({"token": token, "instanceServers": [server]}))


async def stream(request: web.Request) -> web.StreamResponse:
    """One connection from its welcome to its end."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return respond(request, error_body("404000", "Url Not Found"), 404)
    hub = request.app[STREAM]
    number = hub.number()
    connect_id = request.query.get("connectId") or f"{number:024x}"
    ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)
    await ws.prepare(request)
    connection = Connection(hub, ws, number, connect_id, request.transport)
    objection = _objection(hub, request, connect_id)
    if objection is not None:
        code, text = objection
        hub.tally.refused += 1
        hub.tally.errors[str(code)] += 1
        frame = {"id": connect_id, "type": "error", "code": code, "data": text}
        await ws.send_str(msgspec.json.encode(frame).decode())
        await ws.close()
        return ws
    hub.enter(connection)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(connection.write())
        try:
            if meeting(hub.exchange.faults, "stream_early", "connect", connect_id) is not None:
                connection.put(hub.quote())
            if meeting(hub.exchange.faults, "stream_no_welcome", "connect", connect_id) is None:
                connection.tell({"id": connect_id, "type": "welcome"})
            await connection.read()
        finally:
            hub.quit(connection)
            writing.cancel()
    if not ws.closed:
        await ws.close()
    return ws


def _objection(hub: Hub, request: web.Request, connect_id: str) -> tuple[int, str] | None:
    """The error that a connection is refused with; None when it may stay."""
    if meeting(hub.exchange.faults, "stream_expired_token", "connect", connect_id) is not None:
        return 401, "token is expired"
    token = request.query.get("token", "")
    text = hub.tokens.objection(token, hub.exchange.clock.now_ms())
    if text is not None:
        return 401, text
    text = hub.refusal(request.remote or "")
    return None if text is None else (509, text)


def _answer(data: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(data), status=status, content_type="application/json"
    )


async def look(request: web.Request) -> web.Response:
    """The terms, the counters and the open connections."""
    hub = request.app[STREAM]
    connections = [
        {
            "number": one.number,
            "connect_id": one.connect_id,
            "born_ms": one.born_ms,
            "topics": sorted(one.topics),
            "queued": len(one.queue),
            "sent": one.sent,
        }
        for one in hub.connections.values()
    ]
    state = {"terms": hub.terms, "tally": hub.tally, "looked_at_ms": hub.looked_at_ms}
    return _answer({**state, "connections": connections})


async def change(request: web.Request) -> web.Response:
    """Change the terms."""
    hub = request.app[STREAM]
    try:
        hub.terms.change(msgspec.json.decode(await request.read()))
    except (ValueError, AttributeError) as error:
        return _answer({"error": str(error)}, 400)
    return _answer(hub.terms)


async def close(request: web.Request) -> web.Response:
    """Close connections."""
    asked = msgspec.json.decode(await request.read() or b"{}")
    code, connect_id = int(asked.get("code", 1000)), asked.get("connection")
    return _answer({"closed": await request.app[STREAM].end(code, connect_id)})


async def flood(request: web.Request) -> web.Response:
    """Send a burst, and answer when it is over."""
    asked = msgspec.json.decode(await request.read())
    hub = request.app[STREAM]
    feed = hub.feeds.get(str(asked.get("topic")))
    if feed is None:
        return _answer({"error": "nobody listens to that topic"}, 400)
    per_second, seconds = int(asked.get("per_second", 20_000)), float(asked.get("seconds", 1.0))
    try:
        return _answer({"sent": await burst(hub, feed, per_second, seconds)})
    except ValueError as error:
        return _answer({"error": str(error)}, 400)


def add_stream(app: web.Application, hub: Hub) -> None:
    """Bind the stream's paths, and end its connections with the server."""
    app[STREAM] = hub

    async def shut(_: web.Application) -> None:
        await hub.close()

    app.on_shutdown.append(shut)
    app.router.add_post(BULLET, bullet)
    app.router.add_get(ENDPOINT, stream)
    app.router.add_get("/_control/stream", look)
    app.router.add_post("/_control/stream", change)
    app.router.add_post("/_control/stream/close", close)
    app.router.add_post("/_control/stream/burst", flood)
