"""Index, premium and interest series, and the risk limits of a contract."""

from typing import Any

import numpy as np

from app.sandbox.answers import unknown_symbol
from app.sandbox.exchange import Exchange
from app.sandbox.funding import leverage
from app.sandbox.market import MINUTE_MS
from app.sandbox.specs import SOURCES, index_symbol
from app.sandbox.universe import Listing

STEPS = {"index": 1_000, "premium": MINUTE_MS, "interest": MINUTE_MS}
SHARES = (0.11, 0.5476, 0.2125, 0.0676, 0.0128, 0.0495)
LEVERAGES = (125, 100, 75, 50, 30, 20, 10, 5, 4, 3, 2, 1)
LIMITS = (1, 5, 10, 20, 30, 50, 80, 120, 200, 300, 400, 500)


def index_page(
    exchange: Exchange, kind: str, symbol: str, since: int | None, until: int | None, count: int
) -> dict[str, Any]:
    """One page {dataList, hasMore}, newest first, of an index, premium or interest symbol."""
    row = _row(exchange, kind, symbol)
    step = STEPS[kind]
    now_ms = exchange.market.clamp(exchange.clock.now_ms())
    newest = min(now_ms, until if until is not None else now_ms) // step * step
    # Values exist for the last hour; older ones are not kept.
    oldest = max(since if since is not None else 0, now_ms - 60 * MINUTE_MS)
    times = range(newest, newest - count * step, -step)
    values = [
        _value(exchange, kind, symbol, row, time) | {"granularity": step, "timePoint": time}
        for time in times
        if time >= oldest
    ]
    return {"dataList": values, "hasMore": newest - count * step >= oldest}


def _row(exchange: Exchange, kind: str, symbol: str) -> int:
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


def _value(exchange: Exchange, kind: str, symbol: str, row: int, now_ms: int) -> dict[str, Any]:
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


def risk_levels(listing: Listing) -> list[dict[str, Any]]:
    """The risk limit levels of a contract, ascending."""
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
