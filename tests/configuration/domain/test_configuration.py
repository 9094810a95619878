"""Settings: defaults, bounds, rules that hold between settings, and the document they travel as."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.configuration.domain.document import (
    ConfigurationRefusedError,
    as_document,
    from_document,
    validate,
)
from app.configuration.domain.model import Configuration, CorrelationBasis, IntervalSettings
from app.configuration.domain.sections import AutomationMode, FeedSettings, Source
from app.foundation.errors import Code

DEFAULT = Configuration()


def refused(changes: dict[str, Any]) -> ConfigurationRefusedError:
    with pytest.raises(ConfigurationRefusedError) as caught:
        validate(changes, DEFAULT)
    return caught.value


def test_defaults_are_sound_and_in_exact_units() -> None:
    assert validate({}, DEFAULT) == replace(DEFAULT, version=2)
    assert DEFAULT.warnings() == ()
    assert (DEFAULT.min_weight_u, DEFAULT.max_weight_u) == (5_000_000, 20_000_000)
    assert DEFAULT.rebalance_threshold_u == 1_000_000
    assert sum(DEFAULT.family_weights.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        (Source.CONTRACTS, 180.0),
        (Source.TICKERS, 180.0),
        (Source.BOOKS, 900.0),
        (Source.FUNDING, 10_800.0),
        (Source.HOURLY_CANDLES, 10_800.0),
        (Source.DAILY_CANDLES, 259_200.0),
    ],
)
def test_age_limits_are_three_cadences(source: Source, limit: float) -> None:
    assert DEFAULT.age_limit_s(source) == limit


def test_while_the_market_streams_other_ages_are_too_old_and_they_are_settings() -> None:
    assert DEFAULT.age_limit_s(Source.TICKERS, streaming=True) == 30.0
    faster = replace(DEFAULT, feed=FeedSettings(tickers_s=2, contracts_s=7, order_books_s=9))
    told = {source: faster.age_limit_s(source, streaming=True) for source in Source}
    assert (told[Source.TICKERS], told[Source.CONTRACTS], told[Source.BOOKS]) == (6.0, 21.0, 27.0)
    for source in (Source.FUNDING, Source.HOURLY_CANDLES, Source.DAILY_CANDLES):
        assert told[source] == faster.age_limit_s(source)
    assert faster.age_limit_s(Source.TICKERS) == 180.0
    busy = replace(DEFAULT, intervals=IntervalSettings(market_s=1))
    assert busy.age_limit_s(Source.TICKERS, streaming=True) == 3.0, "never longer than polling"


def test_a_document_reads_back_to_the_same_settings() -> None:
    odd = validate(
        {
            "max_portfolio_symbols": 15,
            "min_weight_percentage": "2.123456",
            "max_weight_percentage": 33.3,
            "family_weights": {"technical": 0.25, "risk": 0.3},
            "correlation": {"basis": "raw", "limit": 0.9},
            "eligibility": {"quotes": ["usdt", "USDC", "USDT"]},
            "intervals": {"order_books_s": 30},
        },
        DEFAULT,
    )
    assert odd.correlation.basis is CorrelationBasis.RAW
    assert odd.eligibility.quotes == ("USDT", "USDC")
    assert odd.min_weight_percentage == Decimal("2.123456")
    assert odd.intervals.order_books_s == 30
    assert odd.intervals.market_s == 60
    stored = json.loads(json.dumps(as_document(odd)))
    assert from_document(stored, odd.version) == odd


def test_G05_unknown_keys_are_refused_by_name() -> None:
    error = refused({"max_symbols": 3, "intervals": {"tea": 1}, "family_weights": {"luck": 1.0}})
    assert error.code is Code.VALIDATION_FAILED
    assert {one.loc: one.type for one in error.complaints} == {
        "max_symbols": "unknown_key",
        "intervals.tea": "unknown_key",
        "family_weights.luck": "unknown_key",
    }


@pytest.mark.parametrize("key", ["<script>", "ключ", "k" * 65, ""])
def test_arbitrary_text_is_not_given_back(key: str) -> None:
    assert [one.loc for one in refused({key: 1}).complaints] == ["?"]


@pytest.mark.parametrize("interval", [0, -1, 1e9])
def test_G10_intervals_have_bounds(interval: float) -> None:
    error = refused({"rebalance_interval_s": interval, "intervals": {"market_s": interval}})
    assert error.code is Code.VALIDATION_FAILED
    assert {one.type for one in error.complaints} == {"out_of_range"}
    assert "between 60 and 31536000" in error.detail
    assert "between 1 and 86400" in error.detail


@pytest.mark.parametrize(
    "weights",
    [
        {"risk": 0.5},
        {"risk": -0.4},
        {"risk": float("nan")},
        {"risk": float("inf")},
        {"risk": "0.4"},
        {"risk": None},
        [0.15, 0.2, 0.25, 0.4],
    ],
)
def test_G01_family_weights_sum_to_one(weights: object) -> None:
    assert refused({"family_weights": weights}).code is Code.VALIDATION_FAILED


def test_G02_minimums_above_maximums_are_infeasible() -> None:
    error = refused({"min_weight_percentage": 21})
    assert error.code is Code.CONSTRAINTS_INFEASIBLE
    assert "at most max_weight_percentage, 20" in error.detail


@pytest.mark.parametrize(
    ("count", "low", "works"), [(10, 12, "10"), (30, 5, "3.333333"), (7, 20, "14.285714")]
)
def test_G02_minimums_that_do_not_fit_name_the_bound(count: int, low: int, works: str) -> None:
    error = refused({"max_portfolio_symbols": count, "min_weight_percentage": low})
    assert error.code is Code.CONSTRAINTS_INFEASIBLE
    assert error.detail.endswith(f"must be at most {works}")
    accepted = {"max_portfolio_symbols": count, "min_weight_percentage": works}
    assert validate(accepted, DEFAULT).min_weight_percentage == Decimal(works)


def test_G03_maximums_below_everything_are_a_warning() -> None:
    few = validate({"max_portfolio_symbols": 2}, DEFAULT)
    assert few.warnings() == ("cash_remainder_at_least: 60.000000",)


def test_thresholds_keep_their_order() -> None:
    error = refused({"exit_score": 0.7})
    assert error.code is Code.VALIDATION_FAILED
    assert error.complaints[0].type == "order"


@pytest.mark.parametrize(
    ("changes", "loc", "kind"),
    [
        ({"max_portfolio_symbols": True}, "max_portfolio_symbols", "number_type"),
        ({"max_portfolio_symbols": 2.5}, "max_portfolio_symbols", "int_type"),
        ({"max_portfolio_symbols": 0}, "max_portfolio_symbols", "out_of_range"),
        ({"min_weight_percentage": "five"}, "min_weight_percentage", "number_type"),
        ({"min_weight_percentage": "NaN"}, "min_weight_percentage", "finite_number"),
        ({"min_weight_percentage": "1e999999"}, "min_weight_percentage", "out_of_range"),
        ({"min_weight_percentage": "0.0000001"}, "min_weight_percentage", "decimal_places"),
        ({"correlation": 3}, "correlation", "object_type"),
        ({"correlation": {"basis": "mixed"}}, "correlation.basis", "enum"),
        ({"correlation": {"basis": ["raw"]}}, "correlation.basis", "enum"),
        ({"eligibility": {"quotes": []}}, "eligibility.quotes", "list_type"),
        ({"eligibility": {"quotes": "USDT"}}, "eligibility.quotes", "list_type"),
        ({"eligibility": {"quotes": ["US DT"]}}, "eligibility.quotes", "string_type"),
    ],
)
def test_wrong_values_are_named_by_place_and_kind(
    changes: dict[str, Any], loc: str, kind: str
) -> None:
    error = refused(changes)
    assert [(one.loc, one.type) for one in error.complaints] == [(loc, kind)]


def test_fixed_weights_are_taken_as_a_whole_and_judged() -> None:
    first = validate({"rebalancing": {"fixed_weights": {"BTCUSDT": 12.5}}}, Configuration())
    assert first.rebalancing.fixed_weights_u == {"BTCUSDT": 12_500_000}
    second = validate({"rebalancing": {"fixed_weights": {"ETHUSDT": "7"}}}, first)
    assert second.rebalancing.fixed_weights_u == {"ETHUSDT": 7_000_000}
    assert from_document(as_document(second), second.version) == second


def test_a_fixed_weight_that_the_maximum_cuts_is_named_as_a_warning() -> None:
    given = {"ETHUSDT": "20", "SOLUSDT": "20.000001", "BTCUSDT": 30}
    most = {"rebalancing": {"fixed_weights": given}, "max_portfolio_symbols": 4}
    assert validate(most, Configuration()).warnings() == (
        "cash_remainder_at_least: 20.000000",
        "fixed_weight_above_maximum: BTCUSDT",
        "fixed_weight_above_maximum: SOLUSDT",
    )


@pytest.mark.parametrize(
    ("given", "loc", "kind"),
    [
        (3, "rebalancing.fixed_weights", "object_type"),
        ({"not a symbol": 5}, "rebalancing.fixed_weights.?", "unknown_key"),
        ({"BTCUSDT": 101}, "rebalancing.fixed_weights.BTCUSDT", "out_of_range"),
        ({"BTCUSDT": 60, "ETHUSDT": 50}, "rebalancing.fixed_weights", "infeasible"),
    ],
)
def test_G01_fixed_weights_that_cannot_be(given: object, loc: str, kind: str) -> None:
    with pytest.raises(ConfigurationRefusedError) as caught:
        validate({"rebalancing": {"fixed_weights": given}}, Configuration())
    assert [(one.loc, one.type) for one in caught.value.complaints] == [(loc, kind)]


def test_policies_of_signals_are_taken_as_a_whole_and_judged() -> None:
    first = validate(
        {"signals": {"automation_by_type": {"BUY": "auto", "ALERT": "observe"}}}, DEFAULT
    )
    assert first.signals.automation_by_type == {
        "ALERT": AutomationMode.OBSERVE,
        "BUY": AutomationMode.AUTO,
    }
    second = validate({"signals": {"automation_by_type": {"SELL": "propose"}}}, first)
    assert second.signals.automation_by_type == {"SELL": AutomationMode.PROPOSE}
    assert from_document(as_document(second), second.version) == second


@pytest.mark.parametrize(
    ("given", "loc", "kind"),
    [
        ("auto", "signals.automation_by_type", "object_type"),
        ({"": "auto"}, "signals.automation_by_type.?", "unknown_key"),
        ({"B" * 65: "auto"}, "signals.automation_by_type.?", "unknown_key"),
        ({"BUY": "always"}, "signals.automation_by_type.?", "enum"),
    ],
)
def test_G01_policies_of_signals_that_cannot_be(given: object, loc: str, kind: str) -> None:
    error = refused({"signals": {"automation_by_type": given}})
    assert [(one.loc, one.type) for one in error.complaints] == [(loc, kind)]


def test_sources_of_signals_are_switched_by_name_and_as_a_whole() -> None:
    first = validate({"signals": {"sources": {"technical": False, "news": True}}}, DEFAULT)
    assert first.signals.sources == {"news": True, "technical": False}
    assert validate({"signals": {"sources": {}}}, first).signals.sources == {}
    error = refused({"signals": {"sources": {"technical": "off"}}})
    assert [(one.loc, one.type) for one in error.complaints] == [("signals.sources.?", "bool_type")]


@pytest.mark.parametrize(
    ("rules", "setting", "value"),
    [
        ("rebalancing", "method", "best"),
        ("rebalancing", "weight_bound_tolerance", -1),
        ("rebalancing", "volatility_target", 11),
        ("rebalancing", "cost_based_no_trade_band", 1),
        ("rebalancing", "risk_aversion", 0),
    ],
)
def test_G10_rebalancing_out_of_bounds(rules: str, setting: str, value: object) -> None:
    with pytest.raises(ConfigurationRefusedError) as caught:
        validate({rules: {setting: value}}, Configuration())
    assert [one.loc for one in caught.value.complaints] == [f"{rules}.{setting}"]
