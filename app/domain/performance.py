"""Figures since inclusion: of one member, and of the members together; unknown is None."""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

import numpy as np

from app.domain.exact import EXACT, net
from app.domain.market import DAYS_A_YEAR, Floats

SUFFICIENT: Final = 30  # observations from which on the figures say something
_LEAST = 2  # observations below which no figure of a series is given


@dataclass(frozen=True, slots=True)
class SinceInclusion:
    """Fractions; the drawdown is a positive magnitude, the volatility is annualised."""

    performance: float | None
    max_drawdown: float | None
    volatility: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a series of daily simple returns; None where a figure is not defined."""

    observations: int
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    max_drawdown: float | None
    win_rate: float | None  # share of days with a gain
    profit_factor: float | None  # gains over losses
    sharpe_error: float | None = None  # standard error of the Sharpe ratio, annualised like it

    @property
    def is_sufficient(self) -> bool:
        """Whether there are observations enough to conclude anything."""
        return self.observations >= SUFFICIENT


@dataclass(frozen=True, slots=True)
class BookedResult:
    """A realised result as the trading engine reports it; amounts in the settlement currency."""

    trade_id: str
    symbol_id: str
    symbol: str
    contract: str
    pnl: Decimal  # of prices alone
    currency: str
    fees: Decimal  # paid; a rebate is negative
    funding: Decimal  # received; paid is negative
    occurred_at: datetime

    @property
    def net(self) -> Decimal:
        """What was realised after fees and funding."""
        return net(self.pnl, self.funding, self.fees)


@dataclass(frozen=True, slots=True)
class BookedTotal:
    """The sum of booked results of one symbol in one currency, to the last digit."""

    symbol_id: str
    currency: str
    results: int
    pnl: Decimal
    fees: Decimal
    funding: Decimal

    @classmethod
    def of(cls, one: BookedResult) -> "BookedTotal":
        return cls(one.symbol_id, one.currency, 1, one.pnl, one.fees, one.funding)

    def plus(self, one: BookedResult) -> "BookedTotal":
        return replace(
            self,
            results=self.results + 1,
            pnl=EXACT.add(self.pnl, one.pnl),
            fees=EXACT.add(self.fees, one.fees),
            funding=EXACT.add(self.funding, one.funding),
        )

    @property
    def net(self) -> Decimal:
        """What was realised after fees and funding."""
        return net(self.pnl, self.funding, self.fees)


@dataclass(frozen=True, slots=True)
class Trade:
    """A booked result with its place in the history."""

    result: BookedResult
    event_seq: int
    booked_at: datetime


def since_inclusion(
    price: float | None, mark: float | None, closes: Floats, bars_a_year: float
) -> SinceInclusion:
    """`price` when it came in, `mark` now, closes (T,) of the bars between; NaN bars are left out.

    Drawdown and volatility need two closes; both prices take part in the drawdown if known.
    """
    known = closes[np.isfinite(closes) & (closes > 0.0)]
    performance = None
    if price is not None and mark is not None and price > 0.0:
        performance = mark / price - 1.0
    if len(known) < _LEAST:
        return SinceInclusion(performance, None, None)
    ends = ([price] if price else [], [mark] if mark else [])
    path = np.concatenate([np.array(ends[0]), known, np.array(ends[1])])
    returns = np.diff(np.log(known))
    volatility = None
    if len(returns) >= _LEAST:
        volatility = float(np.std(returns, ddof=1) * math.sqrt(bars_a_year))
    return SinceInclusion(performance, _fall(path), volatility)


def figures(returns: Floats) -> Figures:
    """Sharpe, Sortino, Calmar and the like of daily returns (T,), annualised with 365, rf = 0.

    Source: QUANT section 10; equity for the drawdown includes the starting 1.
    """
    count = len(returns)
    if count < _LEAST:
        return Figures(count, None, None, None, None, None, None)
    mean, spread = float(returns.mean()), float(np.std(returns, ddof=1))
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    fall = _fall(equity)
    growth = float(equity[-1]) ** (DAYS_A_YEAR / count) - 1.0
    gains, losses = returns[returns > 0.0], returns[returns < 0.0]
    return Figures(
        observations=count,
        sharpe=_ratio(mean * math.sqrt(DAYS_A_YEAR), spread),
        sortino=_ratio(mean * math.sqrt(DAYS_A_YEAR), downside),
        calmar=_ratio(growth, fall),
        max_drawdown=fall,
        win_rate=len(gains) / count,
        profit_factor=_ratio(float(gains.sum()), -float(losses.sum())),
        sharpe_error=_sharpe_error(returns - mean, _ratio(mean, spread)),
    )


def ratio_error(ratio: float, observations: int, skewness: float, kurtosis: float) -> float | None:
    """Standard error of a Sharpe ratio per period; `kurtosis` is raw, 3 of the normal.

    None where the moments allow none. Source: QUANT section 10.
    """
    inside = 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    return math.sqrt(inside / (observations - 1)) if inside >= 0.0 and observations > 1 else None


def _sharpe_error(away: Floats, ratio: float | None) -> float | None:
    if ratio is None:
        return None
    variance = float(np.mean(away**2))
    skewness = float(np.mean(away**3)) / variance**1.5
    kurtosis = float(np.mean(away**4)) / variance**2
    error = ratio_error(ratio, len(away), skewness, kurtosis)
    return None if error is None else error * math.sqrt(DAYS_A_YEAR)


def _fall(path: Floats) -> float:
    """The deepest fall from an earlier high, as a positive fraction; 0 if it never fell."""
    peak = np.maximum.accumulate(path)
    return float(np.max(1.0 - path / peak))


def _ratio(above: float, below: float) -> float | None:
    # A spread that is only rounding noise would make any mean look enormous.
    return above / below if below > 1e-12 else None
