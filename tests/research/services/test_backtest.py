"""Backtest: no look-ahead, exact accounts, and the same result each time."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.market.domain.models import Floats
from app.market.domain.panel import FIELDS
from app.portfolio.domain.risk import value_at_risk
from app.research.domain.account import Accounts
from app.research.domain.baselines import hold_market, hold_universe, simulate
from app.research.domain.history import CandleHistory, coin_columns, eligibility
from app.research.domain.validation import evaluate_scores
from app.research.services.backtest import (
    BacktestOptions,
    BacktestRun,
    BoardSeries,
    run_backtest,
)
from app.research.services.evidence import (
    EvidenceOptions,
    audit_disaster,
    gather_evidence,
    validate_factors,
)
from app.research.services.historical_market import TradingCosts
from app.scoring.domain.factor_evidence import EvidenceLabel
from tests.research.histories import SECTORS, random_history

FIRST, LAST = 110, 200
# Around the end of a listing, and at random.
CUTS = sorted({149, 150, 151, *np.random.default_rng(21).integers(FIRST + 2, LAST, 5).tolist()})


def _boards(history: CandleHistory, costs: TradingCosts | None = None) -> BoardSeries:
    return BoardSeries.of(history, Configuration(), SECTORS, costs or TradingCosts())


def _run(history: CandleHistory, last: int = LAST, every: int = 3) -> BacktestRun:
    return run_backtest(_boards(history), BacktestOptions(FIRST, last, every))


@pytest.fixture(scope="module")
def history() -> CandleHistory:
    return random_history(ends={5: 150, 9: 171})


@pytest.fixture(scope="module")
def whole(history: CandleHistory) -> BacktestRun:
    return _run(history)


@pytest.mark.parametrize("cut", CUTS)
def test_later_bars_change_no_earlier_step(
    history: CandleHistory, whole: BacktestRun, cut: int
) -> None:
    known = history.until(cut)
    assert known.rows == cut + 1
    short = _run(known, cut)
    # The last step of the shorter run decides nothing: it has no next open to trade at.
    assert short.steps[:-1] == whole.steps[: cut - FIRST]
    last, same = short.steps[-1], whole.steps[cut - FIRST]
    assert (last.portfolio_value, last.daily_return) == (same.portfolio_value, same.daily_return)


def test_coin_that_vanishes_later_changes_no_earlier_step(
    history: CandleHistory, whole: BacktestRun
) -> None:
    owned = next(iter(whole.steps[0].portfolio_changes))
    column = history.symbols.index(owned)
    fields = {name: getattr(history.panel, name).copy() for name in FIELDS}
    for values in fields.values():
        values[161:, column] = np.nan
    dropped = CandleHistory.of("dropped", replace(history.panel, **fields))
    assert _run(dropped).steps[: 161 - FIRST] == whole.steps[: 161 - FIRST]
    assert dropped.data_hash != history.data_hash


def test_same_input_gives_the_same_result(history: CandleHistory, whole: BacktestRun) -> None:
    again = _run(history)
    assert again.steps == whole.steps
    assert (again.swaps, again.traded, again.costs) == (whole.swaps, whole.traded, whole.costs)


def test_weights_obey_the_rules_of_the_live_portfolio(whole: BacktestRun) -> None:
    first = whole.steps[0].portfolio_changes
    assert 5 <= len(first) <= 10
    assert all(old == 0.0 and 5.0 <= new <= 20.0 for old, new in first.values())
    assert sum(new for _, new in first.values()) == pytest.approx(100.0)
    assert whole.steps[0].daily_return is None
    assert whole.steps[0].portfolio_value == 100_000.0
    decided = [place for place, one in enumerate(whole.steps) if one.portfolio_changes]
    assert len(decided) > 3
    assert all(place % 3 == 0 for place in decided)


def test_first_trade_is_at_the_next_open(history: CandleHistory, whole: BacktestRun) -> None:
    """The value after the first bar follows from opens, closes and the stated cost alone."""
    row = FIRST + 1
    gross = 0.0
    for symbol, (_, new) in whole.steps[0].portfolio_changes.items():
        column = history.symbols.index(symbol)
        move = history.panel.close[row, column] / history.panel.open[row, column]
        gross += new / 100.0 * move
    cost = TradingCosts().fraction
    assert whole.steps[1].portfolio_value == pytest.approx(100_000.0 * (1.0 - cost) * gross)


def _members_of_the_first_days(run: BacktestRun, days: int) -> set[str]:
    """Returns the members of the first decision that no later one of these days sells."""
    kept = set(run.steps[0].portfolio_changes)
    for one in run.steps[1:days]:
        kept -= {name for name, (_, new) in one.portfolio_changes.items() if new == 0.0}
    return kept


def test_dead_coin_realises_its_last_price_and_leaves() -> None:
    history = random_history(seed=4)
    lasting = _members_of_the_first_days(_run(history), 21)
    owned = min(lasting)
    column, last = history.symbols.index(owned), FIRST + 20
    dead = random_history(seed=4, ends={column: last})
    account = Accounts(dead, 1.0, 0.001)
    targets = np.full((1, len(dead.symbols)), np.nan)
    targets[0, column] = 1.0
    account.trade(last, targets)
    units = account.units[0, column]
    account.trade(last + 1, np.full_like(targets, np.nan))
    assert account.units[0, column] == 0.0
    assert account.cash[0] == pytest.approx(units * dead.panel.close[last, column])
    run = _run(dead)
    place = next(
        place for place, one in enumerate(run.steps)
        if one.portfolio_changes.get(owned, (0.0, 1.0))[1] == 0.0
    )  # fmt: skip
    assert FIRST + place > last  # nobody knew before
    assert place <= 20 + 3 + 1
    assert all(np.isfinite(one.portfolio_value) for one in run.steps)


def test_costs_are_those_of_the_traded_value() -> None:
    history = random_history(seed=2)
    free = run_backtest(
        _boards(history, TradingCosts(0.0, 0.0)), BacktestOptions(FIRST, LAST, every=3)
    )
    paid = run_backtest(
        _boards(history, TradingCosts(6.0, 4.0)), BacktestOptions(FIRST, LAST, every=3)
    )
    assert free.costs == 0.0
    assert paid.costs == pytest.approx(paid.traded * 0.001 * 100_000.0, rel=0.3)
    assert paid.steps[1].portfolio_value < free.steps[1].portfolio_value


def test_known_funding_is_paid_and_unknown_funding_is_counted() -> None:
    base = random_history(seed=3)
    rates = np.full(base.panel.close.shape, np.nan)
    rates[:, 0] = 0.001
    history = CandleHistory.of("funded", base.panel, rates)
    rows = range(FIRST, FIRST + 6)
    returns, _ = simulate(history, rows, lambda row: row == FIRST, hold_market(history), 0.0)
    move = history.panel.close[FIRST + 2, 0] / history.panel.close[FIRST + 1, 0]
    # The funding of both days is owed in cash.
    assert returns[0, 1] == pytest.approx(move - 1.0 - 0.001 / (1.0 - 0.001))
    run = run_backtest(_boards(history), BacktestOptions(FIRST, FIRST + 6))
    assert run.unknown_funding > 0


def test_market_baseline_equals_its_price() -> None:
    history = random_history(seed=6)
    rows = range(FIRST, LAST + 1)
    returns, traded = simulate(history, rows, lambda row: row == FIRST, hold_market(history), 0.0)
    grown = float(np.prod(1.0 + returns))
    assert grown == pytest.approx(history.panel.close[LAST, 0] / history.panel.open[FIRST + 1, 0])
    assert traded[0] == pytest.approx(1.0)


def test_universe_is_that_of_the_moment() -> None:
    history = random_history(seed=7, ends={3: 140})
    floors = Configuration().eligibility
    found = eligibility(history, floors, coin_columns(SECTORS, history.symbols))
    assert not found[: floors.min_daily_bars - 1].any()
    assert found[floors.min_daily_bars - 1].all()
    assert found[140, 3]
    assert not found[141:, 3].any()
    thin = replace(floors, min_turnover=type(floors.min_turnover)("1e12"))
    coins = coin_columns(SECTORS, history.symbols)
    assert not eligibility(history, thin, coins).any()
    choose = hold_universe(found)
    weights = choose(141, np.zeros((1, len(history.symbols))))
    assert np.isnan(weights[0, 3])
    assert np.nansum(weights) == pytest.approx(1.0)


def test_random_prices_show_no_skill_and_no_recommendation() -> None:
    boards = _boards(random_history(rows=420, names=40, seed=21))
    options = EvidenceOptions(BacktestOptions(110, 410, every=7), draws=60)
    report = gather_evidence(boards, options).report
    assert report.evidence.ic.t is not None
    assert abs(report.evidence.ic.t) < 2.0
    assert report.permutation is not None
    assert report.permutation.days == len(range(110, 411, 7)) - 1  # the last has no return
    assert report.permutation.p_value > 0.05
    assert report.random is not None
    assert report.random.draws == 60
    assert report.random.low < report.random.mean < report.random.high
    assert "beat 95 %" not in report.judgement()
    assert "95 % of random portfolios after costs." not in report.judgement()
    assert not report.suspicions()
    assert report.trials == 1
    assert report.headline()[0].startswith(
        "2022-04-22 to 2023-02-16: 40 listings, 0 died; 1 trials"
    )


def test_targets_and_limits_stand_beside_measured_figures() -> None:
    boards = _boards(random_history(rows=300, names=30, seed=21))
    found = gather_evidence(boards, EvidenceOptions(BacktestOptions(110, 290, every=7), draws=20))
    report = found.report
    own, market = report.product.figures, report.market.figures
    assert own.max_drawdown is not None
    assert market.max_drawdown is not None
    assert own.win_rate is not None
    assert market.win_rate is not None
    sharpe, drawdown, win_rate = report.targets()
    assert (sharpe.target, sharpe.measured) == (1.8, own.sharpe)
    assert (drawdown.target, drawdown.measured) == (0.3, 1 - own.max_drawdown / market.max_drawdown)
    assert (win_rate.target, win_rate.measured) == (0.1, own.win_rate - market.win_rate)
    others = (report.market, *report.baselines)
    assert sharpe.reached_by == tuple(
        one.name for one in others if one.figures.sharpe is not None and one.figures.sharpe >= 1.8
    )

    weights: dict[str, float] = {}
    losses = []
    for row, step in enumerate(found.run.steps, 110):
        if step.portfolio_changes:
            weights |= {name: new / 100 for name, (_, new) in step.portfolio_changes.items()}
            losses.append(value_at_risk(boards.history.window(row, 500), weights, 0.95))
    known = [one for one in losses if one is not None]
    assert len(known) > 10
    assert [(one.limit, one.exceeded, one.decisions, one.unknown) for one in report.var_limits] == [
        (limit, sum(one > limit for one in known), len(known), len(losses) - len(known))
        for limit in (0.02, 0.10)
    ]
    assert report.var_limits[0].exceeded > 0


def test_leak_is_called_suspicious() -> None:
    """Momentum that lasts for ever is nothing that a market offers."""
    rows, names = 420, 40
    drift = np.tile(np.linspace(-0.03, 0.03, names), (rows, 1))
    history = random_history(rows=rows, names=names, seed=22, drift=drift)
    configuration = replace(
        Configuration(),
        scoring=replace(
            Configuration().scoring,
            factor_weights={"nearness_to_high": 1.0, "volatility": 0.0, "drawdown": 1.0},
        ),
    )
    boards = BoardSeries.of(history, configuration, SECTORS, TradingCosts())
    options = EvidenceOptions(BacktestOptions(110, 410, every=7), draws=20)
    report = gather_evidence(boards, options).report
    assert report.evidence.ic.mean is not None
    assert report.evidence.ic.mean > 0.25
    assert report.headline()[0].startswith("SUSPICIOUS: ")
    assert "an IC above 0.25" in report.headline()[0]
    assert report.permutation is not None
    assert report.permutation.p_value == 1 / (1 + report.permutation.permutations)


def test_scores_at_the_end_of_a_history_are_those_of_the_whole(history: CandleHistory) -> None:
    scores = _boards(history).scores(LAST)
    for row in (130, 180):
        cut = _boards(history.until(row)).scores(row)
        names = [history.symbols.index(name) for name in history.until(row).symbols]
        assert np.array_equal(cut[row], scores[row, names], equal_nan=True)


def test_scores_shifted_by_one_bar_keep_most_of_their_evidence() -> None:
    """A score that used the bar being traded would lose its evidence."""
    rows, names, seed = 260, 24, 5
    generator = np.random.default_rng(seed)
    generator.normal(size=(rows, 1))
    calmness = 0.5 - generator.random(names)  # the volatilities that `random_history` draws
    drift = np.tile(0.01 * calmness, (rows, 1))
    history = random_history(rows, names, seed, drift)
    boards = _boards(history)
    scores = boards.scores(rows - 1)
    opened, close = history.panel.open, history.panel.close

    def change_of_ic(values: Floats) -> float:
        later = np.vstack([np.full((1, names), np.nan), values[:-1]])
        known = np.isfinite(values) & np.isfinite(later)
        both = [np.where(known, one, np.nan) for one in (values, later)]
        now, then = (evaluate_scores(one, opened, close, 7, decay=()).ic.mean for one in both)
        assert now is not None
        assert then is not None
        assert now > 0.1
        return abs(then / now - 1.0)

    assert change_of_ic(scores) < 0.10
    next_day = np.vstack([close[1:] / close[:-1] - 1.0, np.full((1, names), np.nan)])
    assert change_of_ic(next_day) > 0.5


@pytest.mark.parametrize("names", [{"volatility", "btc_correlation"}, None], ids=["two", "all"])
def test_factor_of_ones_own_is_measured_bar_by_bar(
    history: CandleHistory, names: set[str] | None
) -> None:
    """A measure that the table does not know may read whatever it likes of a bar's panel."""
    known = _boards(history)
    foreign = tuple(
        replace(one, measure=partial(lambda measure, inputs: measure(inputs), one.measure))
        if names is None or one.name in names
        else one
        for one in known.spec.factors
    )
    other = BoardSeries(
        known.listed, known.configuration, replace(known.spec, factors=foreign), known.eligible
    )
    assert np.array_equal(other.scores(130), known.scores(130), equal_nan=True)
    assert np.isfinite(other.scores(130)[130]).all()


def test_rows_outside_the_history_are_refused(history: CandleHistory) -> None:
    boards = _boards(history)
    for options in (
        BacktestOptions(-1, 5), BacktestOptions(5, 5), BacktestOptions(5, 999),
        BacktestOptions(5, 9, every=0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="rows of a backtest"):
            run_backtest(boards, options)


def test_cards_cover_composite_low_volatility_families_and_every_factor() -> None:
    boards = _boards(random_history(rows=420, names=30, seed=5))
    cards = {one.name: one for one in validate_factors(boards, 110, 410, 3, trials=4)}
    assert set(cards) == {
        "composite", "low volatility alone", *Family, *(one.name for one in boards.spec.factors)
    }  # fmt: skip
    assert all((len(one.periods), one.trials) == (3, 4) for one in cards.values())
    assert cards["composite"].label is EvidenceLabel.UNPROVEN  # random prices
    whole = cards["composite"].whole
    assert whole is not None
    assert whole.ic.count == sum(one.ic.count for one in cards["composite"].periods) + 16
    with pytest.raises(ValueError, match="too few for 6 periods"):
        validate_factors(boards, 110, 410, 6, trials=0)


def test_disaster_shows_rank_weight_fall_and_cost() -> None:
    history = random_history(seed=4)
    owned = min(_members_of_the_first_days(_run(history), 31))
    column, row = history.symbols.index(owned), FIRST + 31
    fields = {name: getattr(history.panel, name).copy() for name in FIELDS}
    for name in ("open", "high", "low", "close"):
        fields[name][row:, column] *= 0.05
    fallen = CandleHistory.of("fallen", replace(history.panel, **fields))
    boards = _boards(fallen)
    run = run_backtest(boards, BacktestOptions(FIRST, LAST, every=3))
    day = fallen.closed_at(row - 1).date()  # the bar of `row` opens when the one before closes
    found = audit_disaster(boards, run, owned, day)
    assert [rank is not None for rank in found.ranks.values()] == [True, True, True]
    rank, count = found.ranks[1] or (0, 0)
    assert 1 <= rank <= count == len(history.symbols)
    assert found.held_weight is not None
    assert found.held_weight > 0.0
    assert found.fall is not None
    assert -0.97 < found.fall < -0.90
    assert found.cost == pytest.approx(found.held_weight / 100.0 * found.fall)
    never = audit_disaster(boards, run, "C01USDT", fallen.closed_at(40).date())
    assert never.held_weight is None  # before the run
    assert never.ranks[30] is None
    with pytest.raises(ValueError, match="no listing XUSDT"):
        audit_disaster(boards, run, "XUSDT", day)
