"""Each row of the factor table: values by hand, dependence on sources, no look-ahead."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.sections import Family, ScoringSettings, Source
from app.market.domain.models import Funding, Level
from app.market.domain.panel import FIELDS, Panel, ScoringInputs, without_future
from app.market.domain.trade_flow import TradeFlow
from app.scoring.domain.factors import FACTORS, Factor, measure, rounded_significant
from app.scoring.domain.market_factors import impact
from tests.support.scoring_inputs import AS_OF_MS, DAY_MS, HOUR_MS, make_inputs

NAN = float("nan")
TABLE = {factor.name: factor for factor in FACTORS}
INPUTS = make_inputs(14)
every_factor = pytest.mark.parametrize("factor", FACTORS, ids=list(TABLE))


def values(name: str, inputs: ScoringInputs = INPUTS) -> np.ndarray:
    return measure(TABLE[name], inputs).values


def with_bars(inputs: ScoringInputs, field: str, change: Callable[[Panel], Panel]) -> ScoringInputs:
    changed: dict[str, Any] = {field: change(getattr(inputs, field))}
    return replace(inputs, **changed)


def without_bars(panel: Panel) -> Panel:
    fields: dict[str, Any] = {name: np.full(panel.close.shape, NAN) for name in FIELDS}
    return replace(panel, **fields)


# How each source is taken away whole.
REMOVED: dict[Source, Callable[[ScoringInputs], ScoringInputs]] = {
    Source.CONTRACTS: lambda i: replace(
        i, multiplier=np.full(len(i.symbols), NAN), open_interest=np.full_like(i.open_interest, NAN)
    ),
    Source.TICKERS: lambda i: replace(
        i, bid=np.full(len(i.symbols), NAN), ask=np.full(len(i.symbols), NAN)
    ),
    Source.BOOKS: lambda i: replace(i, books=(None,) * len(i.symbols)),
    Source.FUNDING: lambda i: replace(i, funding=((),) * len(i.symbols)),
    Source.DAILY_CANDLES: lambda i: with_bars(i, "daily", without_bars),
    Source.HOURLY_CANDLES: lambda i: with_bars(i, "hourly", without_bars),
}


def test_weights_of_a_family_add_up_and_names_are_unique() -> None:
    for family in Family:
        total = sum(factor.weight for factor in FACTORS if factor.family is family)
        assert total == pytest.approx(1.0)
    assert len(TABLE) == len(FACTORS)
    assert {factor.orientation for factor in FACTORS} == {-1, 1}


def test_weights_follow_the_evidence() -> None:
    weight = {name: factor.weight for name, factor in TABLE.items()}
    assert weight["nearness_to_high"] > 0.7
    assert weight["rsi_14"] + weight["macd_histogram"] + weight["bollinger_position"] < 0.25
    assert [name for name in TABLE if name.startswith("depth")] == ["depth_25"], "one number"
    assert {name for name, share in weight.items() if share == 0.0} == {
        "volume_trend",
        "open_interest_change",
        "efficiency",
        "signed_volume",
        "trade_intensity",
        "btc_beta",
    }
    assert min(weight.values()) == 0.0


def test_impact_is_measured_at_a_notional_that_matters() -> None:
    """The default setting and the default of the factor are one number, which moves the values."""
    assert ScoringSettings().impact_notional == 20_000.0
    usual = values("impact")
    np.testing.assert_array_equal(usual, rounded_significant(impact(INPUTS, notional=20_000.0)))
    assert (usual > impact(INPUTS, notional=2_000.0)).any()


@every_factor
def test_complete_inputs_leave_nothing_missing(factor: Factor) -> None:
    one = measure(factor, INPUTS)
    assert np.isfinite(one.values[1:]).all()
    assert set(one.reasons[1:]) == {None}
    own = "is_the_market" if factor.against_market else None
    assert one.reasons[0] == own
    assert np.isnan(one.values[0]) == (own is not None)


def test_the_market_is_not_compared_with_itself() -> None:
    assert {factor.name for factor in FACTORS if factor.against_market} == {
        "idiosyncratic_volatility", "btc_correlation"
    }  # fmt: skip
    inputs = permuted(INPUTS, np.array([3, 0, 1, 2, *range(4, 14)]))
    for name in ("idiosyncratic_volatility", "btc_correlation"):
        one = measure(TABLE[name], inputs)
        assert np.flatnonzero(np.isnan(one.values)).tolist() == [1]
        assert one.reasons[1] == "is_the_market"


@every_factor
@pytest.mark.parametrize("source", Source)
def test_removing_a_source_takes_exactly_the_dependent_factors(
    factor: Factor, source: Source
) -> None:
    before, after = measure(factor, INPUTS), measure(factor, REMOVED[source](INPUTS))
    if source in factor.sources:
        assert np.isnan(after.values).all()
        own = {"is_the_market"} if factor.against_market else set()
        assert set(after.reasons) == {f"missing_{source}", *own}
    else:
        np.testing.assert_array_equal(after.values, before.values)


@every_factor
@pytest.mark.parametrize("source", Source)
def test_a_source_that_is_too_old_takes_exactly_the_dependent_factors(
    factor: Factor, source: Source
) -> None:
    limit = INPUTS.half_lives_s[source]
    ages = INPUTS.ages_s[source].copy()
    ages[1:4] = limit * 1.001, NAN, limit
    after = measure(factor, replace(INPUTS, ages_s={**INPUTS.ages_s, source: ages}))
    depends = source in factor.sources
    np.testing.assert_array_equal(np.isnan(after.values[1:4]), [depends, depends, False])
    assert after.reasons[1] == (f"stale_{source}" if depends else None)


@every_factor
def test_what_comes_later_changes_nothing(factor: Factor) -> None:
    """The same instant, seen with everything that happened in the three days after it."""
    late = replace(make_inputs(14), as_of_ms=AS_OF_MS + 3 * DAY_MS)
    at = AS_OF_MS - 5 * DAY_MS

    def at_instant(inputs: ScoringInputs) -> np.ndarray:
        return measure(factor, without_future(replace(inputs, as_of_ms=at))).values

    def truncated(panel: Panel) -> Panel:
        closed = panel.opened_ms + panel.interval.ms <= at
        return replace(
            panel,
            opened_ms=panel.opened_ms[closed],
            **{name: getattr(panel, name)[closed] for name in FIELDS},
        )

    past = replace(
        late,
        daily=truncated(late.daily),
        hourly=truncated(late.hourly),
        funding=tuple(tuple(f for f in each if f.settled_ms <= at) for each in late.funding),
        open_interest_ms=late.open_interest_ms[late.open_interest_ms <= at],
        open_interest=late.open_interest[late.open_interest_ms <= at],
    )
    np.testing.assert_array_equal(at_instant(past), at_instant(late))


@every_factor
def test_every_factor_follows_its_symbol(factor: Factor) -> None:
    inputs = make_inputs(14)
    order = np.random.default_rng(2).permutation(14)
    np.testing.assert_allclose(
        measure(factor, permuted(inputs, order)).values,
        measure(factor, inputs).values[order],
        rtol=1e-12,
        atol=1e-15,
    )


def permuted(inputs: ScoringInputs, order: np.ndarray) -> ScoringInputs:
    def bars(panel: Panel) -> Panel:
        fields = {name: getattr(panel, name)[:, order] for name in FIELDS}
        return replace(panel, symbols=symbols, **fields)

    symbols = tuple(inputs.symbols[i] for i in order)
    assert inputs.flow is not None
    return replace(
        inputs,
        symbols=symbols,
        flow=TradeFlow(*(one[order] for one in inputs.flow.columns)),
        daily=bars(inputs.daily),
        hourly=bars(inputs.hourly),
        bid=inputs.bid[order],
        ask=inputs.ask[order],
        multiplier=inputs.multiplier[order],
        books=tuple(inputs.books[i] for i in order),
        funding=tuple(inputs.funding[i] for i in order),
        open_interest=inputs.open_interest[:, order],
        ages_s={source: ages[order] for source, ages in inputs.ages_s.items()},
    )


def test_a_listing_of_ninety_days_has_every_factor() -> None:
    def young(panel: Panel) -> Panel:
        fields = {name: getattr(panel, name).copy() for name in FIELDS}
        for array in fields.values():
            array[:-90, 3] = NAN
        return replace(panel, **fields)

    inputs = with_bars(INPUTS, "daily", young)
    for factor in FACTORS:
        assert np.isfinite(measure(factor, inputs).values[3]), factor.name


def test_a_listing_of_forty_days_lacks_the_long_windows() -> None:
    def young(panel: Panel) -> Panel:
        fields = {name: getattr(panel, name).copy() for name in FIELDS}
        for array in fields.values():
            array[:-40, 3] = NAN
        return replace(panel, **fields)

    inputs = with_bars(INPUTS, "daily", young)
    lacking = {f.name: measure(f, inputs).reasons[3] for f in FACTORS}
    long = {"nearness_to_high", "volume_growth", "efficiency", "drawdown"}
    market = {"idiosyncratic_volatility", "btc_correlation", "btc_beta"}
    assert {name for name, reason in lacking.items() if reason} == long | market
    assert lacking["drawdown"] == "too_few_bars"
    assert lacking["btc_correlation"] == "too_few_bars_or_no_market"


def test_price_factors_by_hand() -> None:
    daily, hourly = INPUTS.daily, INPUTS.hourly
    close, turnover = daily.close, daily.turnover
    np.testing.assert_allclose(
        values("nearness_to_high"), np.log(close[-1] / close[-60:].max(axis=0))
    )
    np.testing.assert_allclose(
        values("volume_trend"), np.log(turnover[-5:].mean(0) / turnover[-30:].mean(0))
    )
    np.testing.assert_allclose(
        values("volume_growth"), np.log(turnover[-30:].mean(0) / turnover[-90:-30].mean(0))
    )
    returns = np.diff(np.log(close), axis=0)
    np.testing.assert_allclose(values("highest_return"), returns[-30:].max(axis=0))
    window = close[-90:]
    falls = (window / np.maximum.accumulate(window) - 1).min(axis=0)
    np.testing.assert_allclose(values("drawdown"), falls)
    ratio = np.abs(returns[-30:]) / turnover[-30:]
    np.testing.assert_allclose(values("liquidity_risk"), np.log(ratio.std(axis=0, ddof=1)))
    market = np.corrcoef(returns[-60:].T)[0]
    np.testing.assert_allclose(values("btc_correlation")[1:], market[1:])
    assert (values("efficiency") <= 0.0).all()
    middle, spread = hourly.close[-20:].mean(0), hourly.close[-20:].std(0)
    position = (hourly.close[-1] - (middle - 2 * spread)) / (4 * spread)
    np.testing.assert_allclose(values("bollinger_position"), position)


def test_without_bitcoin_the_market_factors_are_missing() -> None:
    inputs = permuted(INPUTS, np.arange(1, 14))
    for name in ("btc_correlation", "idiosyncratic_volatility"):
        one = measure(TABLE[name], inputs)
        assert set(one.reasons) == {"too_few_bars_or_no_market"}


def test_the_newest_bar_may_come_late_but_not_too_late() -> None:
    def late(rows: int) -> Callable[[Panel], Panel]:
        def change(panel: Panel) -> Panel:
            fields = {name: getattr(panel, name).copy() for name in FIELDS}
            for array in fields.values():
                array[-rows:, 1] = NAN
            return replace(panel, **fields)

        return change

    assert np.isfinite(values("nearness_to_high", with_bars(INPUTS, "daily", late(1)))[1])
    assert np.isnan(values("nearness_to_high", with_bars(INPUTS, "daily", late(2)))[1])
    assert np.isfinite(values("rsi_14", with_bars(INPUTS, "hourly", late(2)))[1])
    assert np.isnan(values("rsi_14", with_bars(INPUTS, "hourly", late(3)))[1])


def test_fast_factors_need_two_hundred_and_fifty_hours() -> None:
    for bars, known in ((249, False), (250, True)):
        inputs = make_inputs(3, hourly=bars)
        for name in ("rsi_14", "macd_histogram", "bollinger_position"):
            assert np.isfinite(values(name, inputs)).all() == known


def funded(*settled: Funding) -> ScoringInputs:
    return replace(INPUTS, funding=(settled, *INPUTS.funding[1:]))


def paid(hours_ago: float, rate: str, interval_h: int | None = 8) -> Funding:
    stamp = AS_OF_MS - int(hours_ago * HOUR_MS)
    return Funding(stamp, Decimal(rate), interval_h and interval_h * HOUR_MS)


def test_funding_is_annualised_over_the_time_it_was_paid_for() -> None:
    inputs = funded(
        paid(80, "0.9"), paid(70, "0.0003"), paid(50, "0.0001"), paid(30, "-0.0001", None),
        paid(10, "0.0002"), paid(6, "0.0001", 4), paid(2, "0.0001", 4), paid(1, "0.0001", 4),
    )  # fmt: skip
    assert values("funding_rate", inputs)[0] == pytest.approx(0.0009 / 36 * 8760)


def test_funding_that_covers_less_than_half_of_the_window_is_missing() -> None:
    inputs = funded(*(paid(hours, "0.0001") for hours in (40, 32, 24, 16)))
    assert measure(TABLE["funding_rate"], inputs).reasons[0] == "too_few_settlements"
    assert measure(TABLE["funding_stability"], inputs).reasons[0] == "too_few_settlements"


def test_funding_stability_is_minus_the_spread_of_annualised_rates() -> None:
    rates = ["0.0001", "0.0003", "-0.0001", "0.0002"]
    inputs = funded(*(paid(24 * day, rate, 24) for day, rate in enumerate(reversed(rates))))
    annual = [float(rate) * 365 for rate in rates]
    assert values("funding_stability", inputs)[0] == pytest.approx(-np.std(annual, ddof=1))
    two = funded(paid(100, "0.0001", 48), paid(20, "0.0001", 48))
    assert np.isnan(values("funding_stability", two)[0])


def test_open_interest_needs_both_ends_of_seven_days() -> None:
    def snapshots(*ages_h: float) -> ScoringInputs:
        times = np.array([AS_OF_MS - int(age * HOUR_MS) for age in ages_h], dtype=np.int64)
        amounts = np.arange(1.0, len(ages_h) + 1.0)[:, None] * np.ones((1, 14))
        amounts[0, 1] = 0.0
        return replace(INPUTS, open_interest_ms=times, open_interest=amounts)

    change = values("open_interest_change", snapshots(191, 169, 100, 2, 1))
    np.testing.assert_allclose(change, np.full(14, np.log(5 / 2)))
    for one_end in ((167.0, 1.0), (170.0, 25.0), (193.0, 1.0), (0.5,)):
        one = measure(TABLE["open_interest_change"], snapshots(*one_end))
        assert set(one.reasons) == {"too_few_snapshots"}


def test_a_book_without_a_multiplier_is_worth_nothing_known() -> None:
    multiplier = INPUTS.multiplier.copy()
    multiplier[2] = 0.0
    one = measure(TABLE["depth_25"], replace(INPUTS, multiplier=multiplier))
    assert one.reasons[2] == "missing_contracts"
    assert np.isnan(one.values[2])


def test_a_book_thinner_than_the_notional_ranks_last_and_is_not_missing() -> None:
    book = INPUTS.books[1]
    assert book is not None
    thin = replace(book, bids=tuple(level._replace(lots=1) for level in book.bids))
    inputs = replace(INPUTS, books=(INPUTS.books[0], thin, *INPUTS.books[2:]))
    inputs = replace(inputs, multiplier=np.where(np.arange(14) == 1, 1e-6, 1e3))
    one = measure(TABLE["impact"], inputs)
    assert one.reasons[1] is None
    assert one.values[1] == 500.0 == np.nanmax(one.values)
    assert np.sum(one.values == 500.0) == 1
    support = TABLE["impact"].support
    assert support is not None
    assert support(inputs) == tuple(
        {"censored": "thin_book"} if at == 1 else None for at in range(14)
    )
    broken = replace(inputs, books=(None, replace(thin, bids=()), *inputs.books[2:]))
    assert measure(TABLE["impact"], broken).reasons[:2] == ("missing_books", "broken_book")
    assert support(broken) == (None,) * 14


def test_depth_is_measured_within_twenty_five_basis_points() -> None:
    book = INPUTS.books[1]
    assert book is not None
    level = Level(Decimal("99.95"), 10)  # 5 bp
    bids = (level, Level(Decimal("99.80"), 10), Level(Decimal("99.60"), 10), Level(Decimal(90), 1))
    asks = tuple(Level(200 - one.price, one.lots) for one in bids)
    inputs = replace(INPUTS, books=(None, replace(book, bids=bids, asks=asks), *INPUTS.books[2:]))
    assert values("depth_25", inputs)[1] == pytest.approx(1997.5 / 25, rel=1e-9)


def test_impact_is_of_the_notional_asked_for() -> None:
    cheap, dear = (impact(INPUTS, notional) for notional in (10.0, 1e12))
    assert np.nansum(cheap) < np.nansum(values("impact"))
    assert (dear == 500.0).all()  # no book holds that much
    assert impact(INPUTS, 20_000.0)[1] == pytest.approx(values("impact")[1])


def test_trade_flow_by_hand_and_missing_without_a_stream() -> None:
    count = len(INPUTS.symbols)
    table = np.full((4, count), NAN)
    table[:, 0] = (30.0, 10.0, 120.0, 40.0)
    table[:, 1] = (0.0, 5.0, 60.0, 10.0)
    table[:, 2] = (0.0, 0.0, 0.0, 0.0)
    inputs = replace(INPUTS, flow=TradeFlow(*table))
    for name, first, second in (
        ("signed_volume", 0.5, -1.0),
        ("trade_intensity", np.log(4.0 / 2.0), 0.0),
    ):
        found = measure(TABLE[name], inputs)
        assert found.values[0] == pytest.approx(first)
        assert found.values[1] == pytest.approx(second, abs=1e-15)
        assert np.isnan(found.values[2:]).all(), "nobody traded, or no stream"
        assert set(found.reasons[2:]) == {"no_trade_flow"}
        without = measure(TABLE[name], replace(INPUTS, flow=None))
        assert set(without.reasons) == {"no_trade_flow"}
