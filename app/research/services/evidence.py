"""Runs a backtest with its baselines, offsets and the evidence of its scores."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

import numpy as np

from app.market.domain.models import DAYS_A_YEAR, Floats
from app.portfolio.domain.risk import value_at_risk
from app.research.domain.baselines import (
    PortfolioFigures,
    hold_best,
    hold_market,
    hold_random,
    hold_universe,
    low_volatility_key,
    market_column,
    portfolio_figures,
    simulate,
    turnover_key,
)
from app.research.domain.factor_cards import FactorCard, create_card
from app.research.domain.history import CandleHistory, died
from app.research.domain.luck import ReturnMoments, deflated_sharpe, permute_scores
from app.research.domain.report import (
    VAR_LIMITS,
    BacktestReport,
    DisasterAudit,
    RandomBand,
    VarLimit,
)
from app.research.domain.validation import ScoreEvidence, evaluate_scores, forward_returns
from app.research.services.backtest import BacktestOptions, BacktestRun, BoardSeries, run_backtest
from app.scoring.domain.factor_evidence import ScoreLevel

HORIZON: Final = 7  # bars of the returns that scores are to foretell
DRAWS: Final = 200
VAR_LEVEL: Final = 0.95
MIN_PERIOD_ROWS: Final = 60
COMPOSITE: Final = "composite"
LOW_VOLATILITY: Final = "low volatility alone"
DISASTER_DAYS: Final = (30, 7, 1)
_PERMUTATION_STREAM: Final = 1  # of the seed; the random portfolios use the seed alone
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EvidenceOptions:
    """Parameters of a report: the run, the random portfolios and their seed."""

    run: BacktestOptions
    all_offsets: bool = False
    draws: int = DRAWS
    seed: int = 1
    horizon: int = HORIZON


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Report and the run of the first offset."""

    report: BacktestReport
    run: BacktestRun


def gather_evidence(
    boards: BoardSeries,
    options: EvidenceOptions,
    trial_sharpes: Sequence[float] = (),
    progress: Progress = lambda _: None,
) -> Evidence:
    """Runs everything; `trial_sharpes` are the daily Sharpe ratios of the former trials.

    Raises ValueError for rows outside the history or without the market coin.
    """
    history, run = boards.history, options.run
    rows = range(run.first_row, run.last_row + 1)
    progress("scoring every bar")
    scores = boards.scores(run.last_row)
    offsets = range(run.every) if options.all_offsets else (run.offset,)
    runs = []
    for offset in offsets:
        progress(f"running offset {offset}")
        chosen = BacktestOptions(run.first_row, run.last_row, run.every, offset)
        runs.append(run_backtest(boards, chosen))
    performances = tuple(
        portfolio_figures(f"offset {offset}", one.returns, one.traded)
        for offset, one in zip(offsets, runs, strict=True)
    )
    progress("running the baselines")

    def due(row: int) -> bool:
        return (row - run.first_row - run.offset) % run.every == 0

    cost, eligible = boards.listed.costs.fraction, boards.eligible

    def one(name: str, choose: Callable[[int, Floats], Floats]) -> PortfolioFigures:
        returns, traded = simulate(history, rows, due, choose, cost)
        return portfolio_figures(name, returns[0], float(traded[0]))

    calm = low_volatility_key(history)
    (held, *_), traded = simulate(history, rows, due, hold_market(history), cost)
    market = portfolio_figures("BTC held", held, float(traded[0]))
    baselines = (
        one("universe, equal weights", hold_universe(eligible)),
        one("ten largest by turnover", hold_best(turnover_key(history), eligible)),
        one("ten lowest volatilities", hold_best(calm, eligible)),
    )
    generator = np.random.default_rng(options.seed)
    drawn, _ = simulate(history, rows, due, hold_random(eligible, generator), cost, options.draws)
    progress("validating the scores")
    window = slice(run.first_row, run.last_row + 1)
    opened, close = history.panel.open[window], history.panel.close[window]
    universe = eligible[window]
    evidence = evaluate_scores(scores[window], opened, close, options.horizon, universe)
    factors = {
        name: evaluate_scores(values[window], opened, close, options.horizon, universe)
        for name, values in boards.factor_values(run.last_row).items()
    }
    apart = slice(None, None, options.horizon)  # days whose returns do not overlap
    permutation = permute_scores(
        np.where(universe, scores[window], np.nan)[apart],
        forward_returns(opened, close, options.horizon)[apart],
        np.random.default_rng((options.seed, _PERMUTATION_STREAM)),
    )
    simple = np.where(universe, calm[window], np.nan)
    moments = ReturnMoments.of(runs[0].returns)
    all_trials = [*trial_sharpes, *([] if moments is None else [moments.sharpe])]
    known, unknown = (
        sum(each.known_funding for each in runs),
        sum(each.unknown_funding for each in runs),
    )
    has_traded = (history.first <= run.last_row) & (history.last >= run.first_row)
    report = BacktestReport(
        name=history.name,
        first_day=history.closed_at(run.first_row).date(),
        last_day=history.closed_at(run.last_row).date(),
        listings=int(has_traded.sum()),
        died=len(died(history, run.first_row, run.last_row)),
        trials=len(all_trials),
        every=run.every,
        product=performances[0],
        offsets=performances,
        swaps=runs[0].swaps,
        market=market,
        baselines=baselines,
        random=_band(drawn),
        evidence=evidence,
        factors=factors,
        low_volatility=evaluate_scores(simple, opened, close, options.horizon, universe),
        deflated_sharpe=None if moments is None else deflated_sharpe(moments, all_trials),
        funding_coverage=known / (known + unknown) if known + unknown else None,
        monthly=_monthly(history, run.first_row, runs[0].returns),
        market_monthly=_monthly(history, run.first_row, held),
        var_limits=_count_var_limits(boards, run, runs[0]),
        permutation=permutation,
    )
    return Evidence(report, runs[0])


def _band(returns: Floats) -> RandomBand | None:
    """Returns the band of annual Sharpe ratios of (D, T) daily returns; None without two draws."""
    deviation = returns.std(axis=1, ddof=1)
    usable = deviation > 0.0
    if usable.sum() < 2:
        return None
    sharpes = returns[usable].mean(axis=1) / deviation[usable] * np.sqrt(DAYS_A_YEAR)
    low, high = np.quantile(sharpes, (0.05, 0.95))
    return RandomBand(len(sharpes), float(sharpes.mean()), float(low), float(high))


def _monthly(
    history: CandleHistory, first_row: int, returns: Floats
) -> dict[tuple[int, int], float]:
    """Returns the return of each calendar month; `returns` (T - 1,) follow the first row."""
    growth: dict[tuple[int, int], float] = {}
    for place, one in enumerate(returns.tolist(), first_row + 1):
        opened = datetime.fromtimestamp(int(history.panel.opened_ms[place]) / 1000, UTC)
        month = opened.year, opened.month
        growth[month] = growth.get(month, 1.0) * (1.0 + one)
    return {month: value - 1.0 for month, value in growth.items()}


def _count_var_limits(
    boards: BoardSeries, options: BacktestOptions, run: BacktestRun
) -> tuple[VarLimit, ...]:
    """Counts the decisions whose weights had a value at risk, at 95 %, above each limit."""
    places, market = boards.listed.places, market_column(boards.history)
    weights: dict[str, float] = {}
    losses: list[float | None] = []
    for row, step in enumerate(run.steps, options.first_row):
        if not step.portfolio_changes:
            continue
        weights |= {name: new / 100.0 for name, (_, new) in step.portfolio_changes.items()}
        held = {places[name] for name, weight in weights.items() if weight > 0.0}
        columns = np.array(sorted(held | {market}))
        losses.append(value_at_risk(boards.panel(row, columns), weights, VAR_LEVEL))
    known = [one for one in losses if one is not None]
    return tuple(
        VarLimit(limit, sum(one > limit for one in known), len(known), len(losses) - len(known))
        for limit in VAR_LIMITS
    )


def validate_factors(
    boards: BoardSeries,
    first_row: int,
    last_row: int,
    periods: int,
    trials: int,
    horizon: int = HORIZON,
) -> tuple[FactorCard, ...]:
    """Returns the cards of composite, low volatility alone, families and factors by equal periods.

    Raises ValueError for fewer rows than a period needs.
    """
    rows = last_row + 1 - first_row
    if rows < periods * (horizon + MIN_PERIOD_ROWS):
        raise ValueError(f"{rows} days are too few for {periods} periods")
    history = boards.history
    calm = np.where(boards.eligible, low_volatility_key(history), np.nan)
    factors, families = boards.factor_values(last_row), boards.family_values(last_row)
    scores: list[tuple[ScoreLevel | None, str, Floats]] = [
        (ScoreLevel.COMPOSITE, COMPOSITE, boards.scores(last_row)),
        (None, LOW_VOLATILITY, calm),
        *((ScoreLevel.FAMILY, name, values) for name, values in families.items()),
        *((ScoreLevel.FACTOR, name, values) for name, values in factors.items()),
    ]
    edges = np.linspace(first_row, last_row + 1, periods + 1).astype(np.int64).tolist()
    windows = [*itertools.starmap(slice, itertools.pairwise(edges))]
    whole = slice(first_row, last_row + 1)

    def evaluate(values: Floats, window: slice) -> ScoreEvidence:
        return evaluate_scores(
            values[window],
            history.panel.open[window],
            history.panel.close[window],
            horizon,
            boards.eligible[window],
        )

    return tuple(
        replace(
            create_card(name, [evaluate(values, one) for one in windows], trials),
            level=level,
            whole=evaluate(values, whole),
        )
        for level, name, values in scores
    )


def audit_disaster(boards: BoardSeries, run: BacktestRun, listing: str, day: date) -> DisasterAudit:
    """Looks a disaster up: ranks 30, 7 and 1 days before it, weight then, fall and cost.

    Raises ValueError for a listing that the history lacks.
    """
    history = boards.history
    if listing not in history.symbols:
        raise ValueError(f"the history has no listing {listing}")
    column = history.symbols.index(listing)
    row = history.row_from(datetime(day.year, day.month, day.day, tzinfo=UTC))
    ranks: dict[int, tuple[int, int] | None] = {}
    for days in DISASTER_DAYS:
        board = boards.board(row - days) if row - days >= 0 else None
        card = None if board is None else board.card(listing)
        rank = None if card is None else card.rank
        ranks[days] = None if board is None or rank is None else (rank, board.universe_size)
    before = history.carried[row - 1, column] if 0 < row <= history.rows else np.nan
    after = history.carried[row : row + DISASTER_DAYS[1], column]
    fall = float(np.min(after) / before - 1.0) if len(after) and np.isfinite(before) else None
    weight = _weight_at(run, history.closed_at(row - 1), listing) if row > 0 else None
    cost = None if weight is None or fall is None else weight / 100.0 * fall
    return DisasterAudit(listing, day, ranks, weight, fall, cost)


def _weight_at(run: BacktestRun, at: datetime, listing: str) -> float | None:
    """Returns the weight in percent that was last decided before `at`; None outside the run."""
    weight: float | None = None
    for step in run.steps:
        if step.date > at:
            break
        old_and_new = step.portfolio_changes.get(listing)
        weight = (weight or 0.0) if old_and_new is None else old_and_new[1]
    return weight
