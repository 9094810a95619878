"""Market events on demand, written into the one price path so that REST and stream agree.

POST /_control/events with `kind`, `symbol` and the parameters of the kind; the answer gives the
start (`from_ms`) and the end of a halt. All but the multiplier begin with the next minute.

| kind | needs | effect |
|---|---|---|
| halt | minutes? | Paused: no trades, the book stands still; without minutes to the known end |
| list | in_minutes? | Init and not listed until then; opens as a contract without a past |
| delist | in_minutes? | an expiry announced at once; Closed and delisted from then on |
| multiplier | multiplier | another size of a lot; past and future are restated in new lots |
| redenomination | ratio | new coins for old ones: the size of a lot at once, prices times `ratio` |
| funding_interval | hours | announced at once, in force from the next common settlement |
"""

from dataclasses import dataclass, replace

import numpy as np

from app.sandbox.exchange import LocalExchange
from app.sandbox.history.bars import CLOSE, OPEN, aggregate_bars
from app.sandbox.history.universe import DAY_MS, HOUR_MS, ListedContract
from app.sandbox.market.price_path import MINUTE_MS
from app.sandbox.market_overrides import scale_from_now_on


@dataclass(frozen=True, slots=True)
class MarketEvent:
    """One event; parameters of other kinds are ignored."""

    kind: str
    symbol: str
    minutes: int | None = None
    in_minutes: int = 0
    multiplier: float | None = None
    hours: int | None = None
    ratio: float | None = None


def apply_event(exchange: LocalExchange, event: MarketEvent) -> dict[str, int]:
    """Apply an event; returns its times. KeyError for an unknown contract, else ValueError."""
    row = exchange.contracts.rows[event.symbol]
    market, now_ms = exchange.market, exchange.clock.now_ms()
    if event.in_minutes < 0 or (event.minutes is not None and event.minutes < 1):
        raise ValueError("minutes must not be negative")
    from_ms = (market.clamp(now_ms) // MINUTE_MS + 1 + event.in_minutes) * MINUTE_MS
    times = {"from_ms": from_ms}
    if event.kind == "halt":
        until_ms = market.end_ms
        if event.minutes is not None:
            until_ms = min(until_ms, from_ms + event.minutes * MINUTE_MS)
        exchange.books.halt(row, from_ms, until_ms)
        stop_trading(exchange, row, from_ms, until_ms, _price(exchange, row, from_ms - 1, CLOSE))
        times["until_ms"] = until_ms
    elif event.kind == "delist":
        _respecify(exchange, row, expire_ms=from_ms, announced_ms=None)
        stop_trading(
            exchange, row, from_ms, market.end_ms, _price(exchange, row, from_ms - 1, CLOSE)
        )
    elif event.kind == "list":
        _respecify(exchange, row, first_open_ms=from_ms, status="Open")
        market.history.first_bar[row] = from_ms // DAY_MS - market.history.first_day
        begin = market.history.first_day * DAY_MS
        stop_trading(exchange, row, begin, from_ms, _price(exchange, row, from_ms, OPEN))
    elif event.kind == "multiplier":
        _relot(exchange, row, event.multiplier)
        times["from_ms"] = market.clamp(now_ms)
    elif event.kind == "redenomination":
        _redenominate(exchange, row, event.ratio, market.clamp(now_ms))
    elif event.kind == "funding_interval":
        times["from_ms"] = exchange.funding.change_interval(row, now_ms, event.hours or 0)
    else:
        raise ValueError(f"unknown event {event.kind!r}")
    market.changed()
    exchange.books.changed()
    exchange.forget_answers()
    return times


def _respecify(exchange: LocalExchange, row: int, **changes: object) -> ListedContract:
    """Replace a contract's listing."""
    history = exchange.market.history
    listing: ListedContract = replace(history.listings[row], **changes)  # type: ignore[arg-type]  # its own fields
    listings = (*history.listings[:row], listing, *history.listings[row + 1 :])
    exchange.market.history = replace(history, listings=listings)
    exchange.contracts.respecify(row)
    return listing


def _price(exchange: LocalExchange, row: int, at_ms: int, which: int) -> int:
    """A price in ticks of the minute at a time."""
    minutes = exchange.market.minutes(at_ms // HOUR_MS)
    return int(minutes.ticks[row, at_ms // MINUTE_MS % 60, which])


def _relot(exchange: LocalExchange, row: int, multiplier: float | None) -> None:
    """Restate a contract's lots; manually changed minutes are derived again."""
    history = exchange.market.history
    old = history.listings[row]
    if old.inverse or multiplier is None or multiplier <= 0.0:
        raise ValueError("a multiplier must be positive, and inverse contracts have a fixed one")
    factor = old.multiplier / multiplier
    lots = history.daily.lots[row]
    restated = np.maximum(np.rint(lots * factor), 1).astype(np.int64)
    history.daily.lots[row] = np.where(lots > 0, restated, 0)
    history.open_interest[row] *= factor
    _respecify(exchange, row, multiplier=multiplier)
    exchange.books.relot(row, multiplier)
    exchange.market.remake(row)


def _redenominate(exchange: LocalExchange, row: int, ratio: float | None, now_ms: int) -> None:
    """Change the unit of a contract's price: a lot keeps its value, and the past its prices."""
    old = exchange.market.history.listings[row]
    if old.inverse or ratio is None or ratio <= 0.0:
        raise ValueError("a ratio must be positive, and inverse contracts have a fixed multiplier")
    multiplier = old.multiplier / ratio
    _respecify(exchange, row, multiplier=multiplier)
    exchange.books.relot(row, multiplier)
    scale_from_now_on(exchange, row, now_ms, ratio, unit=ratio)


def stop_trading(
    exchange: LocalExchange, row: int, from_ms: int, until_ms: int, ticks: int
) -> None:
    """Remove a contract's trades between two full minutes; its price stays constant.

    After the span the path continues as generated: the price opens with a jump.
    """
    market = exchange.market
    until_ms = min(until_ms, market.end_ms)
    daily, first_day = market.history.daily, market.history.first_day
    for day in range(from_ms // DAY_MS, -(-until_ms // DAY_MS)):
        whole = from_ms <= day * DAY_MS and (day + 1) * DAY_MS <= until_ms
        hours = market.cached_hours(day) if whole else market.hours(day)
        if hours is None:
            daily.still(row, slice(day - first_day, day - first_day + 1), ticks)
            continue
        for hour in range(day * 24, day * 24 + 24):
            _silence_hour(exchange, row, hour, (from_ms, until_ms), ticks)
        one = aggregate_bars(hours.take(slice(row, row + 1)))
        if whole:
            daily.still(row, slice(day - first_day, day - first_day + 1), ticks)
        else:
            daily.ticks[row, day - first_day] = one.ticks[0]
            daily.lots[row, day - first_day] = one.lots[0]
            daily.turnover[row, day - first_day] = one.turnover[0]
    market.changed()


def _silence_hour(
    exchange: LocalExchange, row: int, hour: int, span_ms: tuple[int, int], ticks: int
) -> None:
    """Stop trading in the part of an hour within the span."""
    market = exchange.market
    first = max(span_ms[0] - hour * HOUR_MS, 0) // MINUTE_MS
    last = min(span_ms[1] - hour * HOUR_MS, HOUR_MS) // MINUTE_MS
    if first >= last:
        return
    hours, place = market.hours(hour // 24), slice(hour % 24, hour % 24 + 1)
    if (first, last) == (0, 60):
        minutes = market.cached_minutes(hour)
        if minutes is not None:
            minutes.still(row, slice(0, 60), ticks)
        hours.still(row, place, ticks)
        return
    market.pin(hour)
    minutes = market.minutes(hour)
    minutes.still(row, slice(first, last), ticks)
    one = aggregate_bars(minutes.take(slice(row, row + 1)))
    hours.ticks[row, hour % 24] = one.ticks[0]
    hours.lots[row, hour % 24] = one.lots[0]
    hours.turnover[row, hour % 24] = one.turnover[0]
