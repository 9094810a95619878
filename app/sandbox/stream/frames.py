"""The messages of each public topic, with KuCoin's keys, types, units and quirks."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.sandbox.candles import candles
from app.sandbox.contracts import text
from app.sandbox.market import MINUTE_MS
from app.sandbox.stream.feed import Feed
from app.sandbox.stream.glance import Glance
from app.sandbox.stream.topics import CANDLES
from app.sandbox.universe import DAY_MS

Json = dict[str, Any]
Frames = list[bytes]
encode = msgspec.json.Encoder().encode


def message(topic: str, subject: str, data: Json, sn: int | None = None) -> bytes:
    """One message; `sn` only where the exchange sends one."""
    head: Json = {"topic": topic, "type": "message", "subject": subject}
    if sn is not None:
        head["sn"] = sn
    return encode(head | {"data": data})


def ticker_v2(glance: Glance, feed: Feed) -> Frames:
    """The best bid and ask whenever one of them changes; no last price."""
    row = feed.row
    top = glance.top(row)
    if not feed.changed(top):
        return []
    bid, bid_size, ask, ask_size = top
    digits = glance.exchange.market.history.listings[row].tick_digits
    sequence = glance.exchange.books.sequence(row, glance.now_ms)
    data = {
        "symbol": feed.topic.symbol,
        "sequence": sequence,
        "bestBidSize": bid_size,
        "bestBidPrice": text(bid, digits),
        "bestAskPrice": text(ask, digits),
        "bestAskSize": ask_size,
        "ts": glance.quote_ms * 1_000_000,
    }
    return [message(feed.topic.name, "tickerV2", data, sequence)]


def ticker(glance: Glance, feed: Feed) -> Frames:
    """The ticker of REST with each match."""
    if not feed.changed(int(glance.moment.trade.ms[feed.row])):
        return []
    data = glance.ticker(feed.row)
    return [message(feed.topic.name, "ticker", data, data["sequence"])]


def execution(glance: Glance, feed: Feed) -> Frames:
    """Each trade since the last look, oldest first; at most the hundred that REST remembers."""
    since = feed.at_ms if feed.seen is None else int(feed.seen)
    feed.seen = glance.quote_ms + 1
    if int(glance.moment.trade.ms[feed.row]) < since:
        return []
    books, row = glance.exchange.books, feed.row
    for count in (4, 100):
        trades = books.trades(row, glance.now_ms, count)
        if len(trades) < count or trades[-1].ms < since:
            break
    answer = []
    for trade in reversed(trades):
        if trade.ms >= since:
            record = glance.exchange.contracts.trade(row, trade)
            del record["contractId"]
            data = {"symbol": feed.topic.symbol} | record
            answer.append(message(feed.topic.name, "match", data, record["sequence"]))
    return answer


def increments(glance: Glance, feed: Feed) -> Frames:
    """Each changed level as price,side,lots: absolute lots, 0 removes; sequences without gaps."""
    books, row = glance.exchange.books, feed.row
    journal = books.follow(row, glance.now_ms)
    books.sequence(row, glance.now_ms)
    digits = glance.exchange.market.history.listings[row].tick_digits
    return [
        message(
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
        for change in journal.told()
    ]


def depth(levels: int) -> Callable[[Glance, Feed], Frames]:
    """The best levels of each side whenever one of them changes; prices are strings here."""

    def frames(glance: Glance, feed: Feed) -> Frames:
        row, now_ms = feed.row, glance.now_ms
        # The sizes of all levels are drawn by the second, their prices follow the best ones.
        hint = (glance.quote_ms // 1000, glance.top(row))
        if feed.seen is not None and feed.seen[0] == hint:
            return []
        sides = glance.exchange.books.ticks(row, now_ms, levels)
        before, feed.seen = feed.seen, (hint, sides)
        if before is not None and before[1] == sides:
            return []
        digits = glance.exchange.market.history.listings[row].tick_digits
        bids, asks = ([[text(ticks, digits), lots] for ticks, lots in side] for side in sides)
        data = {
            "bids": bids,
            "sequence": glance.exchange.books.sequence(row, now_ms),
            "timestamp": glance.quote_ms,
            "ts": glance.quote_ms,
            "asks": asks,
        }
        return [message(feed.topic.name, "level2", data, glance.quote_ms)]

    return frames


def limit_candle(glance: Glance, feed: Feed) -> Frames:
    """Once a second the running candle if it changed; the one before it once more at its end."""
    if not feed.due("second", glance.now_ms, 1000):
        return []
    rows = candle_rows(glance, feed.row, feed.topic.candle or "")
    if feed.seen is not None:
        rows = [row for row in rows if row[0] >= feed.seen[0] and row != feed.seen]
    else:
        rows = rows[-1:]
    answer = []
    digits = glance.exchange.market.history.listings[feed.row].tick_digits
    for row in rows:
        feed.seen = row
        start, first, high, low, last, lots = row[:6]
        # Open, close, high, low: not the order of REST. The volume's ".0" is the exchange's.
        prices = [f"{price:.{digits}f}" for price in (first, last, high, low)]
        shown = [price.rstrip("0").rstrip(".") if "." in price else price for price in prices]
        values = [str(int(start) // 1000), *shown, f"{int(lots)}.0", str(int(lots))]
        data = {"symbol": feed.topic.symbol, "candles": values, "time": glance.now_ms}
        answer.append(message(feed.topic.name, "candle.stick", data))
    return answer


def candle_rows(glance: Glance, row: int, kind: str) -> list[list[float]]:
    """The candle before the running one and the running one, as far as they traded."""
    market, minutes = glance.exchange.market, CANDLES[kind]
    if minutes is not None:
        start = glance.quote_ms - 2 * minutes * MINUTE_MS
        return candles(market, row, minutes, start, None, glance.now_ms)[-2:]
    first = datetime.fromtimestamp(glance.quote_ms / 1000, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    start = int(first.timestamp() * 1000)
    days = candles(market, row, DAY_MS // MINUTE_MS, start, None, glance.now_ms)
    if not days:
        return []
    high, low = max(day[2] for day in days), min(day[3] for day in days)
    lots, value = sum(day[5] for day in days), sum(day[6] for day in days)
    return [[start, days[0][1], high, low, days[-1][4], lots, value]]


def instrument(glance: Glance, feed: Feed) -> Frames:
    """Mark and index each second, the funding rates each minute; the symbol is in the topic."""
    answer, now_ms, row = [], glance.now_ms, feed.row
    if feed.due("second", now_ms, 1000):
        index, mark = glance.prices
        data = {
            "markPrice": float(mark[row]),
            "indexPrice": float(index[row]),
            "granularity": 1000,
            "timestamp": now_ms // 1000 * 1000,
        }
        answer.append(message(feed.topic.name, "mark.index.price", data))
    step = glance.exchange.funding.step(row, now_ms)
    if step is not None and feed.due("minute", now_ms, MINUTE_MS):
        rate = glance.exchange.funding.rate(row, now_ms // step * step)
        minute = now_ms // MINUTE_MS * MINUTE_MS
        # A granularity of a minute marks the prediction of the running cycle, any other the rate.
        for granularity in (MINUTE_MS, step):
            data = {"granularity": granularity, "fundingRate": rate, "timestamp": minute}
            answer.append(message(feed.topic.name, "funding.rate", data))
    return answer


def snapshot(glance: Glance, feed: Feed) -> Frames:
    """The last 24 hours every five seconds, equal to the contract's object but for the sign."""
    if not feed.due("snapshot", glance.now_ms, 5000):
        return []
    row = feed.row
    body = msgspec.json.decode(glance.exchange.contracts.encoded(glance.now_ms, [row])[0])
    rolling = glance.moment.rolling
    data = {
        "highPrice": body["highPrice"],
        "lastPrice": body["lastTradePrice"],
        "lowPrice": body["lowPrice"],
        "price24HoursBefore": glance.exchange.market.price(row, int(rolling.ticks[row, 0])),
        "priceChg": body["priceChg"],
        "priceChgPct": body["priceChgPct"],
        "symbol": feed.topic.symbol,
        "ts": glance.quote_ms * 1_000_000,
        "turnover": abs(body["turnoverOf24h"]),
        "volume": body["volumeOf24h"],
    }
    frame = {"topic": feed.topic.name, "type": "message", "subject": "snapshot.24h"}
    identity = f"{glance.quote_ms // 1000:08x}{row:016x}"
    return [encode(frame | {"id": identity, "data": data})]


def announcement(glance: Glance, feed: Feed) -> Frames:
    """The begin and end of each settlement, without a type and without the symbol in the topic."""
    exchange, answer = glance.exchange, []
    wanted = feed.topic.row
    since = feed.at_ms if feed.seen is None else int(feed.seen)
    feed.seen = glance.quote_ms
    for row in exchange.contracts.active(glance.now_ms) if wanted is None else [wanted]:
        listing = exchange.market.history.listings[row]
        # The settlement itself still belongs to the interval before it.
        step = exchange.funding.step(row, since)
        if step is None or since // step == glance.quote_ms // step:
            continue
        settled = glance.quote_ms // step * step
        data = {
            "symbol": listing.symbol,
            "fundingTime": settled,
            "fundingRate": exchange.funding.rate(row, settled - step),
        }
        for subject, at_ms in (("funding.begin", settled), ("funding.end", glance.quote_ms)):
            frame = {"topic": feed.topic.channel, "subject": subject}
            answer.append(encode(frame | {"data": data | {"timestamp": at_ms}}))
    return answer


RENDERERS: dict[str, Callable[[Glance, Feed], Frames]] = {
    "/contractMarket/tickerV2": ticker_v2,
    "/contractMarket/ticker": ticker,
    "/contractMarket/execution": execution,
    "/contractMarket/level2": increments,
    "/contractMarket/level2Depth5": depth(5),
    "/contractMarket/level2Depth50": depth(50),
    "/contractMarket/limitCandle": limit_candle,
    "/contract/instrument": instrument,
    "/contractMarket/snapshot": snapshot,
    "/contract/announcement": announcement,
}
