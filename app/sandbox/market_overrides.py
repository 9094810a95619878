"""Manual market changes of one contract, applied to the one price path to stay consistent."""

from dataclasses import dataclass

import numpy as np

from app.sandbox.exchange import LocalExchange
from app.sandbox.history.bars import CLOSE, HIGH, LOW, OPEN, Bars, aggregate_bars
from app.sandbox.history.universe import DAY_MS, HOUR_MS


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
        exchange.funding.plant(row, now_ms - change.days * DAY_MS, change.funding_rate)
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
