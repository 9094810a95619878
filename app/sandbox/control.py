"""Control endpoint: faults, counters, clock, limits and market changes of the local exchange."""

from typing import Any

import msgspec
from aiohttp import web

from app.sandbox.exchange import LocalExchange
from app.sandbox.market_events import MarketEvent, MarketOverride, apply_event, apply_override
from app.sandbox.routes import EXCHANGE, HIDDEN
from app.sandbox.stream.server import STREAM

Json = dict[str, Any]
FAULT_KEYS = ("kind", "path", "times", "skip")


def _answer(data: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(data), status=status, content_type="application/json"
    )


async def counters(request: web.Request) -> web.Response:
    """Return the counters since the last reset; times are monotonic seconds."""
    pool = request.app[EXCHANGE].pool
    tally = pool.tally
    return _answer(
        {
            "total": tally.total,
            "weight": tally.weight,
            "rejected": tally.rejected,
            "in_closed_window": tally.in_closed_window,
            "by_path": dict(tally.by_path),
            "by_status": dict(tally.by_status),
            "arrivals": [
                {"at": at, "path": path, "target": target, "in_closed_window": late}
                for at, path, target, late in tally.arrivals
            ],
        }
    )


async def faults(request: web.Request) -> web.Response:
    """Return the armed faults."""
    return _answer(
        [
            {"id": fault.id, "kind": fault.kind, "path": fault.path, "times": fault.times}
            | {"skip": fault.skip, "hits": fault.hits, "params": fault.params}
            for fault in request.app[EXCHANGE].faults.listed()
        ]
    )


async def arm(request: web.Request) -> web.Response:
    """Arm one fault or several."""
    exchange = request.app[EXCHANGE]
    asked = msgspec.json.decode(await request.read())
    try:
        ids = [_arm(exchange, one) for one in (asked if isinstance(asked, list) else [asked])]
    except (ValueError, KeyError) as error:
        return _answer({"error": str(error)}, 400)
    return _answer({"ids": ids})


def _arm(exchange: LocalExchange, asked: Json) -> int:
    kind = str(asked["kind"])
    if kind == "window":
        exchange.pool.close(float(asked["seconds"]), str(asked.get("reset", "present")))
        return 0
    if kind == "contract_status":
        symbol, status = str(asked["symbol"]), str(asked["status"])
        exchange.contracts.rows[symbol]
        exchange.contracts.statuses[symbol] = (
            status,
            bool(asked.get("listed", status not in HIDDEN)),
        )
        exchange.forget_answers()
        return 0
    params = {key: value for key, value in asked.items() if key not in FAULT_KEYS}
    times = asked.get("times")
    return exchange.faults.arm(
        kind,
        str(asked.get("path", "*")),
        None if times is None else int(times),
        int(asked.get("skip", 0)),
        params,
    ).id


async def disarm(request: web.Request) -> web.Response:
    """Disarm one fault or all of them."""
    exchange = request.app[EXCHANGE]
    raw = request.query.get("id")
    exchange.faults.disarm(None if raw is None else int(raw))
    if raw is None:
        exchange.pool.closure = None
        exchange.contracts.statuses.clear()
        exchange.forget_answers()
    return _answer({})


async def market(request: web.Request) -> web.Response:
    """Override the market of one contract."""
    try:
        change = msgspec.convert(msgspec.json.decode(await request.read()), MarketOverride)
        apply_override(request.app[EXCHANGE], change)
    except (msgspec.ValidationError, KeyError) as error:
        return _answer({"error": str(error)}, 400)
    return _answer({})


async def events(request: web.Request) -> web.Response:
    """Apply a market event."""
    try:
        event = msgspec.convert(msgspec.json.decode(await request.read()), MarketEvent)
        return _answer(apply_event(request.app[EXCHANGE], event))
    except (ValueError, KeyError) as error:
        return _answer({"error": str(error)}, 400)


async def clock(request: web.Request) -> web.Response:
    """Move exchange time or change its speed."""
    exchange = request.app[EXCHANGE]
    asked = msgspec.json.decode(await request.read())
    now_ms = asked.get("now_ms", exchange.clock.now_ms()) + asked.get("advance_ms", 0)
    exchange.clock.set(now_ms, asked.get("speed"))
    exchange.forget_answers()
    return _answer({"now_ms": exchange.clock.now_ms(), "speed": exchange.clock.speed})


async def limits(request: web.Request) -> web.Response:
    """Change quota or window, and restart the windows."""
    pool = request.app[EXCHANGE].pool
    asked = msgspec.json.decode(await request.read())
    pool.quota = int(asked.get("quota", pool.quota))
    pool.window_s = float(asked.get("window_s", pool.window_s))
    pool.reset()
    return _answer({"quota": pool.quota, "window_s": pool.window_s})


async def reset(request: web.Request) -> web.Response:
    """Restore the initial faults, statuses, windows and counters."""
    exchange = request.app[EXCHANGE]
    exchange.faults.disarm()
    exchange.contracts.statuses.clear()
    exchange.pool.reset()
    exchange.pool.tally = type(exchange.pool.tally)()
    request.app[STREAM].reset()
    exchange.forget_answers()
    return _answer({})


def add_control(app: web.Application) -> None:
    """Add the control routes."""
    app.router.add_get("/_control/counters", counters)
    app.router.add_post("/_control/reset", reset)
    app.router.add_get("/_control/faults", faults)
    app.router.add_post("/_control/faults", arm)
    app.router.add_delete("/_control/faults", disarm)
    app.router.add_post("/_control/market", market)
    app.router.add_post("/_control/events", events)
    app.router.add_post("/_control/clock", clock)
    app.router.add_post("/_control/limits", limits)
