"""Local servers in the shapes of Binance, Kraken and Coinbase that also tell their last prices.

The shapes are those of their documents: Binance's all-market mini tickers, Kraken's WebSocket v2
`ticker`, Coinbase Advanced Trade's `ticker_batch`.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.adapters.binance import NOW_MS, Binance

NOW_TEXT = "2027-01-15T08:00:00.000000Z"  # NOW_MS


@dataclass
class Teller:
    """Keeps what it was asked and who listens; `is_mute` opens streams and says nothing."""

    url: str = ""
    status: int = 200
    is_mute: bool = False
    refuses_streams: bool = False
    prices: dict[str, str] = field(default_factory=dict)  # by its own name of a market
    asked: list[str] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)  # by those who listen
    streams: list[web.WebSocketResponse] = field(default_factory=list)

    def frame(self, market: str, price: str) -> Any:
        """One word on one market."""
        raise NotImplementedError

    def answer(self, request: web.Request) -> Any:
        """To a request over REST."""
        raise NotImplementedError

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            self.asked.append(request.path)
            return web.json_response(self.answer(request), status=self.status)
        if self.refuses_streams:
            return web.Response(status=503)
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        self.streams.append(stream)
        async for message in stream:
            if message.type is WSMsgType.TEXT:
                self.said.append(json.loads(message.data))
                await self.tell(self.prices)
        return stream

    async def tell(self, prices: dict[str, str]) -> None:
        """To all who listen."""
        self.prices |= prices
        if self.is_mute:
            return
        for market, price in prices.items():
            for stream in self.streams:
                if not stream.closed:
                    await stream.send_json(self.frame(market, price))

    async def cut(self) -> None:
        """All streams at once."""
        for stream in self.streams:
            await stream.close()
        self.streams.clear()


class BinanceTeller(Teller):
    """USD-M futures."""

    def answer(self, request: web.Request) -> Any:
        raise NotImplementedError

    def frame(self, market: str, price: str) -> Any:
        row = {"e": "24hrMiniTicker", "E": NOW_MS, "s": market, "c": price, "o": "1", "h": "9",
               "l": "1", "v": "10", "q": "20"}  # fmt: skip
        return [row]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        there = Binance(status=self.status, asked=self.asked)
        if request.path.endswith("/exchangeInfo"):
            return await there.info(request)
        if request.path.endswith("/ticker/24hr"):
            there.rows = [
                {"symbol": name, "lastPrice": price, "closeTime": NOW_MS}
                for name, price in self.prices.items()
            ]
            return await there.tickers(request)
        return await super().serve(request)


class KrakenTeller(Teller):
    """Spot; its names of markets are those of the stream, BTC/USD."""

    MARKETS = (("XBTUSDT", "XBT", "USDT"), ("XXBTZUSD", "XXBT", "ZUSD"), ("SOLUSD", "SOL", "ZUSD"))

    def answer(self, request: web.Request) -> Any:
        if request.path.endswith("/AssetPairs"):
            return {"error": [], "result": {key: self._pair(*rest) for key, *rest in
                                            ((one[0], *one) for one in self.MARKETS)}}  # fmt: skip
        names = {"BTC/USDT": "XBTUSDT", "BTC/USD": "XXBTZUSD", "SOL/USD": "SOLUSD"}
        rows = {names[name]: self._ticker(price) for name, price in self.prices.items()}
        return {"error": [], "result": rows}

    @staticmethod
    def _pair(name: str, base: str, quote: str) -> dict[str, Any]:
        plain = {"XXBT": "XBT", "ZUSD": "USD"}
        wsname = f"{plain.get(base, base)}/{plain.get(quote, quote)}"
        return {
            "altname": name.replace("XXBTZ", "XBT"), "wsname": wsname, "aclass_base": "currency",
            "base": base, "aclass_quote": "currency", "quote": quote, "lot": "unit",
            "cost_decimals": 5, "pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1,
            "leverage_buy": [], "leverage_sell": [], "fees": [[0, 0.25]], "fees_maker": [[0, 0.2]],
            "fee_volume_currency": "ZUSD", "ordermin": "0.0001", "costmin": "0.5",
            "tick_size": "0.1", "status": "online",
        }  # fmt: skip

    @staticmethod
    def _ticker(price: str) -> dict[str, Any]:
        return {"a": [price, "1", "1"], "b": [price, "1", "1"], "c": [price, "0.1"],
                "v": ["1", "2"], "p": [price, price], "t": [1, 2], "l": [price, price],
                "h": [price, price], "o": price}  # fmt: skip

    def frame(self, market: str, price: str) -> Any:
        value = float(price)
        row = {"symbol": market, "bid": value, "bid_qty": 1.0, "ask": value, "ask_qty": 1.0,
               "last": value, "volume": 5.0, "vwap": value, "low": value, "high": value,
               "change": 0.0, "change_pct": 0.0}  # fmt: skip
        return {"channel": "ticker", "type": "update", "data": [row]}


class CoinbaseTeller(Teller):
    """Advanced Trade, spot."""

    MARKETS = ("BTC-USDT", "BTC-USD", "SOL-USD")

    def answer(self, request: web.Request) -> Any:
        if request.query.get("product_type") == "FUTURE":
            return {"products": [], "num_products": 0}
        rows = [self._product(name) for name in self.MARKETS]
        return {"products": rows, "num_products": len(rows)}

    def _product(self, name: str) -> dict[str, Any]:
        base, quote = name.split("-")
        return {
            "product_id": name, "price": self.prices.get(name, ""), "base_currency_id": base,
            "quote_currency_id": quote, "base_name": base, "quote_name": quote,
            "product_type": "SPOT", "status": "online", "trading_disabled": False,
            "is_disabled": False, "base_increment": "0.00000001", "quote_increment": "0.01",
            "price_increment": "0.01", "base_min_size": "0.0001", "base_max_size": "1000",
            "quote_min_size": "1", "quote_max_size": "1000000", "volume_24h": "10",
            "price_percentage_change_24h": "0", "cancel_only": False, "limit_only": False,
            "post_only": False, "auction_mode": False, "view_only": False,
        }  # fmt: skip

    def frame(self, market: str, price: str) -> Any:
        row = {"type": "ticker", "product_id": market, "price": price, "volume_24_h": "10",
               "low_24_h": price, "high_24_h": price, "low_52_w": price, "high_52_w": price,
               "price_percent_chg_24_h": "0", "best_bid": price, "best_bid_quantity": "1",
               "best_ask": price, "best_ask_quantity": "1"}  # fmt: skip
        return {"channel": "ticker_batch", "client_id": "", "timestamp": NOW_TEXT,
                "sequence_num": 0, "events": [{"type": "update", "tickers": [row]}]}  # fmt: skip


@asynccontextmanager
async def telling(there: Teller) -> AsyncIterator[Teller]:
    """On a port of its own."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", there.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield there
    finally:
        await there.cut()
        await runner.cleanup()
