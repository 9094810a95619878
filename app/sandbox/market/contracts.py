"""Contract and ticker objects of the REST API, from specification and market."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from app.sandbox.history.universe import DAY_MS, HOUR_MS, ListedContract
from app.sandbox.market.funding import FundingBook, cap, granularity_ms, leverage, margins
from app.sandbox.market.order_books import OrderBooks, PublicTrade
from app.sandbox.market.price_path import CLOSE, HIGH, LOW, OPEN, SimulatedMarket

SOURCES = ["okex", "binance", "kucoin", "bybit", "bitmart", "gateio"]

Json = dict[str, Any]


def index_symbol(listing: ListedContract) -> str:
    """Index of a contract: `.KXBTUSDT` of linear ones, `.BXBT` of inverse ones."""
    return f".B{listing.base}" if listing.inverse else f".K{listing.base}{listing.quote}"


def static_part(listing: ListedContract, effective_ms: int | None) -> Json:
    """Keys of a contract object that do not change with the market.

    `effective_ms` is the start of the configured funding interval, None without a change.
    """
    initial, maintain = margins(listing)
    dated = listing.kind == "dated"
    interval = granularity_ms(listing)
    later = listing.next_funding_hours
    limit = max(10_000, 1_000_000 // max(listing.rank, 8) // 5_000 * 5_000)
    limit = 40 if listing.inverse else limit
    tick = float(f"1e-{listing.tick_digits}")
    quote = "USD" if listing.inverse else listing.quote
    return {
        "symbol": listing.symbol,
        "rootSymbol": listing.base if listing.inverse else listing.settle,
        "type": "FFICSX" if dated else "FFWCSX",
        "firstOpenDate": listing.first_open_ms,
        "expireDate": listing.expire_ms,
        "settleDate": listing.expire_ms,
        "baseCurrency": listing.base,
        "quoteCurrency": listing.quote,
        "settleCurrency": listing.settle,
        "maxOrderQty": 10_000_000 if listing.inverse else 1_000_000,
        "marketMaxOrderQty": 500_000,
        "maxPrice": 1_000_000.0,
        "lotSize": 1,
        "tickSize": tick,
        "indexPriceTickSize": tick,
        "multiplier": listing.multiplier,
        "initialMargin": initial,
        "maintainMargin": maintain,
        "maxRiskLimit": limit,
        "minRiskLimit": limit,
        "riskStep": limit // 2,
        "makerFeeRate": 0.0002,
        "takerFeeRate": 0.0006,
        "takerFixFee": 0.0,
        "makerFixFee": 0.0,
        "settlementFee": None,
        "isDeleverage": True,
        # Deprecated, and true on plain linear contracts: it does not distinguish inverse ones.
        "isQuanto": not listing.inverse and listing.rank <= 60,
        "isInverse": listing.inverse,
        "markMethod": "FairPrice",
        "fairMethod": None if dated else "FundingRate",
        "fundingBaseSymbol": None if dated else f".{listing.base}INT8H",
        "fundingQuoteSymbol": None if dated else f".{quote}INT8H",
        "fundingRateSymbol": None if dated else f".{listing.symbol}FPI8H",
        "indexSymbol": index_symbol(listing),
        "settlementSymbol": (f".{listing.symbol}" if dated else None) if listing.inverse else "",
        "predictedFundingFeeRate": None,
        "fundingRateGranularity": later * HOUR_MS if later else interval,
        "currentFundingRateGranularity": interval,
        "effectiveFundingRateCycleStartTime": effective_ms,
        "fundingRateCap": None if dated else cap(listing),
        "fundingRateFloor": None if dated else -cap(listing),
        "dailyInterestRate": None if dated else 0.0003,
        "period": None if dated else 1,
        "maxLeverage": leverage(listing),
        "sourceExchanges": SOURCES,
        "premiumsSymbol1M": None if dated else f".{listing.symbol}PI",
        "premiumsSymbol8H": None if dated else f".{listing.symbol}PI8H",
        "fundingBaseSymbol1M": None if dated else f".{listing.base}INT",
        "fundingQuoteSymbol1M": None if dated else f".{quote}INT",
        "k": 490.0,
        "m": 300.0,
        "f": 1.3,
        "mmrLimit": 0.3,
        "mmrLevConstant": float(leverage(listing)),
        "supportCross": True,
        "adjustK": None,
        "adjustM": None,
        "adjustMmrLevConstant": None,
        "adjustActiveTime": None,
        "crossRiskLimit": 5.0e8 if listing.rank == 1 else 2.0e6,
        "marketStage": listing.stage,
        "preMarketToPerpDate": (
            listing.first_open_ms + 30 * DAY_MS if listing.stage == "PRE_MARKET" else None
        ),
        "marketType": "CRYPTO",
        "orderPriceRange": 0.05,
        "displaySymbol": display(listing.symbol),
        "displayBaseCurrency": display(listing.base),
    }


def head(listing: ListedContract, effective_ms: int | None = None) -> bytes:
    """Static part as JSON without its closing brace, for the moving part to follow."""
    if effective_ms is None and listing.next_funding_hours is not None:
        effective_ms = listing.first_open_ms
    return msgspec.json.encode(static_part(listing, effective_ms))[:-1] + b","


def display(name: str) -> str:
    """Display name, Chinese for some: never a key."""
    return name.replace("BINANCELIFE", "币安人生").replace("WOTAMALAILE", "我踏马来了")


ACTIVE = frozenset({"Open", "Paused", "CancelOnly", "BeingSettled"})


class Contracts:
    """Renders contract objects and tickers of one market."""

    def __init__(self, market: SimulatedMarket, funding: FundingBook, books: OrderBooks) -> None:
        self.market = market
        self.funding = funding
        self.books = books
        self.rows = {item.symbol: row for row, item in enumerate(market.history.listings)}
        self.statuses: dict[str, tuple[str, bool]] = {}
        self._heads = [head(item) for item in market.history.listings]
        # Value until the expiry of a contract is announced.
        self._unannounced = {
            row: head(replace(item, expire_ms=None))
            for row, item in enumerate(market.history.listings)
            if item.announced_ms is not None
        }

    def render_specification(self, row: int) -> None:
        """Render a contract's specification again after a manual change."""
        self._heads[row] = head(self.market.history.listings[row])
        self._unannounced.pop(row, None)

    def status(self, row: int, now_ms: int) -> str:
        """Current status of a contract: as overridden, or by its dates."""
        listing = self.market.history.listings[row]
        if listing.symbol in self.statuses:
            return self.statuses[listing.symbol][0]
        if now_ms < listing.first_open_ms:
            return "Init"
        if listing.expire_ms is not None and now_ms >= listing.expire_ms:
            return "Settled" if listing.kind == "dated" else "Closed"
        return "Paused" if self.books.halted(row, now_ms) else listing.status

    def active(self, now_ms: int) -> list[int]:
        """Rows that contracts/active lists."""
        rows = []
        for row, listing in enumerate(self.market.history.listings):
            override = self.statuses.get(listing.symbol)
            listed = self.status(row, now_ms) in ACTIVE if override is None else override[1]
            if listed:
                rows.append(row)
        return rows

    def index_and_mark(self, now_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """Index and mark price (N,), rounded to the tick."""
        moment = self.market.moment(now_ms)
        premium = np.clip(self.funding.premium(self.market.clamp(now_ms)), -0.004, 0.004)
        last = self.market.prices(moment.last)
        scale = self.market.scale
        index = np.maximum(np.rint(last * (1.0 - 0.6 * premium) * scale), 1.0)
        mark = np.maximum(np.rint(last * (1.0 - 0.1 * premium) * scale), 1.0)
        return index / scale, mark / scale

    def _moving(self, now_ms: int, rows: list[int]) -> list[Json]:
        market = self.market
        moment, rolling = market.moment(now_ms), market.moment(now_ms).rolling
        index, mark = self.index_and_mark(now_ms)
        last = market.prices(moment.last).tolist()
        high = market.prices(rolling.ticks[:, HIGH]).tolist()
        low = market.prices(rolling.ticks[:, LOW]).tolist()
        change = market.prices(rolling.ticks[:, CLOSE] - rolling.ticks[:, OPEN]).tolist()
        fraction = (rolling.ticks[:, CLOSE] - rolling.ticks[:, OPEN]) / rolling.ticks[:, OPEN]
        percent = (np.trunc(fraction * 1e4) / 1e4).tolist()
        interest = self.open_interest(now_ms)
        answer = []
        for row in rows:
            item = market.history.listings[row]
            lots, value = int(rolling.lots[row]), float(rolling.turnover[row])
            step = self.funding.step(row, now_ms)
            settles = None if step is None else (now_ms // step + 1) * step
            # Each countdown is a few seconds old, as on the real exchange.
            lag = row * 2_777 % 8_000
            digits = item.tick_digits
            answer.append(
                {
                    "status": self.status(row, now_ms),
                    "fundingFeeRate": (
                        None if step is None else self.funding.rate(row, now_ms // step * step)
                    ),
                    "openInterest": str(int(interest[row])),
                    "turnoverOf24h": -round(value, 8) if item.inverse else round(value, 8),
                    "volumeOf24h": lots if item.inverse else round(lots * item.multiplier, 8),
                    "markPrice": float(mark[row]),
                    "indexPrice": float(index[row]),
                    "lastTradePrice": last[row],
                    "nextFundingRateTime": None if settles is None else settles - now_ms + lag,
                    "nextFundingRateDateTime": settles,
                    "lowPrice": low[row],
                    "highPrice": high[row],
                    "priceChgPct": percent[row],
                    "priceChg": change[row],
                    "buyLimit": round(float(mark[row]) * 1.05, digits),
                    "sellLimit": round(float(mark[row]) * 0.95, digits),
                }
            )
        return answer

    def open_interest(self, now_ms: int) -> np.ndarray:
        """Open interest (N,) in lots, moving through the day."""
        history = self.market.history
        now_ms = self.market.clamp(now_ms)
        column = now_ms // DAY_MS - history.first_day
        part = now_ms % DAY_MS / DAY_MS
        before = history.open_interest[:, max(column - 1, 0)]
        answer: np.ndarray = np.rint(
            before * (1 - part) + history.open_interest[:, column] * part
        ).astype(np.int64)
        return answer

    def encoded(self, now_ms: int, rows: list[int]) -> list[bytes]:
        """JSON text of contract objects."""
        encode = msgspec.json.Encoder().encode
        moving = self._moving(now_ms, rows)
        return [
            self._head(row, now_ms) + encode(part)[1:]
            for row, part in zip(rows, moving, strict=True)
        ]

    def _head(self, row: int, now_ms: int) -> bytes:
        change = self.funding.change(row)
        if change is not None:
            # The configured interval is announced before it takes effect.
            since_ms, before, hours = change
            coming = hours if now_ms < since_ms else None
            listing = self.market.history.listings[row]
            force = before if coming else hours
            return head(replace(listing, funding_hours=force, next_funding_hours=coming), since_ms)
        announced = self.market.history.listings[row].announced_ms
        known = announced is None or now_ms >= announced
        return self._heads[row] if known else self._unannounced[row]

    def tickers(self, now_ms: int, rows: list[int]) -> list[Json]:
        """Ticker objects: prices as strings, sizes in lots, `ts` the last trade in ns."""
        market = self.market
        moment, tops = market.moment(now_ms), self.books.tops(now_ms)
        answer = []
        for row in rows:
            listing = market.history.listings[row]
            digits = listing.tick_digits
            trade_ms = int(moment.trade.ms[row])
            answer.append(
                {
                    "sequence": self.books.sequence(row, now_ms),
                    "symbol": listing.symbol,
                    "side": "buy" if moment.trade.buying[row] else "sell",
                    "size": int(moment.trade.lots[row]),
                    "tradeId": str(trade_ms + 1),
                    "price": text(int(moment.last[row]), digits),
                    "bestBidPrice": text(int(tops.bid[row]), digits),
                    "bestBidSize": int(tops.bid_size[row]),
                    "bestAskPrice": text(int(tops.ask[row]), digits),
                    "bestAskSize": int(tops.ask_size[row]),
                    "ts": trade_ms * 1_000_000,
                }
            )
        return answer

    def trade(self, row: int, trade: PublicTrade) -> Json:
        """Trade object: its sequence differs from the book's."""
        return {
            "sequence": trade.ms + 1,
            "contractId": row + 1,
            "tradeId": str(trade.ms + 1),
            "makerOrderId": str(trade.ms * 1_000 + row),
            "takerOrderId": str(trade.ms * 1_000 + row + 500),
            "ts": trade.ms * 1_000_000,
            "size": trade.lots,
            "price": text(trade.ticks, self.market.history.listings[row].tick_digits),
            "side": "buy" if trade.buying else "sell",
        }


def text(ticks: int, digits: int) -> str:
    """Price in ticks as a string in KuCoin's form: no trailing zeros, no exponent."""
    if digits == 0:
        return str(ticks)
    whole, part = divmod(ticks, 10**digits)
    decimals = f"{part:0{digits}d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
