"""Two implementations, one answer: the service's scoring against the plain one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.market.domain.panel import FIELDS, Panel, ScoringInputs, without_future
from app.market.domain.return_statistics import NotApplicable, correlations, pair_applies
from app.portfolio.domain.candidate_selection import ScoredCandidate, select_candidates
from app.portfolio.domain.weighting import WeightRequest, WeightRole, allocate_weights, raw_share
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from app.scoring.domain.score_stability import reliability
from app.scoring.services.replay import pack_inputs, unpack_inputs
from tests.support.recompute import project, recompute, scores
from tests.support.scoring_inputs import make_inputs

SETTINGS = Configuration()
SPEC = AlgorithmSpec("default", SETTINGS.family_weights)


def stored_of(inputs: ScoringInputs) -> dict[str, Any]:
    """As a run keeps it, with the candles that the database would give."""
    kept = unpack_inputs(pack_inputs(inputs))
    kept["candles"] = {"daily": _candles(inputs.daily), "hourly": _candles(inputs.hourly)}
    return kept


def _candles(panel: Panel) -> dict[str, list[list[float]]]:
    return {
        symbol: [
            [float(stamp), *(float(getattr(panel, name)[row, column]) for name in FIELDS)]
            for row, stamp in enumerate(panel.opened_ms)
            if np.isfinite(panel.close[row, column])
        ]
        for column, symbol in enumerate(panel.symbols)
    }


def torn(inputs: ScoringInputs, seed: int) -> ScoringInputs:
    """The same with young listings, gaps, missing and old inputs, a thin book."""
    rng = np.random.default_rng(seed)
    count = len(inputs.symbols)

    def bars(panel: Panel, start: int, gaps: int) -> Panel:
        fields: dict[str, Any] = {name: getattr(panel, name).copy() for name in FIELDS}
        rows = len(panel.opened_ms)
        for column in range(1, count):
            lost = rng.integers(rows // 2, rows - 40, gaps if column % 4 == 0 else 0)
            for array in fields.values():
                array[: start if column % 5 == 0 else 0, column] = np.nan
                array[lost, column] = np.nan
        return replace(panel, **fields)

    bid, books, funding = inputs.bid.copy(), list(inputs.books), list(inputs.funding)
    interest = inputs.open_interest.copy()
    bid[2], books[3], funding[4], interest[:, 5] = np.nan, None, (), np.nan
    thin = books[6]
    assert thin is not None
    books[6] = replace(thin, asks=thin.asks[:1], bids=tuple(b._replace(lots=0) for b in thin.bids))
    ages = {source: values.copy() for source, values in inputs.ages_s.items()}
    ages[Source.BOOKS][7] = 10_000.0
    ages[Source.HOURLY_CANDLES][8] = np.nan
    ages[Source.DAILY_CANDLES][9] = 1e9
    return replace(
        inputs, daily=bars(inputs.daily, 105, 3), hourly=bars(inputs.hourly, 60, 4),
        bid=bid, books=tuple(books), funding=tuple(funding), open_interest=interest, ages_s=ages,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("whole", [True, False], ids=["complete", "torn"])
def test_both_give_the_same_scores(seed: int, whole: bool) -> None:
    inputs = make_inputs(40, seed=seed)
    inputs = inputs if whole else torn(inputs, seed)
    draft = score(inputs, SPEC)
    mine = {card.symbol: card for card in draft.cards if card.composite is not None}
    theirs = scores(stored_of(without_future(inputs)))
    assert mine.keys() == theirs.keys()
    assert whole == (len(mine) == 40)
    for symbol, (value, z) in theirs.items():
        assert mine[symbol].z == pytest.approx(z, abs=1e-9)
        assert mine[symbol].composite == pytest.approx(value, abs=1e-9)


def test_both_find_the_same_reliability_and_the_same_breaks() -> None:
    inputs = make_inputs(16, seed=3)
    fields: dict[str, Any] = {name: getattr(inputs.daily, name).copy() for name in FIELDS}
    for name in ("open", "high", "low", "close"):
        fields[name][:60, 3] *= 1000.0  # a coin that was exchanged one to a thousand
    fields["close"][5:9, 4] = fields["open"][5:9, 4] = np.nan
    for array in fields.values():
        array[40:46, 5] = np.nan  # a halt of six days
        array[-6:-4, 6] = np.nan  # a gap that the days within it could not bridge
    inputs = replace(inputs, daily=replace(inputs.daily, **fields))
    steady = reliability(inputs.daily, SPEC, 12)
    assert np.isfinite(steady).all()
    draft = score(inputs, SPEC, steady)
    theirs = scores(stored_of(without_future(inputs)), steady_days=12)
    mine = {card.symbol: card.z for card in draft.cards if card.z is not None}
    assert mine.keys() == theirs.keys()
    assert {name: z for name, (_, z) in theirs.items()} == pytest.approx(mine, abs=1e-9)
    assert scores(stored_of(without_future(inputs))) != theirs


def test_both_say_nothing_of_prices_that_stand_still() -> None:
    inputs = make_inputs(20, seed=4)
    fields: dict[str, Any] = {name: getattr(inputs.hourly, name).copy() for name in FIELDS}
    for column, still in enumerate((19, 20, 60, 99, 100, 300), start=2):
        for name in ("open", "high", "low", "close"):
            fields[name][-still:, column] = inputs.hourly.close[-still, column]
    inputs = replace(inputs, hourly=replace(inputs.hourly, **fields))
    draft = score(inputs, SPEC)
    theirs = scores(stored_of(without_future(inputs)))
    mine = {card.symbol: card.z for card in draft.cards if card.z is not None}
    assert {name: z for name, (_, z) in theirs.items()} == pytest.approx(mine, abs=1e-9)
    gone = {
        name: [
            one.symbol for one in draft.cards for f in one.factors if f.name == name and f.reason
        ]
        for name in ("rsi_14", "macd_histogram", "bollinger_position")
    }
    assert {name: len(symbols) for name, symbols in gone.items()} == {
        "rsi_14": 0, "macd_histogram": 2, "bollinger_position": 5,
    }  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_choose_and_weigh_the_same_ten(seed: int) -> None:
    inputs = make_inputs(60, seed=seed)
    draft = score(inputs, SPEC)
    cards = {card.symbol: card for card in draft.cards}
    rules = SETTINGS.correlation
    matrix = correlations(
        inputs.daily, inputs.symbols, rules.basis, rules.addition_days, rules.min_common
    )
    place = {symbol: column for column, symbol in enumerate(inputs.symbols)}

    def correlation(one: str, other: str) -> float | NotApplicable | None:
        if not pair_applies(one, other, rules.basis):
            return NotApplicable.IS_THE_MARKET
        rho = float(matrix[place[one], place[other]])
        return None if np.isnan(rho) else rho

    # Two coins share each sector, so that its limit refuses none of them.
    sectors = {symbol: f"sector_{at // 2}" for at, symbol in enumerate(inputs.symbols)}
    candidates = [
        ScoredCandidate(card.symbol, True, True, card.composite, sectors[card.symbol])
        for card in draft.cards
    ]
    chosen = select_candidates(candidates, correlation, 10, SETTINGS).chosen
    claims = []
    for symbol in chosen:
        z, sigma = cards[symbol].z, cards[symbol].volatility
        assert z is not None
        assert sigma is not None
        claims.append(
            WeightRequest(symbol, WeightRole.FUNDED, raw_share(z, sigma, SETTINGS.score_tilt), 0)
        )
    allocation = allocate_weights(claims, SETTINGS.min_weight_u, SETTINGS.max_weight_u)
    table = recompute({**stored_of(inputs), "sectors": sectors})
    assert [symbol for symbol, _, _ in table] == list(chosen)
    assert len(table) == 10
    for symbol, value, weight in table:
        assert cards[symbol].composite == pytest.approx(value, abs=1e-9)
        assert weight == pytest.approx(allocation.weights_u[symbol] / 1e6, abs=2e-6)
    assert sum(weight for _, _, weight in table) == pytest.approx(100.0)


def test_another_market_is_another_table() -> None:
    tables = [recompute(stored_of(make_inputs(40, seed=seed))) for seed in (1, 2)]
    assert tables[0] != tables[1]


def test_projection_golden() -> None:
    shares = (0.4, 0.2, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02)
    expected = (20, 20, 13.636364, 10.909091, 8.181818, 6.818182, 5.454545, 5, 5, 5)
    found = project(shares)
    assert sum(found) == 100_000_000
    assert [one / 1e6 for one in found] == pytest.approx(expected, abs=2e-6)
    assert project((1.0, 2.0)) == [20_000_000, 20_000_000]
