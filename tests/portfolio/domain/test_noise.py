"""The last bits of floating point change no decision."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.model import Configuration, WeightingMethod
from app.foundation.data_status import DataSource
from app.market.domain.models import Floats
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.market.domain.return_statistics import NotApplicable, correlations, pair_applies
from app.portfolio.domain.candidate_selection import ScoredCandidate, select_candidates
from app.portfolio.domain.lots import allocate_lots
from app.portfolio.domain.models import FULL
from app.portfolio.domain.rebalance_plan import plan_rebalance
from app.portfolio.domain.replacement import ReplacementSide, compare_symbols
from app.portfolio.domain.weighting import (
    Covariance,
    MethodInput,
    estimate_covariance,
    project_weights,
    raw_shares,
)
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from app.signals.domain.agents import SignalFeatures, UniverseContext
from app.signals.domain.consensus import Recommendation as Say
from app.signals.domain.consensus import SignalEvaluation, Vote, conclude, reach_consensus
from app.signals.domain.models import Direction
from tests.portfolio.domain.test_portfolio import of
from tests.support.portfolios import HOUR, T0, status
from tests.support.scoring_inputs import make_inputs

SEEDS = range(50)
SETTINGS = replace(Configuration(), entry_score=0.3, exit_score=0.2)
SPEC = AlgorithmSpec("default", SETTINGS.family_weights)
METHODS = tuple(one for one in WeightingMethod if one is not WeightingMethod.FIXED)


class Backwards(np.ndarray[Any, Any]):
    """An array whose matrix products sum from the last term to the first."""

    products = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(one) if isinstance(one, Backwards) else one for one in inputs]
        if options.get("out") is not None:
            options["out"] = tuple(np.asarray(one) for one in options["out"])
        if ufunc is np.matmul:
            Backwards.products += 1
            left, right = plain
            plain = [left[..., ::-1], right[::-1]]
        made = getattr(ufunc, method)(*plain, **options)
        return made.view(Backwards) if isinstance(made, np.ndarray) else made


@dataclass(frozen=True)
class Decided:
    """All that is decided on one set of inputs."""

    ranks: tuple[str, ...]
    members: tuple[str, ...]
    weights: Mapping[str, Mapping[str, int]]
    lots: tuple[int, ...]
    verdicts: Mapping[str, SignalEvaluation | None]
    changes: Mapping[str, tuple[tuple[str, int], ...]]
    better: tuple[str, ...]


def one_ulp(values: Floats, rng: np.random.Generator) -> Floats:
    """Each value as it is, or the next floating-point number above or below it."""
    way = rng.integers(-1, 2, values.shape)
    return np.where(way == 0, values, np.nextafter(values, np.where(way > 0, np.inf, -np.inf)))


def noisy(inputs: ScoringInputs, seed: int) -> ScoringInputs:
    rng = np.random.default_rng(seed)

    def panel(one: Panel) -> Panel:
        changed: dict[str, Any] = {name: one_ulp(getattr(one, name), rng) for name in FIELDS}
        return replace(one, **changed)

    return replace(
        inputs,
        daily=panel(inputs.daily),
        hourly=panel(inputs.hourly),
        bid=one_ulp(inputs.bid, rng),
        ask=one_ulp(inputs.ask, rng),
        multiplier=one_ulp(inputs.multiplier, rng),
        open_interest=one_ulp(inputs.open_interest, rng),
        ages_s={source: one_ulp(ages, rng) for source, ages in inputs.ages_s.items()},
    )


@cache
def quiet() -> ScoringInputs:
    """Forty symbols; the last five are the five before them once more under other names."""
    inputs = make_inputs(40, seed=4)
    same = [*range(35), *range(30, 35)]

    def panel(one: Panel) -> Panel:
        changed: dict[str, Any] = {name: getattr(one, name)[:, same] for name in FIELDS}
        return replace(one, **changed)

    return replace(
        inputs,
        daily=panel(inputs.daily),
        hourly=panel(inputs.hourly),
        bid=inputs.bid[same],
        ask=inputs.ask[same],
        books=tuple(inputs.books[at] for at in same),
        funding=tuple(inputs.funding[at] for at in same),
        open_interest=inputs.open_interest[:, same],
        ages_s={source: ages[same] for source, ages in inputs.ages_s.items()},
    )


def decide(inputs: ScoringInputs, *, backwards: bool = False) -> Decided:
    board = score(inputs, SPEC).to_board(
        run_id="one",
        algorithm="default",
        algorithm_version=1,
        configuration_version=1,
        calculated_at=datetime(2026, 1, 1, tzinfo=UTC),
        duration_ms=1.0,
        data_source=DataSource.SANDBOX,
        is_provisional=False,
    )
    basis = SETTINGS.correlation.basis
    daily = inputs.daily
    if backwards:
        daily = replace(daily, close=daily.close.view(Backwards))
    rho = np.asarray(correlations(daily, inputs.symbols, basis, 90))
    place = {name: at for at, name in enumerate(inputs.symbols)}

    def correlation(one: str, other: str) -> float | NotApplicable:
        if not pair_applies(one, other, basis):
            return NotApplicable.IS_THE_MARKET
        return float(rho[place[one], place[other]])

    selection = select_candidates(
        (ScoredCandidate(one.symbol, True, True, one.composite, one.symbol) for one in board.cards),
        correlation,
        10,
        SETTINGS,
    )
    cards = {one.symbol: one for one in board.cards}
    statuses = {
        name: status(
            name, cards[name].composite, z=cards[name].z, volatility=cards[name].volatility
        )
        for name in selection.chosen
    }
    known = estimate_covariance(inputs.daily, selection.chosen)
    if backwards:
        known = Covariance(known.symbols, known.matrix.view(Backwards))
    rules = replace(SETTINGS.rebalancing, volatility_target=0.2)
    calm = replace(SETTINGS, rebalancing=rules)
    plans = {
        f"{method} {settings is calm}": plan_rebalance(
            of(*selection.chosen), statuses, settings, T0 + HOUR, known, method
        )
        for method in METHODS
        for settings in (SETTINGS, calm)
    }
    weights = {name: made.allocation.weights_u for name, made in plans.items()}
    tilted = weights[f"{WeightingMethod.SCORE_TILTED} False"]
    names = sorted(tilted)
    prices = [Fraction(Decimal(f"{inputs.bid[place[name]]:.6g}")) for name in names]
    around = UniverseContext.of(board)
    contenders = {
        name: ReplacementSide(name, "x", one.composite, one.z, 0.9, 0.001, 0.1)
        for name, one in cards.items()
    }
    noise = dict.fromkeys(cards, 0.02)
    weakest = contenders[selection.chosen[-1]]
    return Decided(
        ranks=tuple(one.symbol for one in board.cards),
        members=selection.chosen,
        weights=weights,
        lots=allocate_lots(
            [Fraction(tilted[name], FULL) for name in names], [one / 5_000 for one in prices]
        ).steps,
        verdicts={
            name: reach_consensus(
                Direction.BUY, SignalFeatures.of(one, around), SETTINGS.signals
            ).evaluation
            for name, one in cards.items()
        },
        changes={
            name: tuple((change.symbol, change.change_u) for change in made.changes)
            for name, made in plans.items()
        },
        better=tuple(
            name
            for name, one in contenders.items()
            if compare_symbols(weakest, one, noise, SETTINGS.replacement).exceeds(
                SETTINGS.replacement
            )
        ),
    )


@cache
def usual() -> Decided:
    return decide(quiet())


def test_the_decisions_that_noise_must_not_change_are_decisions() -> None:
    made = usual()
    assert len(made.members) == 10
    assert len({tuple(sorted(one.items())) for one in made.weights.values()}) > 4
    assert all(made.lots)
    assert len(set(made.verdicts.values())) > 1
    assert sum(map(bool, made.changes.values())) > 8
    assert made.better


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_of_the_last_bit_changes_no_decision(seed: int) -> None:
    assert decide(noisy(quiet(), seed)) == usual()


def test_matrix_products_that_sum_in_another_order_change_no_decision() -> None:
    before = Backwards.products
    assert decide(quiet(), backwards=True) == usual()
    assert Backwards.products > before + 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_members_that_are_equally_far_apart_weigh_the_same_with_noise(
    spread: float, method: WeightingMethod, seed: int
) -> None:
    names = tuple(f"{letter}USDT" for letter in "ABCDEFG")
    sd = 0.5 + spread * np.arange(7) / 7
    matrix = np.outer(sd, sd) * (np.full((7, 7), 0.3) + 0.7 * np.eye(7))
    rng = np.random.default_rng(seed)
    upper = np.triu(one_ulp(matrix, rng))
    shaken = upper + np.triu(upper, 1).T
    basis = {name: MethodInput(0.5, 0.5, SETTINGS.score_tilt) for name in names}
    moved = {
        name: MethodInput(
            float(one_ulp(np.array([0.5]), rng)[0]),
            float(one_ulp(np.array([0.5]), rng)[0]),
            SETTINGS.score_tilt,
        )
        for name in names
    }
    assert _weights(method, moved, Covariance(names, shaken.view(Backwards))) == _weights(
        method, basis, Covariance(names, matrix)
    )


def _weights(
    method: WeightingMethod, members: Mapping[str, MethodInput], known: Covariance
) -> list[int]:
    pulls = raw_shares(method, members, known)
    return project_weights([pulls[name] for name in sorted(pulls)], 0, FULL // 3, FULL)[0]


def test_twelve_of_twenty_are_three_fifths() -> None:
    favour = [Vote(f"v{at:02}", 0.05, 0.7, Say.APPROVE, 1.0) for at in range(12)]
    votes = [*favour, *(Vote(f"v{at}", 0.05, 0.65, Say.REJECT, 1.0) for at in range(12, 20))]
    rules = replace(SETTINGS.signals, min_consensus=0.6, strong_consensus=0.6)
    made = conclude(Direction.BUY, votes, rules, is_by_skill=True)
    assert made.evaluation is SignalEvaluation.STRONG_APPROVE
    again = conclude(Direction.BUY, votes[::-1], rules, is_by_skill=True)
    assert again.evaluation is SignalEvaluation.STRONG_APPROVE
