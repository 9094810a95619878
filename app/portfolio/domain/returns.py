"""Figures since inclusion, of one member and of all together; None means unknown."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

import numpy as np

from app.foundation.decimal_math import EXACT, net
from app.market.domain.models import DAYS_A_YEAR, Floats

SUFFICIENT: Final = 30  # observations needed for the ratios
_MIN_OBSERVATIONS = 2  # below it no figure of a series is given


@dataclass(frozen=True, slots=True)
class SinceInclusion:
    """Fractions; the drawdown is a positive magnitude, the volatility is annualised."""

    performance: float | None
    max_drawdown: float | None
    volatility: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of an equity curve; None where a figure is not defined.

    Growth and drawdown use all known points. The other figures, called ratios, use the
    returns and None below `SUFFICIENT` of them.
    """

    observations: int
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    max_drawdown: float | None
    win_rate: float | None  # share of the returns that are gains
    profit_factor: float | None  # gains over losses
    sharpe_standard_error: float | None = (
        None  # standard error of the Sharpe ratio, annualised like it
    )
    growth: float | None = None  # from the first known point to the last, as a fraction

    @property
    def is_sufficient(self) -> bool:
        """True if there are enough observations for the ratios."""
        return self.observations >= SUFFICIENT

    @property
    def reason(self) -> str | None:
        """Reason that no ratio is known."""
        if self.is_sufficient:
            return None
        return f"{self.observations} observations, {SUFFICIENT} are needed"


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
        """Realised result after fees and funding."""
        return net(self.pnl, self.funding, self.fees)


@dataclass(frozen=True, slots=True)
class BookedTotal:
    """Exact sum of the booked results of one symbol in one currency."""

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
        """Realised result after fees and funding."""
        return net(self.pnl, self.funding, self.fees)


@dataclass(frozen=True, slots=True)
class Trade:
    """A booked result with its place in the history."""

    result: BookedResult
    event_seq: int
    booked_at: datetime


@dataclass(frozen=True, slots=True)
class BookedSinceInclusion:
    """Booked results of the members from their inclusion on, by symbol id.

    `included_at` holds the memberships that the totals are about, `seq` the newest booking in them.
    """

    totals: Mapping[str, BookedTotal]
    included_at: Mapping[str, datetime]
    seq: int = 0

    def plus(self, trades: Iterable[Trade]) -> "BookedSinceInclusion":
        """Returns the totals with further bookings; those before an inclusion do not count."""
        totals, seq = dict(self.totals), self.seq
        for trade in trades:
            result, seq = trade.result, max(seq, trade.event_seq)
            included_at = self.included_at.get(result.symbol_id)
            if included_at is None or result.occurred_at < included_at:
                continue
            known = totals.get(result.symbol_id)
            added = BookedTotal.of(result) if known is None else known.plus(result)
            totals[result.symbol_id] = added
        return replace(self, totals=totals, seq=seq)


def since_inclusion(
    price: float | None, mark: float | None, closes: Floats, bars_a_year: float
) -> SinceInclusion:
    """Figures from the inclusion `price`, the current `mark` and the closes (T,); NaN is left out.

    The drawdown needs two known prices of any kind, volatility three closes.
    """
    known = closes[np.isfinite(closes) & (closes > 0.0)]
    performance = None
    if price is not None and mark is not None and price > 0.0:
        performance = mark / price - 1.0
    ends = ([price] if price else [], [mark] if mark else [])
    path = np.concatenate([np.array(ends[0]), known, np.array(ends[1])])
    fall = _fall(path) if len(path) >= _MIN_OBSERVATIONS else None
    returns = np.diff(np.log(known))
    volatility = None
    if len(returns) >= _MIN_OBSERVATIONS:
        volatility = float(np.std(returns, ddof=1) * math.sqrt(bars_a_year))
    return SinceInclusion(performance, fall, volatility)


def compute_figures(returns: Floats) -> Figures:
    """Figures of daily returns (T,) without gaps; the equity begins at 1."""
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    return compute_equity_figures(equity, returns, float(len(returns)))


def compute_equity_figures(equity: Floats, returns: Floats, days: float) -> Figures:
    """Sharpe, Sortino, Calmar and the like, annualised with 365 days, rf = 0.

    `equity` (P,) holds all known points over `days`, `returns` (T,) the observations among them.
    Observations may differ in length: mean and variance are per elapsed time.
    Source: QUANT section 10.
    """
    count = len(returns)
    fall = growth = None
    if len(equity) >= _MIN_OBSERVATIONS:
        fall, growth = _fall(equity), float(equity[-1] / equity[0]) - 1.0
    nothing = Figures(count, None, None, None, fall, None, None, growth=growth)
    if not nothing.is_sufficient or fall is None or growth is None:
        return nothing
    mean, spread = float(returns.mean()), float(np.std(returns, ddof=1))
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    a_year = DAYS_A_YEAR * count / days  # observations
    yearly = (1.0 + growth) ** (DAYS_A_YEAR / days) - 1.0
    gains, losses = returns[returns > 0.0], returns[returns < 0.0]
    error = _sharpe_error(returns - mean, _ratio(mean, spread))
    return replace(
        nothing,
        sharpe=_ratio(mean * math.sqrt(a_year), spread),
        sortino=_ratio(mean * math.sqrt(a_year), downside),
        calmar=_ratio(yearly, fall),
        win_rate=len(gains) / count,
        profit_factor=_ratio(float(gains.sum()), -float(losses.sum())),
        sharpe_standard_error=None if error is None else error * math.sqrt(a_year),
    )


def ratio_error(ratio: float, observations: int, skewness: float, kurtosis: float) -> float | None:
    """Standard error of a Sharpe ratio per period; `kurtosis` is raw, 3 of the normal.

    None where the moments allow none. Source: QUANT section 10.
    """
    inside = 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    return math.sqrt(inside / (observations - 1)) if inside >= 0.0 and observations > 1 else None


def _sharpe_error(away: Floats, ratio: float | None) -> float | None:
    """Standard error of a Sharpe ratio per observation, of deviations from the mean (T,)."""
    if ratio is None:
        return None
    variance = float(np.mean(away**2))
    skewness = float(np.mean(away**3)) / variance**1.5
    kurtosis = float(np.mean(away**4)) / variance**2
    return ratio_error(ratio, len(away), skewness, kurtosis)


def _fall(path: Floats) -> float:
    """Maximum drawdown as a positive fraction; 0 without one."""
    peak = np.maximum.accumulate(path)
    return float(np.max(1.0 - path / peak))


def _ratio(above: float, below: float) -> float | None:
    # A spread of rounding noise alone would make the ratio enormous.
    return above / below if below > 1e-12 else None
