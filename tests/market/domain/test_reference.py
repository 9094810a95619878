"""Prices of other exchanges go to the coins that are the same thing, and to no other."""

from decimal import Decimal

from app.market.domain.models import Contract
from app.market.domain.price_quarantine import PriceState
from app.market.domain.reference_prices import (
    FRESH_MS,
    ReferencePrice,
    fresh_reference_price,
    with_reference_prices,
)
from app.market.domain.symbols import SymbolEntry, formats_of
from tests.support.portfolios import contract

NOW = 1_800_000_000_000


def entry(one: Contract) -> SymbolEntry:
    return SymbolEntry("id", "BTCUSDT", one, formats_of(one))


def price(base: str, at_ms: int = NOW) -> ReferencePrice:
    return ReferencePrice("binance", base, "USDT", Decimal(100), at_ms)


def test_each_coin_gets_its_own_and_an_inverse_contract_none() -> None:
    linear = contract()
    inverse = contract(code="XBTUSDM", quote="USD", settle="BTC", is_inverse=True)
    other = contract(code="ETHUSDTM", base="ETH")
    entries = [entry(one) for one in (linear, inverse, other)]
    found = with_reference_prices({}, entries, {"BTC": price("BTC")}, NOW)
    assert found.keys() == {"XBTUSDTM"}
    assert found["XBTUSDTM"].reference_source == "binance USDT"
    assert fresh_reference_price(found["XBTUSDTM"], NOW + FRESH_MS) == 100
    assert fresh_reference_price(found["XBTUSDTM"], NOW + FRESH_MS + 1) is None


def test_a_coin_without_one_keeps_its_former_price_which_grows_old() -> None:
    known = with_reference_prices({}, [entry(contract())], {"BTC": price("BTC")}, NOW)
    assert with_reference_prices(known, [entry(contract())], {}, NOW + 1) == known


def test_no_price_comes_from_the_future_and_none_is_young_where_none_is_known() -> None:
    found = with_reference_prices({}, [entry(contract())], {"BTC": price("BTC", NOW + 5)}, NOW)
    assert found["XBTUSDTM"].reference_ms == NOW
    assert fresh_reference_price(None, NOW) is None
    assert fresh_reference_price(PriceState(NOW, 0, Decimal(1), None), NOW) is None
