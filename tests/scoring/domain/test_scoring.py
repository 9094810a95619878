"""From inputs to a board: order, confidence, reasons, and what may not change a score."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.special import ndtr

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family, Source
from app.foundation.data_status import DataSource
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.scoring.domain.board import BoardDraft, Card, CardStatus, Confidence
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.engine import score
from app.scoring.domain.factors import FACTORS
from tests.scoring.domain.test_factors import REMOVED, permuted, with_bars, without_bars
from tests.support.scoring_inputs import AS_OF_MS, DAY_MS, make_inputs

SPEC = AlgorithmSpec("default", Configuration().family_weights)
INPUTS = make_inputs(30)


def by_symbol(draft: BoardDraft) -> Mapping[str, Card]:
    return {card.symbol: card for card in draft.cards}


def test_a_complete_universe_is_ranked_whole() -> None:
    draft = score(INPUTS, SPEC)
    assert draft.universe_size == 30
    assert draft.as_of == datetime.fromtimestamp(AS_OF_MS / 1000, UTC)
    assert [card.rank for card in draft.cards] == list(range(1, 31))
    scores = [card.composite for card in draft.cards]
    assert scores == sorted(scores, key=lambda one: -(one or 0.0))
    for card in draft.cards:
        assert card.status is CardStatus.SCORED
        assert card.reason is None
        assert card.detail is None
        assert card.z is not None
        assert card.confidence is not None
        assert card.composite == pytest.approx(float(ndtr(card.z)), abs=1e-15)
        assert 0.0 < card.confidence.level < 1.0
        assert card.confidence.completeness == pytest.approx(1.0)
        assert card.confidence.reliability is None
        shares = [one.contribution for one in card.factors if one.contribution is not None]
        assert sum(shares) == pytest.approx(card.z, abs=1e-9)
        assert sum(one.weight for one in card.factors) == pytest.approx(1.0)
        assert card.volatility is not None
        assert card.volatility > 0.0
        assert set(card.families) == set(Family)
        assert all(value is not None and 0.0 < value < 1.0 for value in card.families.values())
    assert dict(draft.coverage) == {
        factor.name: 29 / 30 if factor.against_market else 1.0 for factor in FACTORS
    }


def test_the_market_is_scored_without_what_compares_it_with_itself() -> None:
    card = by_symbol(score(INPUTS, SPEC))["BTCUSDT"]
    own = [one for one in card.factors if one.reason is not None]
    assert {one.name for one in own} == {"idiosyncratic_volatility", "btc_correlation"}
    for one in own:
        assert (one.raw, one.z, one.contribution) == (None, None, None)
        assert one.reason == "is_the_market"
    assert card.families[Family.RISK] is not None
    assert card.composite is not None
    assert card.confidence is not None
    assert card.confidence.completeness == 1.0, "what cannot apply is not missing"


def test_confidence_by_hand() -> None:
    ages = {source: np.zeros(30) for source in Source}
    ages[Source.BOOKS] = np.full(30, 900.0)
    ages[Source.CONTRACTS] = np.full(30, -5.0)  # a clock ahead is not fresher than fresh
    card = score(replace(INPUTS, ages_s=ages), SPEC).cards[0]
    book_weight = 0.25 * 0.66  # depth and impact: half books at one half-life, half contracts
    assert card.confidence is not None
    assert card.confidence.completeness == pytest.approx(1.0)
    assert card.confidence.freshness == pytest.approx(1.0 - book_weight * 0.25)
    assert card.confidence.sample == pytest.approx(200 / 230 / (250 / 280))
    assert Confidence(0.5, 0.8, 1.0, 0.5).level == pytest.approx(0.2)


@pytest.mark.parametrize("hours", [0.0, 8.0, 23.9])
def test_a_daily_candle_does_not_age_before_the_next_one_is_due(hours: float) -> None:
    """Counted from the close, between 94 and 98 symbols passed .60 with the time of day."""

    def aged(hours: float) -> BoardDraft:
        ages = {source: values.copy() for source, values in INPUTS.ages_s.items()}
        ages[Source.DAILY_CANDLES][:] = hours * 3_600
        ages[Source.HOURLY_CANDLES][:] = 3_600 * hours / 24
        return score(replace(INPUTS, ages_s=ages), SPEC)

    assert aged(hours).cards == aged(0.0).cards
    late = aged(36.0).cards[0].confidence
    fresh = aged(0.0).cards[0].confidence
    assert late is not None
    assert fresh is not None
    assert late.freshness < fresh.freshness


def test_sample_is_full_from_250_bars_on() -> None:
    draft = score(make_inputs(12, daily=300), SPEC)
    assert {card.confidence.sample for card in draft.cards if card.confidence} == {1.0}


def test_confidence_shrinks_towards_neutral() -> None:
    fresh = by_symbol(score(INPUTS, SPEC))
    old = {source: np.full(30, INPUTS.half_lives_s[source] * 0.99) for source in Source}
    for symbol, card in by_symbol(score(replace(INPUTS, ages_s=old), SPEC)).items():
        before, after = fresh[symbol].composite, card.composite
        assert before is not None
        assert after is not None
        assert abs(after - 0.5) <= abs(before - 0.5)
        assert (after - 0.5) * (before - 0.5) >= 0.0


@pytest.mark.parametrize("source", Source)
def test_removing_an_input_takes_exactly_its_factors_and_families(source: Source) -> None:
    draft = score(REMOVED[source](INPUTS), SPEC)
    gone = {factor.name for factor in FACTORS if source in factor.sources}
    assert {name for name, share in draft.coverage.items() if share == 0.0} == gone
    relative = {factor.name for factor in FACTORS if factor.against_market}
    others = {name: share for name, share in draft.coverage.items() if name not in gone}
    assert others == {name: 29 / 30 if name in relative else 1.0 for name in others}
    lost = {
        Source.CONTRACTS: {Family.MARKET_STRUCTURE},
        Source.BOOKS: {Family.MARKET_STRUCTURE},
        Source.DAILY_CANDLES: {Family.TECHNICAL, Family.RISK},
    }.get(source, set())
    for card in draft.cards:
        assert {family for family, value in card.families.items() if value is None} == lost
        for one in card.factors:
            of_market = card.symbol == "BTCUSDT" and one.name in relative
            missing = f"missing_{source}" if one.name in gone else None
            reason = "is_the_market" if of_market else missing
            assert one.reason == (reason or None)
            assert (one.raw is None) == (one.z is None) == bool(reason)
        if card.composite is None:
            assert source is Source.DAILY_CANDLES
            assert card.reason == "insufficient_inputs"
            assert card.detail == "missing_daily_candles"
            assert card.confidence is None
            assert {one.contribution for one in card.factors} == {None}


def test_open_interest_alone_does_not_push_confidence_down() -> None:
    whole = by_symbol(score(INPUTS, SPEC))
    draft = score(replace(INPUTS, open_interest=np.full_like(INPUTS.open_interest, np.nan)), SPEC)
    levels = [card.confidence.level for card in draft.cards if card.confidence]
    assert len(levels) == 30
    assert np.median(levels) >= 0.7
    for symbol, card in by_symbol(draft).items():
        assert (card.z, card.confidence) == (whole[symbol].z, whole[symbol].confidence)
    assert draft.coverage["open_interest_change"] == 0.0


def test_one_symbol_without_any_data_is_unavailable_and_the_others_stand() -> None:
    def lose(panel: Panel) -> Panel:
        fields = {name: getattr(panel, name).copy() for name in FIELDS}
        for array in fields.values():
            array[:, 4] = np.nan
        return replace(panel, **fields)

    inputs = with_bars(with_bars(INPUTS, "daily", lose), "hourly", lose)
    bid = inputs.bid.copy()
    bid[4] = np.nan
    interest = inputs.open_interest.copy()
    interest[:, 4] = np.nan
    inputs = replace(
        inputs,
        bid=bid,
        open_interest=interest,
        books=(*inputs.books[:4], None, *inputs.books[5:]),
        funding=(*inputs.funding[:4], (), *inputs.funding[5:]),
        excluded={"ZUSDT": "market_stage", "AUSDT": "status_open"},
    )
    draft = score(inputs, SPEC)
    assert draft.universe_size == 29
    dead = by_symbol(draft)[inputs.symbols[4]]
    assert (dead.status, dead.reason) == (CardStatus.UNAVAILABLE, "no_market_data")
    assert dead.detail == "missing_daily_candles"
    assert (dead.composite, dead.z, dead.rank, dead.confidence) == (None, None, None, None)
    assert dead.volatility is None
    assert [card.symbol for card in draft.cards[-3:]] == ["AUSDT", inputs.symbols[4], "ZUSDT"]
    excluded = draft.cards[-1]
    assert (excluded.reason, excluded.detail) == ("not_eligible", "market_stage")
    assert excluded.factors == ()
    assert set(excluded.families.values()) == {None}


def test_a_small_universe_is_not_ranked() -> None:
    draft = score(make_inputs(9), SPEC)
    assert draft.universe_size == 0
    assert {card.reason for card in draft.cards} == {"universe_too_small"}
    reading = draft.cards[0].factors[0]
    assert reading.raw is not None
    assert (reading.z, reading.reason) == (None, "universe_too_small")


def test_nobody_to_score() -> None:
    empty = permuted(INPUTS, np.array([], dtype=np.int64))
    draft = score(replace(empty, excluded={"AUSDT": "status_open"}), SPEC)
    assert draft.universe_size == 0
    assert [card.symbol for card in draft.cards] == ["AUSDT"]
    assert set(draft.coverage.values()) == {0.0}


def test_equal_symbols_share_a_score_and_are_ordered_by_name() -> None:
    same = permuted(INPUTS, np.array([0, *[7] * 12]))
    names = ("BTCUSDT", *(f"T{index:02d}USDT" for index in range(12)))
    same = replace(
        same,
        symbols=names,
        daily=replace(same.daily, symbols=names),
        hourly=replace(same.hourly, symbols=names),
    )
    twins = [card for card in score(same, SPEC).cards if card.symbol != "BTCUSDT"]
    assert len({card.composite for card in twins}) == 1
    assert [card.symbol for card in twins] == list(names[1:])
    # So are those whose scores differ by less than a millionth: each quote is a trifle older.
    for step_s in (1e-6, -1e-6):
        ages = np.array([1.0 + step_s * index for index in range(13)], np.float64)
        nearly = score(replace(same, ages_s={**same.ages_s, Source.TICKERS: ages}), SPEC)
        twins = [card for card in nearly.cards if card.symbol != "BTCUSDT"]
        assert len({card.z for card in twins}) > 1
        assert [card.symbol for card in twins] == list(names[1:])


def test_the_order_of_symbols_does_not_matter() -> None:
    order = np.random.default_rng(4).permutation(30)
    one, other = score(INPUTS, SPEC), score(permuted(INPUTS, order), SPEC)
    assert [card.symbol for card in one.cards] == [card.symbol for card in other.cards]
    for mine, theirs in zip(one.cards, other.cards, strict=True):
        assert mine.z == pytest.approx(theirs.z, abs=1e-12)


@pytest.mark.parametrize("factor", [factor.name for factor in FACTORS])
def test_only_ranks_of_a_factor_count(factor: str) -> None:
    """A monotone transform of one factor's raw values moves no score."""
    index = [one.name for one in FACTORS].index(factor)
    row = FACTORS[index]

    def bent(inputs: ScoringInputs) -> np.ndarray:
        values = row.measure(inputs)
        return np.asarray(np.arctan(values / np.nanmax(np.abs(values))) * 5.0 + 3.0)

    factors = (*FACTORS[:index], replace(row, measure=bent), *FACTORS[index + 1 :])
    mine = score(INPUTS, replace(SPEC, factors=factors))
    assert [card.z for card in mine.cards] == [card.z for card in score(INPUTS, SPEC).cards]


@pytest.mark.parametrize("back_days", [0, 3, 17])
def test_the_future_changes_no_board(back_days: int) -> None:
    at = AS_OF_MS - back_days * DAY_MS

    def cut(panel: Panel) -> Panel:
        closed = panel.opened_ms + panel.interval.ms <= at
        fields = {name: getattr(panel, name)[closed] for name in FIELDS}
        return replace(panel, opened_ms=panel.opened_ms[closed], **fields)

    late = replace(INPUTS, as_of_ms=at)
    past = replace(
        late,
        daily=cut(late.daily),
        hourly=cut(late.hourly),
        funding=tuple(tuple(f for f in each if f.settled_ms <= at) for each in late.funding),
        open_interest_ms=late.open_interest_ms[late.open_interest_ms <= at],
        open_interest=late.open_interest[late.open_interest_ms <= at],
    )
    assert score(past, SPEC) == score(late, SPEC)


def test_same_inputs_same_board_and_same_fingerprint() -> None:
    assert score(make_inputs(20, seed=8), SPEC) == score(make_inputs(20, seed=8), SPEC)
    assert score(make_inputs(20, seed=9), SPEC) != score(make_inputs(20, seed=8), SPEC)


def test_a_draft_is_issued_with_the_circumstances_of_its_run() -> None:
    draft = score(make_inputs(12), SPEC)
    board = draft.to_board(
        run_id="r", algorithm="default", algorithm_version=1, configuration_version=3,
        calculated_at=datetime(2025, 1, 1, tzinfo=UTC), duration_ms=12.5,
        data_source=DataSource.SANDBOX,
        is_provisional=False,
    )  # fmt: skip
    assert (board.cards, board.input_hash) == (draft.cards, draft.input_hash)
    assert board.card(draft.cards[3].symbol) is draft.cards[3]
    assert board.card("NOPE") is None


def test_all_bars_missing_is_not_a_crash() -> None:
    inputs = with_bars(with_bars(INPUTS, "daily", without_bars), "hourly", without_bars)
    assert {card.reason for card in score(inputs, SPEC).cards} == {"insufficient_inputs"}


def _holed(column: int, missing: int) -> ScoringInputs:
    """The daily bars of one symbol with `missing` of them gone, none near the end."""

    def holes(panel: Panel) -> Panel:
        fields = {name: getattr(panel, name).copy() for name in FIELDS}
        for array in fields.values():
            array[10 : 10 + missing, column] = np.nan
        return replace(panel, **fields)

    return replace(INPUTS, daily=holes(INPUTS.daily))


def test_D05_a_history_with_gaps_has_no_factors_and_one_of_holes_no_score() -> None:
    bars, symbol = len(INPUTS.daily.close), INPUTS.symbols[4]
    few = by_symbol(score(_holed(4, int(bars * 0.04)), SPEC))[symbol]
    assert few.composite is not None
    assert not [one.name for one in few.factors if one.reason is not None]

    some = by_symbol(score(_holed(4, int(bars * 0.06)), SPEC))[symbol]
    lost = {one.name: one.reason for one in some.factors if one.reason is not None}
    daily = {one.name for one in FACTORS if Source.DAILY_CANDLES in one.sources}
    assert lost == dict.fromkeys(daily, "gaps_daily_candles")

    assert bars % 5 == 0
    last = by_symbol(score(_holed(4, bars // 5), SPEC))[symbol]
    assert last.reason != "insufficient_history", "four fifths are enough"

    many = by_symbol(score(_holed(4, int(bars * 0.21)), SPEC))[symbol]
    assert (many.composite, many.reason) == (None, "insufficient_history")
    assert many.status is CardStatus.UNAVAILABLE


def test_D08_a_quote_wider_than_five_per_cent_is_none() -> None:
    ask = INPUTS.ask.copy()
    ask[4] = INPUTS.bid[4] * 1.06
    card = by_symbol(score(replace(INPUTS, ask=ask), SPEC))[INPUTS.symbols[4]]
    broken = {one.name: one.reason for one in card.factors if one.reason is not None}
    assert broken == {"spread": "broken_quote"}
    crossed = INPUTS.bid[4] * 0.99
    ask[4] = crossed
    card = by_symbol(score(replace(INPUTS, ask=ask), SPEC))[INPUTS.symbols[4]]
    assert {one.name for one in card.factors if one.reason is not None} == {"spread"}


def test_freshness_is_a_mean_over_what_a_symbol_has_and_never_above_one() -> None:
    ages = {source: np.full(len(INPUTS.symbols), -3.0) for source in Source}
    few = INPUTS.bid.copy()
    few[:5] = np.nan
    for card in score(replace(INPUTS, bid=few, ages_s=ages), SPEC).cards:
        assert card.confidence is not None
        assert card.confidence.freshness == pytest.approx(1.0, abs=1e-12)
        assert card.confidence.freshness <= 1.0
