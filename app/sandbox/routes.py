"""Public REST endpoints of KuCoin Futures."""

from typing import Any

import numpy as np
from aiohttp import web

from app.sandbox.exchange import LocalExchange
from app.sandbox.history.universe import ListedContract
from app.sandbox.http.responses import (
    ExchangeError,
    encode_success,
    no_funding,
    parameter_error,
    respond,
    unknown_symbol,
)
from app.sandbox.market import candles as candle_rows
from app.sandbox.market.contracts import SOURCES, index_symbol
from app.sandbox.market.funding import cap, leverage
from app.sandbox.market.price_path import MINUTE_MS

STEPS = {"index": 1_000, "premium": MINUTE_MS, "interest": MINUTE_MS}
SHARES = (0.11, 0.5476, 0.2125, 0.0676, 0.0128, 0.0495)
LEVERAGES = (125, 100, 75, 50, 30, 20, 10, 5, 4, 3, 2, 1)
LIMITS = (1, 5, 10, 20, 30, 50, 80, 120, 200, 300, 400, 500)


def index_page(
    exchange: LocalExchange,
    kind: str,
    symbol: str,
    since: int | None,
    until: int | None,
    count: int,
) -> dict[str, Any]:
    """One page {dataList, hasMore}, newest first, of an index, premium or interest symbol."""
    row = _row(exchange, kind, symbol)
    step = STEPS[kind]
    now_ms = exchange.market.clamp(exchange.clock.now_ms())
    newest = min(now_ms, until if until is not None else now_ms) // step * step
    # Values exist for the last hour only.
    oldest = max(since if since is not None else 0, now_ms - 60 * MINUTE_MS)
    times = range(newest, newest - count * step, -step)
    values = [
        _value(exchange, kind, symbol, row, time) | {"granularity": step, "timePoint": time}
        for time in times
        if time >= oldest
    ]
    return {"dataList": values, "hasMore": newest - count * step >= oldest}


def _row(exchange: LocalExchange, kind: str, symbol: str) -> int:
    for row, listing in enumerate(exchange.market.history.listings):
        names = {
            "index": (index_symbol(listing),),
            "premium": (f".{listing.symbol}PI", f".{listing.symbol}PI8H"),
            "interest": tuple(
                f".{coin}{tail}"
                for coin in (listing.base, listing.quote)
                for tail in ("INT", "INT8H")
            ),
        }[kind]
        if symbol in names:
            return row
    raise unknown_symbol()


def _value(
    exchange: LocalExchange, kind: str, symbol: str, row: int, now_ms: int
) -> dict[str, Any]:
    if kind == "interest":
        return {"symbol": symbol, "value": 0.0003}
    if kind == "premium":
        return {"symbol": symbol, "value": round(float(exchange.funding.premium(now_ms)[row]), 6)}
    price = float(exchange.contracts.index_and_mark(now_ms)[0][row])
    digits = exchange.market.history.listings[row].tick_digits
    offsets = np.linspace(-2e-5, 2e-5, len(SOURCES))
    parts = [
        {"exchange": name, "price": round(price * (1.0 + float(offset)), digits), "weight": share}
        for name, offset, share in zip(SOURCES, offsets, SHARES, strict=True)
    ]
    return {"symbol": symbol, "value": price, "decomposionList": parts}


def risk_levels(listing: ListedContract) -> list[dict[str, Any]]:
    """Risk limit levels of a contract, ascending."""
    most = leverage(listing)
    unit = 1 if listing.inverse else max(10_000, 100_000 // listing.rank)
    allowed = [value for value in LEVERAGES if value <= most]
    levels: list[dict[str, Any]] = []
    below = 0
    for level, value in enumerate(allowed, start=1):
        initial = {125: 0.008, 75: 0.014, 30: 0.034, 3: 0.334}.get(value, 1.0 / value)
        levels.append(
            {
                "symbol": listing.symbol,
                "level": level,
                "maxRiskLimit": LIMITS[level - 1] * unit,
                "minRiskLimit": below,
                "maxLeverage": value,
                "initialMargin": initial,
                "maintainMargin": initial / 2.0,
            }
        )
        below = LIMITS[level - 1] * unit
    return levels


EXCHANGE = web.AppKey("exchange", LocalExchange)
CONTRACT_INVALID = ("100003", "Contract parameter invalid.")
HIDDEN = frozenset({"Init", "Closed", "Settled"})


def row_of(request: web.Request, symbol: str | None) -> int:
    """Row of a contract that is listed now; KuCoin's errors otherwise."""
    exchange = request.app[EXCHANGE]
    if not symbol:
        raise parameter_error("symbol is required")
    row = exchange.contracts.rows.get(symbol)
    if row is None or exchange.contracts.status(row, exchange.clock.now_ms()) in HIDDEN:
        raise unknown_symbol()
    return row


def number(request: web.Request, name: str) -> int | None:
    """Integer query parameter, None when absent."""
    raw = request.query.get(name)
    if raw is None or raw == "":
        return None
    try:
        return int(raw)
    except ValueError as error:
        raise parameter_error(f"{name} must be an integer") from error


async def contracts_active(request: web.Request) -> web.Response:
    return respond(request, request.app[EXCHANGE].active_body())


async def contract(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = exchange.contracts.rows.get(request.match_info["symbol"])
    if row is None:
        raise ExchangeError(*CONTRACT_INVALID)
    body = exchange.contracts.encoded(exchange.clock.now_ms(), [row])[0]
    return respond(request, b'{"code":"200000","data":' + body + b"}")


async def all_tickers(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    now_ms = exchange.clock.now_ms()
    rows = exchange.contracts.active(now_ms)
    return respond(request, encode_success(exchange.contracts.tickers(now_ms, rows)))


async def ticker(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.query.get("symbol"))
    return respond(
        request, encode_success(exchange.contracts.tickers(exchange.clock.now_ms(), [row])[0])
    )


async def kline(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    granularity = number(request, "granularity")
    if granularity not in candle_rows.GRANULARITIES:
        raise parameter_error("granularity is invalid")
    row = row_of(request, request.query.get("symbol"))
    since, until = number(request, "from"), number(request, "to")
    if since is not None and until is not None and since > until:
        raise parameter_error("from must not be later than to")
    rows = candle_rows.candles(
        exchange.market, row, granularity, since, until, exchange.clock.now_ms()
    )
    return respond(request, encode_success(rows))


async def book(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.query.get("symbol"))
    now_ms = exchange.clock.now_ms()
    depth = {"depth20": 20, "depth100": 100}.get(request.path.rsplit("/", 1)[1], 400)
    bids, asks = exchange.books.levels(row, now_ms, depth)
    data = {
        "sequence": exchange.books.sequence(row, now_ms),
        "symbol": exchange.market.history.listings[row].symbol,
        "bids": bids,
        "asks": asks,
        "ts": now_ms * 1_000_000,
    }
    return respond(request, encode_success(data))


async def trades(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.query.get("symbol"))
    data = [
        exchange.contracts.trade(row, trade)
        for trade in exchange.books.trades(row, exchange.clock.now_ms())
    ]
    return respond(request, encode_success(data))


async def funding_current(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = exchange.contracts.rows.get(request.match_info["symbol"])
    if row is None:
        raise no_funding()
    listing = exchange.market.history.listings[row]
    step = exchange.funding.step(row, exchange.clock.now_ms())
    if step is None:
        raise no_funding()
    started = exchange.clock.now_ms() // step * step
    data = {
        # KuCoin sends another symbol than the contract's, with 8H for any interval.
        "symbol": f".{listing.symbol}FPI8H",
        "granularity": step,
        "timePoint": started,
        "value": exchange.funding.rate(row, started),
        "dailyInterestRate": 0.0003,
        "fundingRateCap": cap(listing),
        "fundingRateFloor": -cap(listing),
        "period": 1,
        "fundingTime": started + step,
    }
    return respond(request, encode_success(data))


async def funding_history(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    since, until = number(request, "from"), number(request, "to")
    if since is None or until is None:
        raise parameter_error("from and to are required")
    row = row_of(request, request.query.get("symbol"))
    listing = exchange.market.history.listings[row]
    if listing.funding_hours is None:
        raise no_funding()
    until = min(until, exchange.clock.now_ms())
    data = [
        {"symbol": listing.symbol, "fundingRate": rate, "timepoint": ms}
        for ms, rate in exchange.funding.settled(row, since, until)
    ]
    return respond(request, encode_success(data))


async def mark_price(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.match_info["symbol"])
    now_ms = exchange.clock.now_ms()
    index, mark = exchange.contracts.index_and_mark(now_ms)
    data = {
        "symbol": request.match_info["symbol"],
        "granularity": 1000,
        "timePoint": now_ms // 1000 * 1000,
        "value": float(mark[row]),
        "indexPrice": float(index[row]),
    }
    return respond(request, encode_success(data))


async def series(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    kind = request.path.split("/")[3]
    symbol = request.query.get("symbol")
    if not symbol:
        raise parameter_error("symbol is required")
    count = number(request, "maxCount")
    count = 10 if count is None else max(1, min(count, 100))
    since, until = number(request, "startAt"), number(request, "endAt")
    page = index_page(exchange, kind, symbol, since, until, count)
    return respond(request, encode_success(page))


async def risk_limit(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.match_info["symbol"])
    return respond(request, encode_success(risk_levels(exchange.market.history.listings[row])))


async def timestamp(request: web.Request) -> web.Response:
    return respond(request, encode_success(request.app[EXCHANGE].clock.now_ms()))


async def status(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    data = {"msg": "", "status": "open"}
    if exchange.is_over:
        data = {"msg": "the recorded market has ended", "status": "close"}
    # JSON as text/plain: a quirk of the real exchange.
    return respond(request, encode_success(data), content_type="text/plain;charset=UTF-8")


def add_routes(app: web.Application) -> None:
    """Add every public route."""
    for path, handler in (
        ("/api/v1/contracts/active", contracts_active),
        ("/api/v1/contracts/risk-limit/{symbol}", risk_limit),
        ("/api/v1/contracts/{symbol}", contract),
        ("/api/v1/allTickers", all_tickers),
        ("/api/v1/ticker", ticker),
        ("/api/v1/kline/query", kline),
        ("/api/v1/level2/snapshot", book),
        ("/api/v1/level2/depth20", book),
        ("/api/v1/level2/depth100", book),
        ("/api/v1/trade/history", trades),
        ("/api/v1/funding-rate/{symbol}/current", funding_current),
        ("/api/v1/contract/funding-rates", funding_history),
        ("/api/v1/mark-price/{symbol}/current", mark_price),
        ("/api/v1/index/query", series),
        ("/api/v1/interest/query", series),
        ("/api/v1/premium/query", series),
        ("/api/v1/timestamp", timestamp),
        ("/api/v1/status", status),
    ):
        app.router.add_get(path, handler)
