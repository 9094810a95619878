"""The funnel: each excluded symbol has one first failing rule, and the counts add up."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.configuration.domain.model import EligibilitySettings
from app.market.domain.eligibility import (
    RULES,
    EligibilityCandidate,
    EligibilityLimits,
    check_rules,
    first_failure,
    funnel,
    is_worth_history,
)
from app.market.domain.models import Contract, ContractKind, ContractStatus
from app.market.domain.sectors import AssetClass

LIMITS = EligibilityLimits(EligibilitySettings(), 180.0)
CONTRACT = Contract(
    code="ETHUSDTM",
    base="ETH",
    quote="USDT",
    settle="USDT",
    kind=ContractKind.PERPETUAL,
    status=ContractStatus.OPEN,
    is_inverse=False,
    multiplier=Decimal("0.01"),
    lot_size=1,
    tick_size=Decimal("0.01"),
    max_order_lots=None,
    max_leverage=None,
    initial_margin=None,
    maintenance_margin=None,
    maker_fee=None,
    taker_fee=None,
    funding_interval_ms=None,
    listed_ms=None,
    expires_ms=None,
    market_stage=None,
    market_type=None,
)
GOOD = EligibilityCandidate(
    symbol="ETHUSDT",
    contract=CONTRACT,
    asset_class=AssetClass.COIN,
    turnover_24h=Decimal(5_000_000),
    daily_bars=90,
    median_turnover=Decimal(5_000_000),
    ticker_age_s=180.0,
)


def listed(**changes: Any) -> EligibilityCandidate:
    return replace(GOOD, contract=replace(CONTRACT, **changes))


@pytest.mark.parametrize(
    ("candidate", "rule", "value"),
    [
        (listed(kind=ContractKind.DATED), "perpetual", "dated"),
        (listed(is_inverse=True, settle="ETH"), "settlement", "inverse ETH"),
        (listed(quote="USDC", settle="USDC"), "settlement", "linear USDC"),
        (listed(status=ContractStatus.PAUSED), "status", "Paused"),
        (listed(status=ContractStatus.UNKNOWN), "status", "Unknown"),
        (listed(status=ContractStatus.VANISHED), "status", "Vanished"),
        (listed(market_stage="PRE_MARKET"), "market", "PRE_MARKET CRYPTO"),
        (listed(market_type="NASDAQ"), "market", "NORMAL NASDAQ"),
        (listed(expires_ms=1_774_598_400_000), "delisting", "2026-03-27"),
        (replace(GOOD, asset_class=AssetClass.STABLE), "asset_class", "stable"),
        (replace(GOOD, asset_class=AssetClass.INDEX), "asset_class", "index"),
        (
            replace(GOOD, turnover_24h=Decimal("4999999.99")),
            "turnover_24h",
            Decimal("4999999.99"),
        ),
        (replace(GOOD, turnover_24h=None), "turnover_24h", None),
        (replace(GOOD, daily_bars=89), "daily_bars", 89),
        (replace(GOOD, median_turnover=None), "median_turnover", None),
        (replace(GOOD, median_turnover=Decimal(1)), "median_turnover", Decimal(1)),
        (replace(GOOD, ticker_age_s=180.5), "ticker", 180.5),
        (replace(GOOD, ticker_age_s=None), "ticker", None),
    ],
)
def test_each_rule_refuses_with_its_value(
    candidate: EligibilityCandidate, rule: str, value: object
) -> None:
    assert first_failure(candidate, LIMITS) == rule
    checks = {one.name: one for one in check_rules(candidate, LIMITS)}
    assert len(checks) == len(RULES)
    assert not checks[rule].passed
    assert checks[rule].value == value
    assert [one.name for one in checks.values() if not one.passed] == [rule]


def test_a_good_symbol_passes_every_rule() -> None:
    assert first_failure(GOOD, LIMITS) is None
    assert all(one.passed for one in check_rules(GOOD, LIMITS))
    assert {one.name: one.limit for one in check_rules(GOOD, LIMITS)} == {
        "perpetual": "perpetual",
        "settlement": "linear USDT",
        "status": "Open",
        "market": "NORMAL CRYPTO",
        "delisting": None,
        "asset_class": "coin",
        "turnover_24h": Decimal(5_000_000),
        "daily_bars": 90,
        "median_turnover": Decimal(5_000_000),
        "quarantine": None,
        "ticker": 180.0,
    }


def test_further_quotes_are_a_matter_of_configuration() -> None:
    both = replace(LIMITS, floors=EligibilitySettings(quotes=("USDT", "USDC")))
    assert first_failure(listed(quote="USDC", settle="USDC"), both) is None


def test_history_is_fetched_for_what_the_listing_lets_through() -> None:
    bare = replace(GOOD, daily_bars=0, median_turnover=None, ticker_age_s=None)
    assert is_worth_history(bare, LIMITS)
    assert not is_worth_history(replace(bare, turnover_24h=Decimal(1)), LIMITS)
    assert not is_worth_history(listed(status=ContractStatus.INIT), LIMITS)


candidates = st.builds(
    EligibilityCandidate,
    symbol=st.text("ABC", min_size=1, max_size=3),
    contract=st.builds(
        lambda kind, status, quote: replace(CONTRACT, kind=kind, status=status, quote=quote),
        st.sampled_from(ContractKind),
        st.sampled_from(ContractStatus),
        st.sampled_from(["USDT", "USDC"]),
    ),
    asset_class=st.sampled_from(AssetClass),
    turnover_24h=st.none() | st.decimals(0, 10**8, places=2),
    daily_bars=st.integers(0, 200),
    median_turnover=st.none() | st.decimals(0, 10**8, places=2),
    ticker_age_s=st.none() | st.floats(0, 400),
)


@given(st.lists(candidates, unique_by=lambda one: one.symbol))
def test_counts_add_up_to_the_universe(universe: list[EligibilityCandidate]) -> None:
    result = funnel(universe, LIMITS)
    assert result.universe == len(universe)
    assert set(result.eligible) | result.excluded.keys() == {one.symbol for one in universe}
    assert not set(result.eligible) & result.excluded.keys()
    assert sum(stage.failed for stage in result.stages) + len(result.eligible) == len(universe)
    left = len(universe)
    for stage in result.stages:
        assert stage.entered == left
        assert stage.failed == list(result.excluded.values()).count(stage.name)
        left -= stage.failed
    assert left == len(result.eligible)
    for one in universe:
        failed = [item.name for item in check_rules(one, LIMITS) if not item.passed]
        assert result.excluded.get(one.symbol) == (failed[0] if failed else None)


def test_the_age_of_a_quote_is_judged_by_the_millionth() -> None:
    assert first_failure(replace(GOOD, ticker_age_s=180.0000001), LIMITS) is None
    assert first_failure(replace(GOOD, ticker_age_s=180.000001), LIMITS) == "ticker"
