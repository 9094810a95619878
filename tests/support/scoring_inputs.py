"""Random but plausible scoring inputs: a market factor, betas, books, funding, open interest."""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from app.configuration.domain.sections import Source
from app.market.domain.models import Book, CandleSeries, Floats, Funding, Interval, Level
from app.market.domain.panel import Panel, ScoringInputs
from app.market.domain.trade_flow import TradeFlow

DAY_MS = Interval.DAY.ms
HOUR_MS = Interval.HOUR.ms
AS_OF_MS = 1_750_000_000_000 // DAY_MS * DAY_MS + 10 * HOUR_MS + 5_000
HALF_LIVES_S: Mapping[Source, float] = {
    Source.CONTRACTS: 180.0,
    Source.TICKERS: 180.0,
    Source.BOOKS: 900.0,
    Source.FUNDING: 10_800.0,
    Source.DAILY_CANDLES: 259_200.0,
    Source.HOURLY_CANDLES: 10_800.0,
}


def names(count: int) -> tuple[str, ...]:
    return ("BTCUSDT", *(f"C{index:03d}USDT" for index in range(1, count)))[:count]


def walk(
    rng: np.random.Generator, bars: int, interval: Interval, end_ms: int, scale: float, beta: float,
    market: Floats,
) -> CandleSeries:  # fmt: skip
    """Closed candles up to `end_ms`; `market` are the factor's returns."""
    moves = beta * market[-bars:] + rng.standard_t(4, bars) * scale
    close = float(rng.uniform(0.01, 100.0)) * np.exp(np.cumsum(moves))
    open_ = np.concatenate([close[:1], close[:-1]])
    wick = np.abs(rng.normal(0.0, scale, (2, bars)))
    last = end_ms // interval.ms * interval.ms - interval.ms
    turnover = rng.uniform(5e6, 5e8) * np.exp(rng.normal(0.0, 0.4, bars))
    return CandleSeries(
        opened_ms=np.arange(last - (bars - 1) * interval.ms, last + 1, interval.ms, dtype=np.int64),
        open=open_,
        high=np.maximum(open_, close) * np.exp(wick[0]),
        low=np.minimum(open_, close) * np.exp(-wick[1]),
        close=close,
        volume=turnover / close,
        turnover=turnover,
    )


def book(rng: np.random.Generator, symbol: str, mid: float, worth: float) -> Book:
    """Twenty levels a side around `mid`, each worth about `worth` of quote currency."""
    tick = mid * float(rng.uniform(0.5e-4, 4e-4))

    def side(sign: int) -> tuple[Level, ...]:
        prices = [mid + sign * tick * (step + 0.5) for step in range(20)]
        return tuple(
            Level(Decimal(f"{price:.10g}"), 1 + int(worth * float(rng.uniform(0.2, 2.0)) / price))
            for price in prices
        )

    return Book(symbol, 1, side(-1), side(+1), AS_OF_MS)


def settlements(rng: np.random.Generator, as_of_ms: int, days: int = 8) -> tuple[Funding, ...]:
    step = 8 * HOUR_MS
    last = as_of_ms // step * step
    level = float(rng.normal(1e-4, 2e-4))
    return tuple(
        Funding(last - back * step, Decimal(f"{rng.normal(level, 5e-5):.8f}"), step)
        for back in range(days * 3 - 1, -1, -1)
    )


def make_inputs(
    count: int = 40, *, seed: int = 1, daily: int = 200, hourly: int = 300,
    excluded: Mapping[str, str] | None = None,
) -> ScoringInputs:  # fmt: skip
    """Complete inputs of `count` symbols; the first is BTCUSDT, the market itself."""
    rng = np.random.default_rng(seed)
    symbols = names(count)
    days = rng.standard_t(4, daily) * 0.02
    hours = rng.standard_t(4, hourly) * 0.004
    betas = np.concatenate([[1.0], rng.uniform(0.3, 1.8, count - 1)])
    noise = np.concatenate([[0.0005], rng.uniform(0.005, 0.05, count - 1)])
    slow = {
        symbol: walk(rng, daily, Interval.DAY, AS_OF_MS, noise[i], betas[i], days)
        for i, symbol in enumerate(symbols)
    }
    fast = {
        symbol: walk(rng, hourly, Interval.HOUR, AS_OF_MS, noise[i] / 5, betas[i], hours)
        for i, symbol in enumerate(symbols)
    }
    mids = np.array([slow[symbol].close[-1] for symbol in symbols])
    half_spread = mids * rng.uniform(0.2e-4, 5e-4, count)
    times = np.arange(AS_OF_MS - 8 * DAY_MS, AS_OF_MS, 6 * HOUR_MS, dtype=np.int64)
    interest = 1e6 * np.exp(np.cumsum(rng.normal(0.0, 0.05, (len(times), count)), axis=0))
    # Of a generator of its own: the other values stay as they are.
    flow = np.random.default_rng(seed).integers(1, 1_000, (4, count)).astype(np.float64)
    return ScoringInputs(
        symbols=symbols,
        as_of_ms=AS_OF_MS,
        daily=Panel.from_series(slow, symbols, Interval.DAY, AS_OF_MS, daily),
        hourly=Panel.from_series(fast, symbols, Interval.HOUR, AS_OF_MS, hourly),
        bid=mids - half_spread,
        ask=mids + half_spread,
        multiplier=np.ones(count),
        books=tuple(
            book(rng, symbol, float(mids[i]), float(rng.uniform(1e3, 1e5)))
            for i, symbol in enumerate(symbols)
        ),
        funding=tuple(settlements(rng, AS_OF_MS) for _ in symbols),
        open_interest_ms=times,
        open_interest=interest,
        ages_s={source: rng.uniform(0.0, HALF_LIVES_S[source] / 3, count) for source in Source},
        half_lives_s=HALF_LIVES_S,
        excluded=dict(excluded or {}),
        flow=TradeFlow(*flow),
    )
