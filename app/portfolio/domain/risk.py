"""Risk of the members at current weights, over the days on which all of them traded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from app.foundation.decimal_math import to_millionths
from app.market.domain.models import DAYS_A_YEAR, Floats
from app.market.domain.panel import Panel
from app.market.domain.return_statistics import MARKET
from app.market.domain.segments import contiguous, simple_returns
from app.portfolio.domain.returns import Figures, compute_figures
from app.portfolio.domain.value_at_risk import Method, count_exceptions, run_kupiec_test, var_cvar

LEAST: Final = 30  # common days needed for a risk figure
LEVELS: Final = (0.95, 0.99)
WINDOW: Final = 90  # returns behind the VaR of a past day
_SIGNIFICANT: Final = 0.05


@dataclass(frozen=True, slots=True)
class TailRisk:
    """One-day loss as a positive fraction of equity; None where not defined."""

    level: float
    var: float | None
    cvar: float | None
    backtest: "TailBacktest | None" = None  # None without a day that can be tested


@dataclass(frozen=True, slots=True)
class TailBacktest:
    """Days whose loss exceeded the VaR of the days before; no day is proxied.

    `p_value` (Kupiec) is the probability of a count at least as wrong if the VaR is right.
    """

    window: int  # days behind each VaR
    days: int  # tested
    exceptions: int
    expected: float
    likelihood_ratio: float | None
    p_value: float | None

    @property
    def is_rejected(self) -> bool | None:
        """True if the VaR is rejected at 5 %."""
        if self.p_value is None:
            return None
        return to_millionths(self.p_value) < to_millionths(_SIGNIFICANT)


@dataclass(frozen=True, slots=True)
class Risk:
    """None where not defined; `reason` says why.

    The tails also use days with proxied returns. `proxied` is the number of days by symbol on
    which a young member's return was derived from the market's.
    """

    observations: int  # common days
    volatility: float | None  # annualised
    beta: float | None  # to BTC
    contributions: Mapping[str, float]  # shares of the variance by symbol, adding up to 1
    tails: tuple[TailRisk, ...]
    hypothetical: Figures  # of these weights over the past: not earned
    reason: str | None
    proxied: Mapping[str, int] = field(default_factory=dict)


def compute_risk(daily: Panel | None, weights: Mapping[str, float]) -> Risk:
    """Risk of `weights` (fractions of equity by symbol; the rest is cash).

    A day counts only if every symbol has a return on it. The tails are filtered historical, with
    the days before a young member's first proxied.
    """
    held = {symbol: weight for symbol, weight in weights.items() if weight > 0.0}
    if not held:
        return _unknown("nothing is held")
    missing = _missing(daily, held)
    if daily is None or missing is not None:
        return _unknown(f"{missing} has no daily candles")
    own, market = _returns(daily, held)
    whole, shares = np.isfinite(own).all(axis=1), np.array(list(held.values()))
    longer, proxied = _proxied(own, market, tuple(held))
    own, market = own[whole], market[whole]
    total = own @ shares
    tails = _tails(longer @ shares, total)
    if len(total) < LEAST:
        why = f"{len(total)} common days, {LEAST} are needed"
        return replace(_unknown(why, compute_figures(total)), tails=tails, proxied=proxied)
    return Risk(
        observations=len(total),
        volatility=float(np.std(total, ddof=1)) * math.sqrt(DAYS_A_YEAR),
        beta=beta(total, market),
        contributions=dict(zip(held, _contributions(own, shares), strict=False)),
        tails=tails,
        hypothetical=compute_figures(total),
        reason=None,
        proxied=proxied,
    )


def value_at_risk(daily: Panel | None, weights: Mapping[str, float], level: float) -> float | None:
    """One-day loss exceeded on a share 1 - level of the days, filtered historical, as a fraction.

    The returns are those of the tails of `compute_risk`; 0 if nothing is held, None if unknown.
    """
    held = {symbol: weight for symbol, weight in weights.items() if weight > 0.0}
    if not held:
        return 0.0
    if daily is None or _missing(daily, held) is not None:
        return None
    longer, _ = _proxied(*_returns(daily, held), tuple(held))
    loss, _ = var_cvar(longer @ np.array(list(held.values())), level, Method.FILTERED)
    return None if loss is None else max(loss, 0.0)


def _missing(daily: Panel | None, held: Mapping[str, float]) -> str | None:
    known = () if daily is None else daily.symbols
    return next((symbol for symbol in held if symbol not in known), None)


def _returns(daily: Panel, held: Mapping[str, float]) -> tuple[Floats, Floats]:
    """Simple returns of the symbols held (T, N) and of the market (T,), NaN where unknown."""
    columns = {name: at for at, name in enumerate(daily.symbols)}
    simple = simple_returns(contiguous(daily))
    market = simple[:, columns[MARKET]] if MARKET in columns else np.full(len(simple), np.nan)
    return simple[:, [columns[symbol] for symbol in held]], market


def _proxied(
    own: Floats, market: Floats, symbols: tuple[str, ...]
) -> tuple[Floats, Mapping[str, int]]:
    """Returns (T, N) with the days before each symbol's first filled in; filled days by symbol.

    A filled return is beta * market plus a draw from the symbol's residuals, seeded by its name.
    Symbols with fewer than 30 returns common with the market are not filled, nor are later gaps.
    Incomplete days are left out. Source: QUANT section 9.
    """
    filled, days = own.copy(), dict[str, int]()
    for at, symbol in enumerate(symbols):
        known = np.isfinite(own[:, at])
        before = (np.cumsum(known) == 0) & np.isfinite(market)
        slope = beta(own[:, at], market)
        if slope is None or not before.any():
            continue
        residuals = (own[:, at] - slope * market)[known & np.isfinite(market)]
        drawn = np.random.default_rng(int.from_bytes(symbol.encode(), "big"))
        days[symbol] = int(before.sum())
        filled[before, at] = slope * market[before] + drawn.choice(residuals, days[symbol])
    return filled[np.isfinite(filled).all(axis=1)], days


def _tails(returns: Floats, whole: Floats) -> tuple[TailRisk, ...]:
    """Tail risk of `returns` (T,), with a backtest on the complete days `whole`."""
    return tuple(
        TailRisk(level, *var_cvar(returns, level, Method.FILTERED), _backtest(whole, level))
        for level in LEVELS
    )


def _backtest(returns: Floats, level: float) -> TailBacktest | None:
    beyond, days = count_exceptions(returns, level, WINDOW, Method.FILTERED)
    share = round(1.0 - level, 12)
    ratio, p_value = run_kupiec_test(beyond, days, share)
    return TailBacktest(WINDOW, days, beyond, days * share, ratio, p_value) if days else None


def beta(returns: Floats, market: Floats) -> float | None:
    """Slope on the market's returns, (T,) each, NaN left out; None below 30 common days."""
    common = np.isfinite(returns) & np.isfinite(market)
    if common.sum() < LEAST:
        return None
    own, base = returns[common] - returns[common].mean(), market[common] - market[common].mean()
    spread = float(base @ base)
    return float(own @ base) / spread if spread > 0.0 else None


def _contributions(returns: Floats, shares: Floats) -> list[float]:
    """Risk contributions w_i (S w)_i / w'S w, (N,); empty without any variance."""
    covariance = np.atleast_2d(np.cov(returns, rowvar=False))
    parts = shares * (covariance @ shares)
    variance = float(parts.sum())
    return (parts / variance).tolist() if variance > 0.0 else []


def _unknown(reason: str, made: Figures | None = None) -> Risk:
    nothing = compute_figures(np.empty(0)) if made is None else made
    tails = tuple(TailRisk(level, None, None) for level in LEVELS)
    return Risk(nothing.observations, None, None, {}, tails, nothing, reason)
