"""A local server in the shape of Binance's futures, as far as last prices go."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

NOW_MS = 1_800_000_000_000
FILTERS = [
    {"filterType": "PRICE_FILTER", "tickSize": "0.10", "minPrice": "0.1", "maxPrice": "1000000"},
    {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"},
]


def listed(symbol: str, base: str, quote: str = "USDT", **changed: Any) -> dict[str, Any]:
    """One contract as exchangeInfo has it."""
    return {
        "symbol": symbol,
        "pair": f"{base}{quote}",
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": quote,
        "pricePrecision": 2,
        "quantityPrecision": 3,
        "underlyingType": "COIN",
        "filters": FILTERS,
    } | changed


def traded(symbol: str, last: Any) -> dict[str, Any]:
    """One row of ticker/24hr."""
    return {
        "symbol": symbol,
        "lastPrice": last,
        "lastQty": "0.5",
        "openPrice": "1",
        "highPrice": "2",
        "lowPrice": "1",
        "volume": "10",
        "quoteVolume": "20",
        "openTime": NOW_MS - 86_400_000,
        "closeTime": NOW_MS,
        "count": 9,
    }


@dataclass
class Binance:
    """What it answers; `status` other than 200 is an outage."""

    url: str = ""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    async def info(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        symbols = [
            listed("BTCUSDT", "BTC"),
            listed("ETHUSDT", "ETH"),
            listed("XRPUSDT", "XRP"),
            listed("BTCUSDC", "BTC", "USDC"),
            listed("BTCUSDT_270326", "BTC", contractType="CURRENT_QUARTER",
                   deliveryDate=1_806_000_000_000),
        ]  # fmt: skip
        return web.json_response({"symbols": symbols, "rateLimits": []}, status=self.status)

    async def tickers(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.json_response(self.rows, status=self.status)


@asynccontextmanager
async def local_binance() -> AsyncIterator[Binance]:
    """On a port of its own."""
    there = Binance()
    app = web.Application()
    app.router.add_get("/fapi/v1/exchangeInfo", there.info)
    app.router.add_get("/fapi/v1/ticker/24hr", there.tickers)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield there
    finally:
        await runner.cleanup()
