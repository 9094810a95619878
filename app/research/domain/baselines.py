"""Baselines of a backtest: simple portfolios with the same dates, costs and execution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.market.domain.models import DAYS_A_YEAR, Floats
from app.market.domain.panel import Bools
from app.portfolio.domain.returns import Figures, compute_figures
from app.research.domain.account import Accounts
from app.research.domain.history import CandleHistory, base_of

MARKET_BASE: Final = "BTC"
SIZE: Final = 10
RANK_DAYS: Final = 30  # of the turnover and the volatility that rank a baseline
Choose = Callable[[int, Floats], Floats]  # row and weights before (D, N) -> targets (D, N)


@dataclass(frozen=True, slots=True)
class PortfolioFigures:
    """Figures of one portfolio; None is unknown. `turnover` is traded value over equity a year."""

    name: str
    figures: Figures
    growth_a_year: float | None
    turnover: float


def portfolio_figures(name: str, returns: Floats, traded: float) -> PortfolioFigures:
    """Returns the figures of daily returns (T,) and the sum of traded shares of equity."""
    figures = compute_figures(returns)
    years = len(returns) / DAYS_A_YEAR
    yearly = None
    if figures.growth is not None and years > 0.0 and figures.growth > -1.0:
        yearly = (1.0 + figures.growth) ** (1.0 / years) - 1.0
    return PortfolioFigures(name, figures, yearly, traded / years if years > 0.0 else 0.0)


def simulate(
    history: CandleHistory,
    rows: Sequence[int],
    due: Callable[[int], bool],
    choose: Choose,
    cost: float,
    count: int = 1,
) -> tuple[Floats, Floats]:
    """Returns (D, T - 1) daily returns and (D,) traded shares of D portfolios.

    At the close of a due row `choose` sets the targets, traded at the next open.
    """
    accounts = Accounts(history, 1.0, cost, count)
    waiting = np.full((count, len(history.symbols)), np.nan)
    values = np.empty((count, len(rows)))
    for place, row in enumerate(rows):
        waiting = accounts.trade(row, waiting)
        accounts.settle_funding(row)
        prices = history.carried[row]
        values[:, place] = accounts.value(prices)
        if due(row) and place < len(rows) - 1:
            waiting = choose(row, accounts.weights(prices))
    return values[:, 1:] / values[:, :-1] - 1.0, accounts.traded


def market_column(history: CandleHistory) -> int:
    """Returns the column of the market coin. Raises ValueError without it."""
    for place, name in enumerate(history.symbols):
        if base_of(name) == MARKET_BASE:
            return place
    raise ValueError(f"the history has no {MARKET_BASE} to compare with")


def hold_market(history: CandleHistory) -> Choose:
    """Returns the choice of the market coin alone, bought once. Raises ValueError without it."""
    column = market_column(history)

    def choose(_row: int, weights: Floats) -> Floats:
        targets = np.full(weights.shape, np.nan)
        targets[weights[:, column] == 0.0, column] = 1.0
        return targets

    return choose


def hold_universe(eligible: Bools) -> Choose:
    """Returns the choice of all eligible listings at equal weights."""

    def choose(row: int, weights: Floats) -> Floats:
        return _equal(eligible[row][None, :], weights)

    return choose


def hold_best(key: Floats, eligible: Bools, size: int = SIZE) -> Choose:
    """Returns the choice of the `size` eligible listings with the highest key (T, N).

    Equal keys go by column; a listing without a key is not chosen.
    """

    def choose(row: int, weights: Floats) -> Floats:
        usable = np.flatnonzero(eligible[row] & np.isfinite(key[row]))
        best = usable[np.argsort(-key[row, usable], kind="stable")][:size]
        chosen = np.zeros((1, weights.shape[1]), np.bool_)
        chosen[0, best] = True
        return _equal(chosen, weights)

    return choose


def hold_random(eligible: Bools, generator: np.random.Generator, size: int = SIZE) -> Choose:
    """Returns the choice of `size` random listings each; one leaves only when not eligible."""

    def choose(row: int, weights: Floats) -> Floats:
        chosen = (weights > 0.0) & eligible[row]
        names = np.flatnonzero(eligible[row])
        for one in chosen:
            free = names[~one[names]]
            missing = min(size - int(one.sum()), len(free))
            if missing > 0:
                one[generator.choice(free, missing, replace=False)] = True
        return _equal(chosen, weights)

    return choose


def _equal(chosen: Bools, weights: Floats) -> Floats:
    """Returns equal targets of the chosen listings; the others that are owned are sold."""
    chosen = np.broadcast_to(chosen, weights.shape)
    count = chosen.sum(axis=1, keepdims=True)
    targets = np.where(chosen, 1.0 / np.maximum(count, 1), np.nan)
    return np.where(~chosen & (weights != 0.0), 0.0, targets)


def turnover_key(history: CandleHistory) -> Floats:
    """Returns (T, N) median turnover of the last 30 bars; NaN with a missing one."""
    return _rolling(history.panel.turnover, np.median)


def low_volatility_key(history: CandleHistory) -> Floats:
    """Returns (T, N) minus the standard deviation of the last 30 daily log returns."""
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.diff(np.log(history.panel.close), axis=0, prepend=np.nan)
    return -_rolling(returns, np.std)


def _rolling(values: Floats, measure: Callable[..., Floats]) -> Floats:
    out = np.full(values.shape, np.nan)
    for row in range(RANK_DAYS - 1, len(values)):
        out[row] = measure(values[row + 1 - RANK_DAYS : row + 1], axis=0)
    return out
