"""Contract objects and tickers with KuCoin's keys, types and units."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from app.sandbox.books import Books, Trade
from app.sandbox.funding import FundingBook
from app.sandbox.market import CLOSE, HIGH, LOW, OPEN, Market
from app.sandbox.specs import head
from app.sandbox.universe import DAY_MS

ACTIVE = frozenset({"Open", "Paused", "CancelOnly", "BeingSettled"})

Json = dict[str, Any]


class Contracts:
    """Renders contract objects and tickers of one market."""

    def __init__(self, market: Market, funding: FundingBook, books: Books) -> None:
        self.market = market
        self.funding = funding
        self.books = books
        self.rows = {item.symbol: row for row, item in enumerate(market.history.listings)}
        self.statuses: dict[str, tuple[str, bool]] = {}
        self._heads = [head(item) for item in market.history.listings]
        # What stands there until the expiry of a contract is announced.
        self._unannounced = {
            row: head(replace(item, expire_ms=None))
            for row, item in enumerate(market.history.listings)
            if item.announced_ms is not None
        }

    def respecify(self, row: int) -> None:
        """Render a contract's specification anew, after it was changed by hand."""
        self._heads[row] = head(self.market.history.listings[row])
        self._unannounced.pop(row, None)

    def status(self, row: int, now_ms: int) -> str:
        """The status of a contract now: as planted, or by its dates."""
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
            planted = self.statuses.get(listing.symbol)
            listed = self.status(row, now_ms) in ACTIVE if planted is None else planted[1]
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
            # The countdown of each contract is a few seconds old, as on the real exchange.
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
        """The JSON text of contract objects."""
        encode = msgspec.json.Encoder().encode
        moving = self._moving(now_ms, rows)
        return [
            self._head(row, now_ms) + encode(part)[1:]
            for row, part in zip(rows, moving, strict=True)
        ]

    def _head(self, row: int, now_ms: int) -> bytes:
        change = self.funding.change(row)
        if change is not None:
            # Announced from the start: the configured interval is told before it is in force.
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

    def trade(self, row: int, trade: Trade) -> Json:
        """One trade: its sequence is its own, not the book's."""
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
    """A price in ticks as the exchange writes it in strings: no trailing zeros, no exponent."""
    if digits == 0:
        return str(ticks)
    whole, part = divmod(ticks, 10**digits)
    decimals = f"{part:0{digits}d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
