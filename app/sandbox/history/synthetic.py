"""Realistic synthetic market: fat-tailed factors, volatility clusters, jumps, Zipf turnover."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from app.sandbox.history.bars import CLOSE, HIGH, LOW, OPEN, Bars, DailyHistory, Floats, Ints
from app.sandbox.history.universe import (
    DAY_MS,
    HOUR_MS,
    ListedContract,
    full_universe,
    select_contracts,
)

PAST_DAYS = 440
FUTURE_DAYS = 500
SECTORS = 12


@dataclass(frozen=True, slots=True)
class Loadings:
    """Exposures of each coin (N,) to the factors, and its own daily volatility."""

    market: Floats
    alt: Floats
    sector: Ints
    sector_load: Floats
    own: Floats
    jumps: Floats


def _student(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Unit-variance draws of Student's t with 4 degrees of freedom, cut at 7."""
    draws: Floats = np.clip(rng.standard_t(4, shape) / np.sqrt(2.0), -7.0, 7.0)
    return draws


def _clustered(draws: Floats, volatility: Floats, reaction: float = 0.13) -> Floats:
    """Turn unit draws (D, K) into returns with GARCH(1,1) variance around `volatility` (K,)."""
    memory = 0.97 - reaction
    base = volatility**2
    variance = base.copy()
    returns = np.empty_like(draws)
    for day in range(draws.shape[0]):
        returns[day] = np.sqrt(variance) * draws[day]
        variance = base * (1.0 - reaction - memory) + variance * memory
        variance = variance + reaction * np.minimum(returns[day] ** 2, 12.0 * base)
    return returns


def _loadings(listings: list[ListedContract], rng: np.random.Generator) -> Loadings:
    """Exposures that grow with the rank; stable coins and metals hardly move."""
    count = len(listings)
    rank = np.array([item.rank for item in listings], float)
    depth = np.clip(np.log(rank) / np.log(541.0), 0.0, 1.0)
    own = (0.009 + 0.026 * depth**1.5) * np.exp(rng.normal(0.0, 0.43, count))
    loads = Loadings(
        market=np.clip(0.95 + 0.35 * depth + rng.normal(0.0, 0.18, count), 0.3, 1.8),
        alt=np.clip(0.35 + 0.75 * depth + rng.normal(0.0, 0.25, count), 0.0, 1.9),
        sector=rng.integers(0, SECTORS, count),
        sector_load=np.clip(rng.normal(0.9, 0.35, count), 0.0, 1.8),
        own=own,
        jumps=0.004 + 0.012 * depth,
    )
    for index, item in enumerate(listings):
        if item.base == "XBT":
            loads.market[index], loads.alt[index], loads.own[index] = 1.0, 0.0, 0.004
            loads.sector_load[index], loads.jumps[index] = 0.0, 0.0
        if item.nature in ("stable", "metal"):
            still = item.nature == "stable"
            loads.market[index] = 0.0 if still else 0.05
            loads.alt[index] = loads.sector_load[index] = loads.jumps[index] = 0.0
            loads.own[index] = 0.0004 if still else 0.011
    return loads


def _returns(loads: Loadings, days: int, rng: np.random.Generator) -> Floats:
    """Daily log returns (D, N) of coins with these loadings."""
    count = loads.own.size
    market = _clustered(_student(rng, (days, 1)), np.array([0.027]))
    alt = _clustered(_student(rng, (days, 1)), np.array([0.021]))
    sectors = _clustered(_student(rng, (days, SECTORS)), np.full(SECTORS, 0.012))
    own = _clustered(_student(rng, (days, count)), loads.own, 0.12)
    drift = np.empty((days, count))
    state = rng.normal(0.0, 1.0, count)
    for day in range(days):
        state = 0.97 * state + np.sqrt(1.0 - 0.97**2) * rng.normal(0.0, 1.0, count)
        drift[day] = 0.07 * loads.own * state
    jump = (rng.random((days, count)) < loads.jumps) * rng.normal(0.02, 0.16, (days, count))
    total: Floats = (
        market * loads.market
        + alt * loads.alt
        + sectors[:, loads.sector] * loads.sector_load
        + own
        + drift
        + np.clip(jump, -0.6, 0.6)
    )
    # Mean reversion bounds long walks: no coin goes to zero or explodes in two years.
    answer: Floats = total - 0.4 * total.var(axis=0)
    return answer


def _log_prices(listings: list[ListedContract], returns: Floats) -> Floats:
    """Log closes (D, N): each coin at its usual price on the day before the start."""
    log = np.cumsum(returns, axis=0)
    log += np.log([item.price for item in listings]) - log[PAST_DAYS - 1]
    where = {item.symbol: index for index, item in enumerate(listings)}
    for index, item in enumerate(listings):
        if item.nature == "stable":
            offset = log[:, index] - log[:, index].mean()
            log[:, index] = np.log(item.price) + 0.0015 * np.tanh(offset / 0.004)
        if item.driver is not None:
            log[:, index] = log[:, where[item.driver]]
        if item.nature == "ratio":
            log[:, index] = log[:, where["ETHUSDTM"]] - log[:, where["XBTUSDTM"]]
    return log


def _daily_turnover(
    listings: list[ListedContract], returns: Floats, rng: np.random.Generator
) -> Floats:
    """USD a day (D, N): the usual level, its slow trend, and more on days of large moves."""
    days, count = returns.shape
    trend = np.empty((days, count))
    state = rng.normal(0.0, 1.0, count)
    for day in range(days):
        state = 0.96 * state + 0.28 * rng.normal(0.0, 1.0, count)
        trend[day] = state
    whole = 0.2 * np.cumsum(rng.normal(0.0, 0.1, (days, 1)), axis=0)
    surprise = np.abs(returns) / returns.std(axis=0)
    level = np.log([item.turnover for item in listings]) - 0.10
    log = level + 0.28 * trend + 0.35 * surprise + 0.12 * rng.normal(0.0, 1.0, (days, count))
    anchored: Floats = np.exp(log + whole - whole[PAST_DAYS - 1])
    return anchored


def _bars(
    listings: list[ListedContract], log: Floats, usd: Floats, rng: np.random.Generator
) -> Bars:
    """Daily candles (N, D) on the tick grid around the log closes."""
    before = np.vstack([log[:1], log[:-1]])
    spread = np.abs(log - before) * 0.35 + np.median(np.abs(log - before), axis=0) * 0.5 + 1e-5
    up = np.abs(rng.normal(0.0, 1.0, log.shape)) * spread
    down = np.abs(rng.normal(0.0, 1.0, log.shape)) * spread
    scale = 10.0 ** np.array([item.tick_digits for item in listings])
    ticks = np.empty((log.shape[1], log.shape[0], 4), np.int64)
    for column, value in (
        (OPEN, before),
        (CLOSE, log),
        (HIGH, np.maximum(before, log) + up),
        (LOW, np.minimum(before, log) - down),
    ):
        ticks[:, :, column] = np.maximum(np.rint(np.exp(value) * scale), 2.0).T
    mean = (ticks.sum(axis=2) / 4.0) / scale[:, None]
    inverse = np.array([item.inverse for item in listings])[:, None]
    lot = np.array([item.lot for item in listings])[:, None]
    lots = np.maximum(np.rint(usd.T / np.where(inverse, lot, lot * mean)), 1.0)
    turnover = np.where(inverse, lots * lot / mean, lots * lot * mean)
    return Bars(ticks, lots.astype(np.int64), np.round(turnover, 8))


def daily_premium(returns: Floats, rng: np.random.Generator) -> Floats:
    """Daily premium of the perpetual (N, D): the last days' return plus noise."""
    days, count = returns.shape
    recent = np.copy(returns)
    for lag in range(1, 4):
        recent[lag:] += returns[:-lag]
    premium = np.empty((days, count))
    state = rng.normal(0.0, 1.5e-4, count)
    for day in range(days):
        state = 0.82 * state + 0.18 * 0.0035 * recent[day] + rng.normal(0.0, 7e-5, count)
        premium[day] = state
    return premium.T.copy()


def swinging_interest(lots: Ints, now: int, rng: np.random.Generator) -> Floats:
    """Open interest (N, D) in lots: a slowly varying share of a usual day's volume."""
    count, days = lots.shape
    share = 0.25 + 0.5 * rng.random(count)
    swell = np.exp(np.cumsum(rng.normal(0.0, 0.03, (count, days)), axis=1))
    usual = np.median(lots[:, max(0, now - 60) : now], axis=1)
    answer: Floats = np.maximum(usual * share, 10.0)[:, None] * swell / swell[:, now, None]
    return answer


def _silence(bars: Bars, first_bar: Ints, last_bar: Ints) -> None:
    """Set flat prices without trades before the listing and after the end of a contract."""
    for row in range(bars.lots.shape[0]):
        first, last = int(first_bar[row]), int(last_bar[row])
        bars.ticks[row, :first] = bars.ticks[row, first, OPEN]
        bars.ticks[row, last + 1 :] = bars.ticks[row, last, CLOSE]
        bars.lots[row, :first] = 0
        bars.lots[row, last + 1 :] = 0
        bars.turnover[row, :first] = 0.0
        bars.turnover[row, last + 1 :] = 0.0


def synthetic_history(seed: int, now_ms: int, contracts: int | None) -> DailyHistory:
    """Generate a market from seed and start.

    `contracts` limits the listed contracts and does not change their prices.
    """
    whole = whole_market(seed, now_ms - now_ms % HOUR_MS)
    keep = np.array(select_contracts(list(whole.listings), contracts))
    # The selected rows are copies: overrides of one exchange do not reach the next.
    return DailyHistory(
        listings=tuple(whole.listings[index] for index in keep),
        first_day=whole.first_day,
        start_ms=now_ms,
        daily=whole.daily.take(keep),
        premium=whole.premium[keep],
        open_interest=whole.open_interest[keep],
        first_bar=whole.first_bar[keep],
        last_bar=whole.last_bar[keep],
        sway=whole.sway[keep],
    )


@lru_cache(maxsize=1)
def whole_market(seed: int, now_ms: int) -> DailyHistory:
    """All contracts from the start of an hour on; the last result is cached."""
    listings = full_universe(now_ms)
    rng = np.random.default_rng([seed, 1])
    days = PAST_DAYS + 1 + FUTURE_DAYS
    loads = _loadings(listings, rng)
    log = _log_prices(listings, _returns(loads, days, rng))
    returns = np.diff(log, axis=0, prepend=log[:1])
    usd = _daily_turnover(listings, np.where(returns == 0.0, 1e-12, returns), rng)
    bars = _bars(listings, log, usd, rng)
    premium = daily_premium(returns, rng)
    today = now_ms // DAY_MS
    first_day = today - PAST_DAYS
    first_bar = np.array([max(0, item.first_open_ms // DAY_MS - first_day) for item in listings])
    last_bar = np.full(len(listings), days - 1)
    for row, item in enumerate(listings):
        if item.expire_ms is not None:
            last_bar[row] = min(days - 1, item.expire_ms // DAY_MS - first_day)
        if item.status == "Paused":
            last_bar[row] = PAST_DAYS - 4
    _silence(bars, first_bar, last_bar)
    interest = swinging_interest(bars.lots, PAST_DAYS, rng)
    total = returns.std(axis=0)
    sway = np.clip(0.025 * loads.market / np.maximum(total, 1e-6), 0.0, 0.95)
    return DailyHistory(
        listings=tuple(listings),
        first_day=first_day,
        start_ms=now_ms,
        daily=bars,
        premium=premium,
        open_interest=interest,
        first_bar=first_bar,
        last_bar=last_bar,
        sway=sway,
    )
