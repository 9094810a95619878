"""The listings: names, twins, quarterly future, and what a short list keeps."""

import numpy as np
import pytest

from app.sandbox.history.universe import (
    full_universe,
    multiplier_for,
    quarterly,
    select_contracts,
    tick_digits_for,
    tickers,
    usual_turnover,
)
from tests.sandbox.conftest import START_MS


def test_541_different_bases_and_556_different_symbols() -> None:
    bases = [base for base, _ in tickers()]
    assert len(bases) == len(set(bases)) == 541
    symbols = [listing.symbol for listing in full_universe(START_MS)]
    assert len(symbols) == len(set(symbols)) == 556


def test_known_multipliers_and_sensible_ones_for_the_rest() -> None:
    lots = {item.symbol: item.multiplier for item in full_universe(START_MS)}
    known = {"XBT": 0.001, "ETH": 0.01, "SOL": 0.1, "LTC": 0.1, "XRP": 10, "ADA": 10, "DOGE": 100}
    assert {base: lots[f"{base}USDTM"] for base in known} == known
    assert lots["XBTUSDCM"] == 0.0001
    assert lots["XBTUSDM"] == lots["XBTMZ26"] == -1.0
    for item in full_universe(START_MS):
        if not item.inverse:
            assert 0.5 <= item.multiplier * item.price <= 100.0, item.symbol
            assert 1e3 <= item.price * 10**item.tick_digits <= 5e6, item.symbol
    assert (multiplier_for(0.25), tick_digits_for(0.25), tick_digits_for(4_000.0)) == (10.0, 5, 1)


@pytest.mark.parametrize(
    ("now_ms", "symbol", "expiry_ms"),
    [
        (1_795_290_617_123, "XBTMZ26", 1_798_185_600_000),
        (1_767_225_600_000, "XBTMH26", 1_774_598_400_000),
        (1_774_051_200_000, "XBTMM26", 1_782_460_800_000),
        (1_798_150_000_000, "XBTMH27", 1_806_048_000_000),
    ],
)
def test_the_quarterly_expires_on_a_last_friday_at_eight(
    now_ms: int, symbol: str, expiry_ms: int
) -> None:
    assert quarterly(now_ms) == (symbol, expiry_ms)


def test_turnover_is_zipf_like_with_a_thin_tail() -> None:
    values = np.array([usual_turnover(rank) for rank in range(1, 542)])
    assert values[0] == 3.0e9
    assert np.all(np.diff(values) < 0)
    assert values[-1] == pytest.approx(5.0e4, rel=0.01)
    assert 250 <= int((values > 5.0e6).sum()) <= 280


def test_a_short_list_keeps_the_odd_and_the_liquid() -> None:
    listings = full_universe(START_MS)
    picked = [listings[index] for index in select_contracts(listings, 45)]
    assert len(picked) == 45
    assert {"XBTUSDTM", "ETHUSDTM", "XBTUSDM", "XBTUSDCM", "XBTMZ26", "4USDTM"} <= {
        item.symbol for item in picked
    }
    assert [item.symbol for item in (listings[i] for i in select_contracts(listings, 2))] == [
        "XBTUSDTM",
        "ETHUSDTM",
    ]
    assert select_contracts(listings, None) == select_contracts(listings, 5_000) == list(range(556))
    for count in range(1, 557):
        assert len(set(select_contracts(listings, count))) == count
