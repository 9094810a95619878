"""Backtest: walks a history bar by bar with the functions that score, weigh, plan and replace live.

A decision at the close of a bar sees nothing later and trades at the next open.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import numpy as np

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Bools, Panel, forward_fill
from app.market.domain.return_statistics import MARKET
from app.market.domain.sectors import SectorTable
from app.market.domain.segments import contiguous
from app.market.services.snapshot import BARS
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.membership import (
    PortfolioChange,
    add_members,
    replace_member,
    set_weights,
)
from app.portfolio.domain.models import EMPTY, FULL, Portfolio
from app.portfolio.domain.replacement import ConfirmationCount
from app.portfolio.services.change_recorder import with_new_weights
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.membership import select_members
from app.portfolio.services.rebalance_runs import (
    RebalanceInput,
    RebalanceRequest,
    decide_rebalance,
)
from app.portfolio.services.replacement import evaluate_replacements
from app.research.domain.account import Accounts
from app.research.domain.history import CandleHistory, coin_columns, eligibility
from app.research.domain.past_factors import PastFactors, is_measured_together, row_standard
from app.research.services.historical_market import (
    ListedHistory,
    TradingCosts,
    daily_settings,
    historical_context,
)
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.board import Board, CardStatus
from app.scoring.domain.composite import AlgorithmSpec, composite_scores
from app.scoring.domain.engine import score
from app.scoring.domain.factors import Factor, measure
from app.scoring.domain.historical_moments import MIN_UNIVERSE
from app.scoring.domain.score_stability import (
    DAYS,
    candle_inputs,
    daily_candle_part,
    reliability_from_scores,
    weekly_noise,
)

START_VALUE: Final = 100_000.0
_REASON: Final = "backtest"
_BLOCK: Final = 64  # rows whose scores are computed together


@dataclass(slots=True, eq=False)
class BoardSeries:
    """Boards of one algorithm at every bar of a history; computed once and shared by all runs."""

    listed: ListedHistory
    configuration: Configuration
    spec: AlgorithmSpec
    eligible: Bools  # (T, N)
    _scores: Floats = field(init=False)  # (T, N) composite z before shrinking
    _raw: dict[str, Floats] = field(default_factory=dict, init=False)
    _families: dict[str, Floats] = field(default_factory=dict, init=False)
    _past: PastFactors = field(init=False)
    _done: int = field(default=0, init=False)  # rows with computed scores
    _boards: dict[int, Board | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        shape = self.eligible.shape
        self._scores = np.full(shape, np.nan)
        self._raw = {one.name: np.full(shape, np.nan) for one in self.spec.factors}
        self._families = {one.value: np.full(shape, np.nan) for one in Family}
        self._past = PastFactors.of(self.history.panel, BARS[Interval.DAY])

    @staticmethod
    def of(
        history: CandleHistory,
        configuration: Configuration,
        sectors: SectorTable,
        costs: TradingCosts,
    ) -> "BoardSeries":
        """Creates the series. Raises ValueError if no weighted factor reads daily candles."""
        settings = daily_settings(configuration)
        spec = daily_candle_part(build_algorithm(settings))
        if spec is None:
            raise ValueError("no weighted factor of this configuration reads daily candles")
        eligible = eligibility(
            history, settings.eligibility, coin_columns(sectors, history.symbols)
        )
        return BoardSeries(ListedHistory(history, sectors, costs), settings, spec, eligible)

    @property
    def history(self) -> CandleHistory:
        return self.listed.history

    @property
    def first_row(self) -> int | None:
        """First row with enough eligible listings for a board; None without one."""
        able = np.flatnonzero(self.eligible.sum(axis=1) >= MIN_UNIVERSE)
        return int(able[0]) if len(able) else None

    def scores(self, last_row: int) -> Floats:
        """Returns (T, N) composite z known at each close up to `last_row`; NaN without a score."""
        for first in range(self._done, last_row + 1, _BLOCK):
            self._score_rows(first, min(first + _BLOCK - 1, last_row))
        self._done = max(self._done, last_row + 1)
        return self._scores

    def factor_values(self, last_row: int) -> Mapping[str, Floats]:
        """Returns (T, N) oriented raw values by factor name up to `last_row`."""
        self.scores(last_row)
        return {one.name: one.orientation * self._raw[one.name] for one in self.spec.factors}

    def family_values(self, last_row: int) -> Mapping[str, Floats]:
        """Returns (T, N) z by family up to `last_row`; NaN where the family is unavailable."""
        self.scores(last_row)
        return self._families

    def _score_rows(self, first: int, last: int) -> None:
        rows = slice(first, last + 1)
        enough = self.eligible[rows].sum(axis=1) >= MIN_UNIVERSE
        universe = self.eligible[rows] & enough[:, None]
        if not universe.any():
            return
        together = [one for one in self.spec.factors if is_measured_together(one)]
        measured = dict(
            zip(
                (one.name for one in together),
                self._past.measure(together, universe, first),
                strict=True,
            )
        )
        for one in self.spec.factors:
            self._raw[one.name][rows] = (
                measured[one.name]
                if one.name in measured
                else self._measure_alone(one, universe, first)
            )
        self._combine(rows, universe)

    def _combine(self, rows: slice, universe: Bools) -> None:
        """Combines the factor values of the rows into families and composite."""
        is_market = np.array([symbol == MARKET for symbol in self.history.symbols])
        applies = np.array([~(is_market & one.against_market) for one in self.spec.factors])
        raw = np.array([self._raw[one.name][rows] for one in self.spec.factors])
        if not self.spec.exposures:
            flat = raw.reshape(len(raw), -1)
            standard = row_standard(*universe.shape)
            side_by_side = np.tile(applies, len(universe))
            found = composite_scores(flat, self.spec, standard, applies=side_by_side)
            self._scores[rows] = found.z.reshape(universe.shape)
            for family, of_family in zip(Family, found.family_z, strict=True):
                self._families[family.value][rows] = of_family.reshape(universe.shape)
            return
        for place in np.flatnonzero(universe.any(axis=1)).tolist():  # a regression for each row
            row, names = rows.start + place, np.flatnonzero(universe[place])
            found = composite_scores(raw[:, place, names], self.spec, applies=applies[:, names])
            self._scores[row, names] = found.z
            for family, of_family in zip(Family, found.family_z, strict=True):
                self._families[family.value][row, names] = of_family

    def _measure_alone(self, factor: Factor, universe: Bools, first: int) -> Floats:
        """Returns (R, N) raw values of a factor that needs a panel of its own at each row."""
        values = np.full(universe.shape, np.nan)
        for place in np.flatnonzero(universe.any(axis=1)).tolist():
            names = np.flatnonzero(universe[place])
            past = forward_fill(contiguous(self.panel(first + place, names)))[0]
            values[place, names] = measure(factor, candle_inputs(past)).values
        return values

    def panel(self, row: int, names: np.ndarray) -> Panel:
        """Returns the bars of the listings `names`, columns of the history, known at `row`."""
        window = self.history.window(row, BARS[Interval.DAY])
        fields = {
            name: getattr(window, name)[:, names]
            for name in ("open", "high", "low", "close", "volume", "turnover")
        }
        symbols = tuple(self.history.symbols[name] for name in names.tolist())
        return replace(window, symbols=symbols, **fields)

    def board(self, row: int) -> Board | None:
        """Returns the board at the close of `row`; None with fewer than ten eligible listings."""
        if row not in self._boards:
            self._boards[row] = self._make_board(row)
        return self._boards[row]

    def _make_board(self, row: int) -> Board | None:
        names = np.flatnonzero(self.eligible[row])
        if len(names) < MIN_UNIVERSE:
            return None
        month = self.scores(row)[max(0, row - DAYS) : row + 1][:, names]
        inputs = candle_inputs(self.panel(row, names))
        draft = score(
            inputs,
            self.spec,
            reliability_from_scores(month),
            noise=weekly_noise(month),
            compute=lambda factor, _: self._raw[factor.name][row, names],
            with_readings=False,
        )
        return draft.to_board(
            run_id=f"{row}",
            algorithm=self.spec.name,
            algorithm_version=0,
            configuration_version=0,
            calculated_at=self.history.closed_at(row),
            duration_ms=0.0,
            data_source=DataSource.SANDBOX,
            is_provisional=False,
        )


@dataclass(frozen=True, slots=True)
class BacktestOptions:
    """Rows and rhythm of a run: decisions at every `every`-th close, from `offset` on."""

    first_row: int
    last_row: int
    every: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class BacktestStep:
    """One bar of a run; `changes` are the weights decided at its close, traded at the next open."""

    date: datetime
    portfolio_value: float
    daily_return: float | None
    portfolio_changes: Mapping[str, tuple[float, float]]  # symbol -> old and new weight in percent


@dataclass(frozen=True, slots=True, eq=False)
class BacktestRun:
    """Result of one run; `traded` is the sum of traded values as fractions of equity."""

    steps: tuple[BacktestStep, ...]
    swaps: int
    traded: float
    costs: float
    funding: float
    known_funding: int  # position days with a known rate
    unknown_funding: int

    @property
    def returns(self) -> Floats:
        """(T - 1,) daily returns."""
        return np.array([one.daily_return for one in self.steps[1:]], np.float64)


@dataclass(slots=True)
class _State:
    portfolio: Portfolio = EMPTY
    counts: dict[str, ConfirmationCount] = field(default_factory=dict)
    last_swap: datetime | None = None
    rebalanced_at: datetime | None = None
    swaps: int = 0


def run_backtest(
    boards: BoardSeries, options: BacktestOptions, start: float = START_VALUE
) -> BacktestRun:
    """Runs the product over the rows; the same input gives the same result.

    Raises ValueError for rows outside the history.
    """
    history = boards.history
    if not 0 <= options.first_row < options.last_row < history.rows or options.every < 1:
        raise ValueError("the rows of a backtest must lie within the history, in order")
    account = Accounts(history, start, boards.listed.costs.fraction)
    state, steps = _State(), list[BacktestStep]()
    waiting = np.full((1, len(history.symbols)), np.nan)
    before: float | None = None
    for row in range(options.first_row, options.last_row + 1):
        waiting = account.trade(row, waiting)
        account.settle_funding(row)
        prices = history.carried[row]
        value = float(account.value(prices)[0])
        changes: dict[str, tuple[float, float]] = {}
        is_due = (row - options.first_row - options.offset) % options.every == 0
        if is_due and row < options.last_row and (board := boards.board(row)) is not None:
            context = historical_context(boards.listed, row, board, boards.configuration)
            changes = _decide(state, account.weights(prices)[0], context, boards.listed)
            for symbol, (_, new) in changes.items():
                waiting[0, boards.listed.places[symbol]] = new / 100.0
        steps.append(
            BacktestStep(
                history.closed_at(row),
                value,
                None if before is None else value / before - 1.0,
                changes,
            )
        )
        before = value
    return BacktestRun(
        tuple(steps),
        state.swaps,
        float(account.traded[0]),
        float(account.paid[0]),
        float(account.funding[0]),
        account.known_funding,
        account.unknown_funding,
    )


def _decide(
    state: _State, weights: Floats, context: DecisionContext, listed: ListedHistory
) -> dict[str, tuple[float, float]]:
    """Decides as the live service does; returns changed weights and left members, in percent."""
    before = _with_current_weights(state.portfolio, weights, listed)
    portfolio = before
    if not portfolio.members:
        size = context.configuration.max_portfolio_symbols
        if not any(card.status is CardStatus.SCORED for card in context.require_board().cards):
            return {}
        chosen = select_members(context, size).chosen
        if not chosen:
            return {}
        new_members = [context.new_member(context.resolve(name)) for name in chosen]
        added = add_members(portfolio, new_members, size, context.at, _REASON)
        portfolio = with_new_weights(added, context, {}, _REASON).portfolio
        state.rebalanced_at = context.at
    else:
        leaving = frozenset(one.symbol for one in state.counts.values() if one.is_confirmed)
        context = replace(context, leaving=leaving)
        portfolio = _replace_weakest(state, portfolio, context)
        portfolio = _rebalance(state, portfolio, context)
    state.portfolio = portfolio
    old = {one.symbol: one.weight_u for one in before.members}
    new = {one.symbol: one.weight_u for one in portfolio.members}
    return {
        name: (old.get(name, 0) * 100.0 / FULL, new.get(name, 0) * 100.0 / FULL)
        for name in sorted(old.keys() | new.keys())
        if old.get(name, -1) != new.get(name, -1)
    }


def _replace_weakest(state: _State, portfolio: Portfolio, context: DecisionContext) -> Portfolio:
    found = evaluate_replacements(portfolio, context, state.counts, state.last_swap, count=True)
    if found.counts is not None:
        state.counts = {one.symbol: one for one in found.counts}
    for one in found.proposals:
        if one.candidate is None or not one.is_due:
            continue
        new_member = context.new_member(context.resolve(one.candidate.symbol))
        swapped = replace_member(
            portfolio, one.outgoing.side.symbol, new_member, {}, context.at, _REASON
        )
        portfolio = with_new_weights(swapped, context, {}, _REASON).portfolio
        state.counts.pop(one.outgoing.side.symbol, None)
        state.last_swap, state.swaps = context.at, state.swaps + 1
    return portfolio


def _rebalance(state: _State, portfolio: Portfolio, context: DecisionContext) -> Portfolio:
    loaded = RebalanceInput(portfolio, context, state.rebalanced_at)
    plan = decide_rebalance(loaded, RebalanceRequest(_REASON)).plan
    if not plan.changes:
        return portfolio
    state.rebalanced_at = context.at
    change = PortfolioChange(portfolio, ())
    return set_weights(
        change, plan.allocation, {}, context.at, _REASON, EventType.REBALANCE
    ).portfolio


def _with_current_weights(
    portfolio: Portfolio, weights: Floats, listed: ListedHistory
) -> Portfolio:
    """Returns the portfolio with its weights at the present prices, in whole micro-percent."""
    members = tuple(
        replace(one, weight_u=round(float(weights[listed.places[one.symbol]]) * FULL))
        for one in portfolio.members
    )
    total = sum(one.weight_u for one in members)
    return replace(portfolio, members=members, cash_u=max(FULL - total, 0))
