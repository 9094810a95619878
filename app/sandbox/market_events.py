"""Market events and manual overrides on demand, applied to the one price path to stay consistent.

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
from app.sandbox.history.bars import CLOSE, HIGH, LOW, OPEN, Bars, aggregate_bars
from app.sandbox.history.universe import DAY_MS, HOUR_MS, ListedContract
from app.sandbox.market.price_path import MINUTE_MS


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
        _replace_listing(exchange, row, expire_ms=from_ms, announced_ms=None)
        stop_trading(
            exchange, row, from_ms, market.end_ms, _price(exchange, row, from_ms - 1, CLOSE)
        )
    elif event.kind == "list":
        _replace_listing(exchange, row, first_open_ms=from_ms, status="Open")
        market.history.first_bar[row] = from_ms // DAY_MS - market.history.first_day
        begin = market.history.first_day * DAY_MS
        stop_trading(exchange, row, begin, from_ms, _price(exchange, row, from_ms, OPEN))
    elif event.kind == "multiplier":
        _change_multiplier(exchange, row, event.multiplier)
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


def _replace_listing(exchange: LocalExchange, row: int, **changes: object) -> ListedContract:
    """Replace a contract's listing."""
    history = exchange.market.history
    listing: ListedContract = replace(history.listings[row], **changes)  # type: ignore[arg-type]  # its own fields
    listings = (*history.listings[:row], listing, *history.listings[row + 1 :])
    exchange.market.history = replace(history, listings=listings)
    exchange.contracts.render_specification(row)
    return listing


def _price(exchange: LocalExchange, row: int, at_ms: int, which: int) -> int:
    """A price in ticks of the minute at a time."""
    minutes = exchange.market.minutes(at_ms // HOUR_MS)
    return int(minutes.ticks[row, at_ms // MINUTE_MS % 60, which])


def _change_multiplier(exchange: LocalExchange, row: int, multiplier: float | None) -> None:
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
    _replace_listing(exchange, row, multiplier=multiplier)
    exchange.books.set_contract_size(row, multiplier)
    exchange.market.regenerate(row)


def _redenominate(exchange: LocalExchange, row: int, ratio: float | None, now_ms: int) -> None:
    """Change the unit of a contract's price: a lot keeps its value, and the past its prices."""
    old = exchange.market.history.listings[row]
    if old.inverse or ratio is None or ratio <= 0.0:
        raise ValueError("a ratio must be positive, and inverse contracts have a fixed multiplier")
    multiplier = old.multiplier / ratio
    _replace_listing(exchange, row, multiplier=multiplier)
    exchange.books.set_contract_size(row, multiplier)
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
            daily.stop_trades(row, slice(day - first_day, day - first_day + 1), ticks)
            continue
        for hour in range(day * 24, day * 24 + 24):
            _silence_hour(exchange, row, hour, (from_ms, until_ms), ticks)
        one = aggregate_bars(hours.take(slice(row, row + 1)))
        if whole:
            daily.stop_trades(row, slice(day - first_day, day - first_day + 1), ticks)
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
            minutes.stop_trades(row, slice(0, 60), ticks)
        hours.stop_trades(row, place, ticks)
        return
    market.pin(hour)
    minutes = market.minutes(hour)
    minutes.stop_trades(row, slice(first, last), ticks)
    one = aggregate_bars(minutes.take(slice(row, row + 1)))
    hours.ticks[row, hour % 24] = one.ticks[0]
    hours.lots[row, hour % 24] = one.lots[0]
    hours.turnover[row, hour % 24] = one.turnover[0]


@dataclass(frozen=True, slots=True)
class MarketOverride:
    """Change of one contract from now on; None or 1.0 leaves a value as it is.

    `price_factor` moves the price from the next minute on. `volume_factor` multiplies lots and
    turnover from the next minute on and of the last `days` closed days, whose hours are derived
    again. `range_factor` widens the candles of the last `days` closed days around their bodies.
    `funding_rate` fixes the rate of the running cycle, of later ones and of the last `days`.
    Spread, depth and open interest factors act at once and stay.
    """

    symbol: str
    price_factor: float = 1.0
    volume_factor: float = 1.0
    range_factor: float = 1.0
    spread_factor: float = 1.0
    depth_factor: float = 1.0
    open_interest_factor: float = 1.0
    funding_rate: float | None = None
    days: int = 0


def apply_override(exchange: LocalExchange, change: MarketOverride) -> None:
    """Apply a change; KeyError for a symbol that is not listed."""
    row = exchange.contracts.rows[change.symbol]
    now_ms = exchange.market.clamp(exchange.clock.now_ms())
    exchange.books.spread_factor[row] *= change.spread_factor
    exchange.books.depth_factor[row] *= change.depth_factor
    exchange.books.changed()
    if change.funding_rate is not None:
        exchange.funding.override_rate(row, now_ms - change.days * DAY_MS, change.funding_rate)
    column = now_ms // DAY_MS - exchange.market.history.first_day
    exchange.market.history.open_interest[row, column:] *= change.open_interest_factor
    if change.volume_factor != 1.0 or change.range_factor != 1.0:
        _rewrite_past(exchange, row, now_ms, change)
    if change.price_factor != 1.0 or change.volume_factor != 1.0:
        scale_from_now_on(exchange, row, now_ms, change.price_factor, change.volume_factor)
    exchange.forget_answers()


def _scaled(
    bars: Bars, at: tuple[int | slice, ...], price: float, volume: float, unit: float = 1.0
) -> None:
    """Multiply prices and volumes of some bars in place, rounded to whole ticks and lots.

    A price of another `unit` is not worth more: turnover follows price over unit.
    """
    bars.ticks[at] = np.maximum(np.rint(bars.ticks[at] * price), 1).astype(np.int64)
    lots = bars.lots[at]
    bars.lots[at] = np.where(lots > 0, np.maximum(np.rint(lots * volume), 1), 0)
    bars.turnover[at] *= volume * price / unit


def _rewrite_past(exchange: LocalExchange, row: int, now_ms: int, change: MarketOverride) -> None:
    """Change volume and range of the last closed days."""
    market, today = exchange.market, now_ms // DAY_MS
    end = today - market.history.first_day
    span = slice(max(0, end - change.days), end)
    daily = market.history.daily
    _scaled(daily, (row, span), 1.0, change.volume_factor)
    body = daily.ticks[row, span]
    top, bottom = body[:, [OPEN, CLOSE]].max(axis=1), body[:, [OPEN, CLOSE]].min(axis=1)
    extra = np.rint((body[:, HIGH] - body[:, LOW]) * (change.range_factor - 1.0) / 2.0)
    body[:, HIGH] = np.maximum(body[:, HIGH] + extra, top)
    body[:, LOW] = np.maximum(np.minimum(body[:, LOW] - extra, bottom), 1)
    for day in range(today - change.days, today):
        market.forget(day)


def scale_from_now_on(
    exchange: LocalExchange,
    row: int,
    now_ms: int,
    price: float,
    volume: float = 1.0,
    unit: float = 1.0,
) -> None:
    """Multiply the rest of this hour, of this day and all days after by the factors.

    `unit` is the part of `price` that only changes the unit of the price.
    """
    market, history = exchange.market, exchange.market.history
    hour, day = now_ms // HOUR_MS, now_ms // DAY_MS
    minute = now_ms // 60_000 % 60
    market.pin(hour)
    minutes, hours, column = market.minutes(hour), market.hours(day), day - history.first_day
    if minute < 59:
        _scaled(minutes, (row, slice(minute + 1, 60)), price, volume, unit)
        _put(hours, row, hour % 24, aggregate_bars(minutes.take(slice(row, row + 1))))
    _scaled(hours, (row, slice(hour % 24 + 1, 24)), price, volume, unit)
    _put(history.daily, row, column, aggregate_bars(hours.take(slice(row, row + 1))))
    _scaled(history.daily, (row, slice(column + 1, history.days)), price, volume, unit)
    for later in range((hour % 24) + 1, 24):
        market.forget_minutes(day * 24 + later)
    market.changed()


def _put(bars: Bars, row: int, column: int, one: Bars) -> None:
    bars.ticks[row, column] = one.ticks[0]
    bars.lots[row, column] = one.lots[0]
    bars.turnover[row, column] = one.turnover[0]
