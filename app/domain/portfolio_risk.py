"""Risk of the members at their weights of today, over the days on which all of them traded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.domain.market import Floats
from app.domain.measures import DAYS_A_YEAR, MARKET
from app.domain.panel import Panel
from app.domain.performance import Figures, figures
from app.domain.value_at_risk import Method, var_cvar

LEAST: Final = 30  # common days below which no risk is spoken of
LEVELS: Final = (0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Tail:
    """One-day loss as a positive fraction of equity; None where not defined."""

    level: float
    var: float | None
    cvar: float | None


@dataclass(frozen=True, slots=True)
class Risk:
    """None where not defined; `reason` says why."""

    observations: int  # common days
    volatility: float | None  # annualised
    beta: float | None  # to BTC
    contributions: Mapping[str, float]  # shares of the variance by symbol, adding up to 1
    tails: tuple[Tail, ...]
    figures: Figures
    reason: str | None


def risk_of(daily: Panel | None, weights: Mapping[str, float]) -> Risk:
    """Of `weights` (fractions of equity by symbol; the rest is cash), filtered historical tails.

    A day counts only if every symbol has a return on it: no return is filled in.
    """
    held = {symbol: weight for symbol, weight in weights.items() if weight > 0.0}
    columns = {} if daily is None else {name: at for at, name in enumerate(daily.symbols)}
    missing = next((symbol for symbol in held if symbol not in columns), None)
    if not held:
        return _unknown("nothing is held")
    if daily is None or missing is not None:
        return _unknown(f"{missing} has no daily candles")
    simple = daily.close[1:] / daily.close[:-1] - 1.0
    own = simple[:, [columns[symbol] for symbol in held]]
    whole = np.isfinite(own).all(axis=1)
    own, shares = own[whole], np.array(list(held.values()))
    total = own @ shares
    if len(total) < LEAST:
        return _unknown(f"{len(total)} common days, {LEAST} are needed", figures(total))
    market = simple[whole, columns[MARKET]] if MARKET in columns else np.full(len(total), np.nan)
    return Risk(
        observations=len(total),
        volatility=float(np.std(total, ddof=1)) * math.sqrt(DAYS_A_YEAR),
        beta=beta(total, market),
        contributions=dict(zip(held, _contributions(own, shares), strict=False)),
        tails=tuple(Tail(level, *var_cvar(total, level, Method.FILTERED)) for level in LEVELS),
        figures=figures(total),
        reason=None,
    )


def beta(returns: Floats, market: Floats) -> float | None:
    """Slope on the market's returns, (T,) each, NaN left out; None below 30 common days."""
    common = np.isfinite(returns) & np.isfinite(market)
    if common.sum() < LEAST:
        return None
    own, base = returns[common] - returns[common].mean(), market[common] - market[common].mean()
    spread = float(base @ base)
    return float(own @ base) / spread if spread > 0.0 else None


def _contributions(returns: Floats, shares: Floats) -> list[float]:
    """w_i (S w)_i / w'S w, (N,); empty where nothing moved."""
    covariance = np.atleast_2d(np.cov(returns, rowvar=False))
    parts = shares * (covariance @ shares)
    variance = float(parts.sum())
    return (parts / variance).tolist() if variance > 0.0 else []


def _unknown(reason: str, made: Figures | None = None) -> Risk:
    nothing = figures(np.empty(0)) if made is None else made
    tails = tuple(Tail(level, None, None) for level in LEVELS)
    return Risk(nothing.observations, None, None, {}, tails, nothing, reason)
