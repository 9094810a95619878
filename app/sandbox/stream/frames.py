"""Messages of each public topic, with KuCoin's keys, types, units and quirks."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from app.sandbox.exchange import LocalExchange
from app.sandbox.history.universe import DAY_MS
from app.sandbox.market.candles import candles
from app.sandbox.market.contracts import text
from app.sandbox.market.order_books import Tops
from app.sandbox.market.price_path import MINUTE_MS, InstantPrices
from app.sandbox.stream.registry import Feed
from app.sandbox.stream.topics import CANDLES


class InstantMarket:
    """Quotes at `now_ms`, each computed at its first use."""

    def __init__(self, exchange: LocalExchange, now_ms: int) -> None:
        self.exchange = exchange
        self.now_ms = now_ms
        self.quote_ms = exchange.market.clamp(now_ms)

    @cached_property
    def moment(self) -> InstantPrices:
        """State of the market."""
        return self.exchange.market.moment(self.now_ms)

    @cached_property
    def tops(self) -> Tops:
        """Best bids and asks of all contracts."""
        return self.exchange.books.tops(self.now_ms)

    @cached_property
    def prices(self) -> tuple[np.ndarray, np.ndarray]:
        """Index and mark prices of all contracts."""
        return self.exchange.contracts.index_and_mark(self.now_ms)

    def top(self, row: int) -> tuple[int, int, int, int]:
        """Bid, bid lots, ask and ask lots of one contract."""
        tops = self.tops
        return (
            int(tops.bid[row]),
            int(tops.bid_size[row]),
            int(tops.ask[row]),
            int(tops.ask_size[row]),
        )

    def ticker(self, row: int) -> dict[str, Any]:
        """Ticker of one contract in REST form."""
        ticker: dict[str, Any] = self.exchange.contracts.tickers(self.now_ms, [row])[0]
        return ticker


Json = dict[str, Any]
Frames = list[bytes]
encode = msgspec.json.Encoder().encode


def encode_message(topic: str, subject: str, data: Json, sn: int | None = None) -> bytes:
    """Encode a message; `sn` only where the exchange sends one."""
    head: Json = {"topic": topic, "type": "message", "subject": subject}
    if sn is not None:
        head["sn"] = sn
    return encode(head | {"data": data})


def ticker_v2(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Best bid and ask whenever one of them changes; no last price."""
    row = feed.row
    top = snapshot.top(row)
    if not feed.update_state(top):
        return []
    bid, bid_size, ask, ask_size = top
    digits = snapshot.exchange.market.history.listings[row].tick_digits
    sequence = snapshot.exchange.books.sequence(row, snapshot.now_ms)
    data = {
        "symbol": feed.topic.symbol,
        "sequence": sequence,
        "bestBidSize": bid_size,
        "bestBidPrice": text(bid, digits),
        "bestAskPrice": text(ask, digits),
        "bestAskSize": ask_size,
        "ts": snapshot.quote_ms * 1_000_000,
    }
    return [encode_message(feed.topic.name, "tickerV2", data, sequence)]


def ticker(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Ticker of REST with each match."""
    if not feed.update_state(int(snapshot.moment.trade.ms[feed.row])):
        return []
    data = snapshot.ticker(feed.row)
    return [encode_message(feed.topic.name, "ticker", data, data["sequence"])]


def execution(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Trades since the last tick, oldest first; at most the hundred that REST returns."""
    since = feed.started_ms if feed.last_state is None else int(feed.last_state)
    feed.last_state = snapshot.quote_ms + 1
    if int(snapshot.moment.trade.ms[feed.row]) < since:
        return []
    books, row = snapshot.exchange.books, feed.row
    for count in (4, 100):
        trades = books.trades(row, snapshot.now_ms, count)
        if len(trades) < count or trades[-1].ms < since:
            break
    messages = []
    for trade in reversed(trades):
        if trade.ms >= since:
            record = snapshot.exchange.contracts.trade(row, trade)
            del record["contractId"]
            data = {"symbol": feed.topic.symbol} | record
            messages.append(encode_message(feed.topic.name, "match", data, record["sequence"]))
    return messages


def increments(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Changed levels as price,side,lots: absolute lots, 0 removes; sequences without gaps."""
    books, row = snapshot.exchange.books, feed.row
    deltas = books.follow(row, snapshot.now_ms)
    books.sequence(row, snapshot.now_ms)
    digits = snapshot.exchange.market.history.listings[row].tick_digits
    return [
        encode_message(
            feed.topic.name,
            "level2",
            {
                "sequence": change.sequence,
                "change": f"{text(change.ticks, digits)},{'buy' if change.bid else 'sell'},"
                f"{change.lots}",
                "timestamp": change.ms,
            },
            change.sequence,
        )
        for change in deltas.take()
    ]


def depth(levels: int) -> Callable[[InstantMarket, Feed], Frames]:
    """Renderer of the best levels of each side when one changes; prices are strings here."""

    def frames(snapshot: InstantMarket, feed: Feed) -> Frames:
        row, now_ms = feed.row, snapshot.now_ms
        # All sizes change by the second, and all prices follow the best ones.
        hint = (snapshot.quote_ms // 1000, snapshot.top(row))
        if feed.last_state is not None and feed.last_state[0] == hint:
            return []
        sides = snapshot.exchange.books.ticks(row, now_ms, levels)
        previous, feed.last_state = feed.last_state, (hint, sides)
        if previous is not None and previous[1] == sides:
            return []
        digits = snapshot.exchange.market.history.listings[row].tick_digits
        bids, asks = ([[text(ticks, digits), lots] for ticks, lots in side] for side in sides)
        data = {
            "bids": bids,
            "sequence": snapshot.exchange.books.sequence(row, now_ms),
            "timestamp": snapshot.quote_ms,
            "ts": snapshot.quote_ms,
            "asks": asks,
        }
        return [encode_message(feed.topic.name, "level2", data, snapshot.quote_ms)]

    return frames


def limit_candle(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Running candle once a second if it changed; a completed one once more at its end."""
    if not feed.is_due("second", snapshot.now_ms, 1000):
        return []
    rows = candle_rows(snapshot, feed.row, feed.topic.candle or "")
    if feed.last_state is not None:
        rows = [row for row in rows if row[0] >= feed.last_state[0] and row != feed.last_state]
    else:
        rows = rows[-1:]
    messages = []
    digits = snapshot.exchange.market.history.listings[feed.row].tick_digits
    for row in rows:
        feed.last_state = row
        start, first, high, low, last, lots = row[:6]
        # Open, close, high, low: not the order of REST. The volume's ".0" is the exchange's.
        prices = [f"{price:.{digits}f}" for price in (first, last, high, low)]
        trimmed = [price.rstrip("0").rstrip(".") if "." in price else price for price in prices]
        values = [str(int(start) // 1000), *trimmed, f"{int(lots)}.0", str(int(lots))]
        data = {"symbol": feed.topic.symbol, "candles": values, "time": snapshot.now_ms}
        messages.append(encode_message(feed.topic.name, "candle.stick", data))
    return messages


def candle_rows(snapshot: InstantMarket, row: int, kind: str) -> list[list[float]]:
    """Last completed and running candle; one without trades is absent."""
    market, minutes = snapshot.exchange.market, CANDLES[kind]
    if minutes is not None:
        start = snapshot.quote_ms - 2 * minutes * MINUTE_MS
        return candles(market, row, minutes, start, None, snapshot.now_ms)[-2:]
    first = datetime.fromtimestamp(snapshot.quote_ms / 1000, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    start = int(first.timestamp() * 1000)
    days = candles(market, row, DAY_MS // MINUTE_MS, start, None, snapshot.now_ms)
    if not days:
        return []
    high, low = max(day[2] for day in days), min(day[3] for day in days)
    lots, value = sum(day[5] for day in days), sum(day[6] for day in days)
    return [[start, days[0][1], high, low, days[-1][4], lots, value]]


def instrument(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Mark and index each second, funding rates each minute; the symbol is in the topic."""
    messages, now_ms, row = [], snapshot.now_ms, feed.row
    if feed.is_due("second", now_ms, 1000):
        index, mark = snapshot.prices
        data = {
            "markPrice": float(mark[row]),
            "indexPrice": float(index[row]),
            "granularity": 1000,
            "timestamp": now_ms // 1000 * 1000,
        }
        messages.append(encode_message(feed.topic.name, "mark.index.price", data))
    step = snapshot.exchange.funding.step(row, now_ms)
    if step is not None and feed.is_due("minute", now_ms, MINUTE_MS):
        rate = snapshot.exchange.funding.rate(row, now_ms // step * step)
        minute = now_ms // MINUTE_MS * MINUTE_MS
        # Granularity of a minute: prediction for the running cycle; any other: the settled rate.
        for granularity in (MINUTE_MS, step):
            data = {"granularity": granularity, "fundingRate": rate, "timestamp": minute}
            messages.append(encode_message(feed.topic.name, "funding.rate", data))
    return messages


def daily_statistics(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Last 24 hours every five seconds, as in the contract's object but with positive turnover."""
    if not feed.is_due("snapshot", snapshot.now_ms, 5000):
        return []
    row = feed.row
    body = msgspec.json.decode(snapshot.exchange.contracts.encoded(snapshot.now_ms, [row])[0])
    rolling = snapshot.moment.rolling
    data = {
        "highPrice": body["highPrice"],
        "lastPrice": body["lastTradePrice"],
        "lowPrice": body["lowPrice"],
        "price24HoursBefore": snapshot.exchange.market.price(row, int(rolling.ticks[row, 0])),
        "priceChg": body["priceChg"],
        "priceChgPct": body["priceChgPct"],
        "symbol": feed.topic.symbol,
        "ts": snapshot.quote_ms * 1_000_000,
        "turnover": abs(body["turnoverOf24h"]),
        "volume": body["volumeOf24h"],
    }
    frame = {"topic": feed.topic.name, "type": "message", "subject": "snapshot.24h"}
    identity = f"{snapshot.quote_ms // 1000:08x}{row:016x}"
    return [encode(frame | {"id": identity, "data": data})]


def announcement(snapshot: InstantMarket, feed: Feed) -> Frames:
    """Begin and end of each settlement, without a type and without the symbol in the topic."""
    exchange, messages = snapshot.exchange, []
    only_row = feed.topic.row
    since = feed.started_ms if feed.last_state is None else int(feed.last_state)
    feed.last_state = snapshot.quote_ms
    for row in exchange.contracts.active(snapshot.now_ms) if only_row is None else [only_row]:
        listing = exchange.market.history.listings[row]
        # The instant of settlement belongs to the interval before it.
        step = exchange.funding.step(row, since)
        if step is None or since // step == snapshot.quote_ms // step:
            continue
        settled_ms = snapshot.quote_ms // step * step
        data = {
            "symbol": listing.symbol,
            "fundingTime": settled_ms,
            "fundingRate": exchange.funding.rate(row, settled_ms - step),
        }
        for subject, at_ms in (("funding.begin", settled_ms), ("funding.end", snapshot.quote_ms)):
            frame = {"topic": feed.topic.channel, "subject": subject}
            messages.append(encode(frame | {"data": data | {"timestamp": at_ms}}))
    return messages


RENDERERS: dict[str, Callable[[InstantMarket, Feed], Frames]] = {
    "/contractMarket/tickerV2": ticker_v2,
    "/contractMarket/ticker": ticker,
    "/contractMarket/execution": execution,
    "/contractMarket/level2": increments,
    "/contractMarket/level2Depth5": depth(5),
    "/contractMarket/level2Depth50": depth(50),
    "/contractMarket/limitCandle": limit_candle,
    "/contract/instrument": instrument,
    "/contractMarket/snapshot": daily_statistics,
    "/contract/announcement": announcement,
}
