"""The public endpoints of KuCoin Futures."""

from aiohttp import web

from app.sandbox import candles as candle_rows
from app.sandbox.answers import (
    ExchangeError,
    encoded,
    no_funding,
    parameter_error,
    respond,
    unknown_symbol,
)
from app.sandbox.exchange import Exchange
from app.sandbox.funding import cap
from app.sandbox.indexes import index_page, risk_levels

EXCHANGE = web.AppKey("exchange", Exchange)
CONTRACT_INVALID = ("100003", "Contract parameter invalid.")
HIDDEN = frozenset({"Init", "Closed", "Settled"})


def row_of(request: web.Request, symbol: str | None) -> int:
    """The row of a contract that is listed now; KuCoin's errors otherwise."""
    exchange = request.app[EXCHANGE]
    if not symbol:
        raise parameter_error("symbol is required")
    row = exchange.contracts.rows.get(symbol)
    if row is None or exchange.contracts.status(row, exchange.clock.now_ms()) in HIDDEN:
        raise unknown_symbol()
    return row


def number(request: web.Request, name: str) -> int | None:
    """An integer query parameter, None when absent."""
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
    return respond(request, encoded(exchange.contracts.tickers(now_ms, rows)))


async def ticker(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.query.get("symbol"))
    return respond(request, encoded(exchange.contracts.tickers(exchange.clock.now_ms(), [row])[0]))


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
    return respond(request, encoded(rows))


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
    return respond(request, encoded(data))


async def trades(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.query.get("symbol"))
    data = [
        exchange.contracts.trade(row, trade)
        for trade in exchange.books.trades(row, exchange.clock.now_ms())
    ]
    return respond(request, encoded(data))


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
        # Not the contract's symbol, and 8H whatever the interval.
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
    return respond(request, encoded(data))


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
    return respond(request, encoded(data))


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
    return respond(request, encoded(data))


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
    return respond(request, encoded(page))


async def risk_limit(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    row = row_of(request, request.match_info["symbol"])
    return respond(request, encoded(risk_levels(exchange.market.history.listings[row])))


async def timestamp(request: web.Request) -> web.Response:
    return respond(request, encoded(request.app[EXCHANGE].clock.now_ms()))


async def status(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    data = {"msg": "", "status": "open"}
    if exchange.over:
        data = {"msg": "the recorded market has ended", "status": "close"}
    # Valid JSON under text/plain: a quirk of the real exchange.
    return respond(request, encoded(data), content_type="text/plain;charset=UTF-8")


def add_routes(app: web.Application) -> None:
    """Bind every public path."""
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
