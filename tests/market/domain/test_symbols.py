"""Every spelling in, the standard one out; nothing guessed, nothing cut."""

import json
import re
from dataclasses import replace
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.foundation.errors import Code, RefusedError
from app.market.domain.models import Contract, ContractKind, ContractStatus
from app.market.domain.symbols import (
    SymbolIndex,
    base_quantity,
    lots_for,
    nameable,
    notional,
    readable,
    round_to_tick,
    specification_of,
    to_kucoin,
    to_standard,
)

SHARED = Path(__file__).resolve().parents[3] / "../shared"
REAL_LIST = SHARED / "kucoin/lists/open_symbols_2026.json"
LAST_FRIDAY_OF_MARCH_2026 = 1_774_598_400_000
LISTED = re.compile(r"(?P<base>.+)(?P<quote>USDT|USDC|USD)M")


def contract(code: str, base: str, quote: str = "USDT", **changes: object) -> Contract:
    inverse = quote == "USD"
    made = Contract(
        code=code,
        base=base,
        quote=quote,
        settle=base if inverse else quote,
        kind=ContractKind.PERPETUAL,
        status=ContractStatus.OPEN,
        is_inverse=inverse,
        multiplier=Decimal(1) if inverse else Decimal("0.001"),
        lot_size=1,
        tick_size=Decimal("0.1"),
        max_order_lots=1_000_000,
        max_leverage=100,
        initial_margin=None,
        maintenance_margin=None,
        maker_fee=None,
        taker_fee=None,
        funding_interval_ms=28_800_000,
        listed_ms=None,
        expires_ms=None,
        market_stage="NORMAL",
        market_type="CRYPTO",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any field of it


def dated(code: str = "XBTMH26", expires_ms: int | None = LAST_FRIDAY_OF_MARCH_2026) -> Contract:
    return contract(code, "BTC", "USD", kind=ContractKind.DATED, expires_ms=expires_ms)


def registered(*contracts: Contract) -> list[tuple[str, Contract]]:
    return [(str(uuid5(NAMESPACE_DNS, one.code)), one) for one in contracts]


BITCOIN = contract("XBTUSDTM", "BTC")
MARKET = SymbolIndex.from_contracts(
    registered(
        BITCOIN,
        contract("XBTUSDCM", "BTC", "USDC"),
        contract("XBTUSDM", "BTC", "USD"),
        dated(),
        contract("ETHUSDTM", "ETH"),
        contract("ETHUSDM", "ETH", "USD"),
        contract("WBTCUSDTM", "WBTC"),
        contract("BTCDOMUSDTM", "BTCDOM"),
        contract("ETHBTCUSDTM", "ETHBTC"),
        contract("USDCUSDTM", "USDC"),
        contract("ATOMUSDTM", "ATOM"),
        contract("1MBABYDOGEUSDTM", "1MBABYDOGE"),
        contract("10000CATUSDTM", "10000CAT"),
        contract("1INCHUSDTM", "1INCH"),
        contract("4USDTM", "4"),
        contract("TUSDTM", "T"),
        contract("MUSDTM", "M"),
        contract("UUSDTM", "U"),
        contract("USUSDTM", "US"),
        contract("SPXUSDTM", "SPX"),
        contract("NVDAUSDTM", "NVDA", market_type="NASDAQ"),
    )
)


@pytest.mark.parametrize(
    ("spelling", "symbol"),
    [
        ("BTCUSDT", "BTCUSDT"),
        ("btcusdt", "BTCUSDT"),
        ("XBTUSDTM", "BTCUSDT"),
        ("xbtusdtm", "BTCUSDT"),
        ("BTCUSDTM", "BTCUSDT"),
        ("XBTUSDT", "BTCUSDT"),
        ("BTC-USDT", "BTCUSDT"),
        ("BTC_USDT", "BTCUSDT"),
        ("BTC/USDT", "BTCUSDT"),
        ("BTC/USDT:USDT", "BTCUSDT"),
        ("xbt/usdt:usdt", "BTCUSDT"),
        ("BTC-USDT-SWAP", "BTCUSDT"),
        ("BTCUSDT.P", "BTCUSDT"),
        ("BTC/USDC:USDC", "BTCUSDC"),
        ("XBTUSDM", "BTCUSD"),
        ("BTCUSD_PERP", "BTCUSD"),
        ("BTC/USD:BTC", "BTCUSD"),
        ("BTC/USD:XBT", "BTCUSD"),
        ("XBTMH26", "BTCUSD-260327"),
        ("BTCMH26", "BTCUSD-260327"),
        ("BTC/USD:BTC-260327", "BTCUSD-260327"),
        ("BTCUSD_260327", "BTCUSD-260327"),
        ("WBTC-USDT", "WBTCUSDT"),
        ("BTCDOM/USDT:USDT", "BTCDOMUSDT"),
        ("ETHBTCUSDTM", "ETHBTCUSDT"),
        ("USDCUSDT", "USDCUSDT"),
        ("USDC/USDT:USDT", "USDCUSDT"),
        ("ATOMUSDTM", "ATOMUSDT"),
        ("1mbabydogeusdt", "1MBABYDOGEUSDT"),
        ("4-USDT", "4USDT"),
        ("4USDTM", "4USDT"),
        ("TUSDT", "TUSDT"),
        ("MUSDTM", "MUSDT"),
        ("U/USDT", "UUSDT"),
        ("USUSDT", "USUSDT"),
    ],
)
def test_D17_every_spelling_resolves(spelling: str, symbol: str) -> None:
    entry = MARKET.resolve(spelling)
    assert entry.symbol == symbol
    assert MARKET.to_standard(spelling) == symbol
    assert MARKET.to_kucoin(spelling) == entry.contract.code


@pytest.mark.parametrize(
    "spelling",
    [
        "ВTCUSDT",  # Cyrillic first letter
        "BТCUSDT",
        "ＢＴＣUSDT",
        "ſUSDT",  # its upper case is an S
        "1000SHIB",
        "1000SHIBUSDT",
        "BTCUSDTMM",
        "XWBTUSDTM",
        "WXBTUSDTM",
        "ETHXBTUSDTM",
        "ATOUSDTM",
        "BTC USDT",
        " BTCUSDT",
        "BTC//USDT",
        "BTC/ETH:BTC",
        ".KXBTUSDT",
        "BTC/USDT:USDC",
        "",
        "A" * 1_000_000,
        "'; drop table symbols",
        "<script>",
        "=cmd()",
        "BTCUSDT\x00",
        "BTCUSDT\n",
    ],
)
def test_D17_D23_unknown_spellings_are_refused_and_not_echoed(spelling: str) -> None:
    with pytest.raises(RefusedError) as refused:
        MARKET.resolve(spelling)
    assert refused.value.code is Code.SYMBOL_UNKNOWN
    near = list(refused.value.facts["near_matches"])
    assert all(MARKET.find(name) for name in near)
    hint = f"; perhaps one of: {', '.join(near)}." if near else "."
    assert refused.value.detail == "No contract has this spelling" + hint


def test_look_alikes_are_refused_with_what_was_meant() -> None:
    with pytest.raises(RefusedError) as refused:
        MARKET.resolve("ВТСUSDT")  # all three Cyrillic
    assert refused.value.facts["near_matches"][0] == "BTCUSDT"


def test_a_coin_alone_is_ambiguous_or_unknown_but_never_guessed() -> None:
    with pytest.raises(RefusedError) as several:
        MARKET.resolve("btc")
    assert several.value.code is Code.SYMBOL_AMBIGUOUS
    assert several.value.facts["near_matches"] == (
        *("BTCUSD", "BTCUSD-260327", "BTCUSDC", "BTCUSDT"),
    )
    with pytest.raises(RefusedError) as one:
        MARKET.resolve("ATOM")
    assert one.value.code is Code.SYMBOL_UNKNOWN
    assert one.value.facts["near_matches"] == ("ATOMUSDT",)


def test_nothing_near_says_nothing() -> None:
    with pytest.raises(RefusedError) as refused:
        MARKET.resolve("QQQQQQQQQQ")
    assert refused.value.facts["near_matches"] == ()


def test_resolves_by_registry_id_in_any_case() -> None:
    for entry in MARKET.entries:
        assert MARKET.resolve(entry.symbol_id) is entry
        assert MARKET.resolve(entry.symbol_id.upper()) is entry
        assert MARKET.find(entry.symbol_id) is entry
    assert MARKET.find("nothing") is None


@pytest.mark.parametrize(
    ("symbol", "spot", "ccxt", "binance"),
    [
        ("BTCUSDT", "BTC-USDT", "BTC/USDT:USDT", "BTCUSDT"),
        ("BTCUSDC", "BTC-USDC", "BTC/USDC:USDC", "BTCUSDC"),
        ("BTCUSD", None, "BTC/USD:BTC", "BTCUSD_PERP"),
        ("BTCUSD-260327", None, "BTC/USD:BTC-260327", "BTCUSD_260327"),
        ("WBTCUSDT", "WBTC-USDT", "WBTC/USDT:USDT", "WBTCUSDT"),
        ("BTCDOMUSDT", None, "BTCDOM/USDT:USDT", "BTCDOMUSDT"),
        ("ETHBTCUSDT", None, "ETHBTC/USDT:USDT", None),
        ("1MBABYDOGEUSDT", None, "1MBABYDOGE/USDT:USDT", "1MBABYDOGEUSDT"),
        ("10000CATUSDT", None, "10000CAT/USDT:USDT", None),
        ("1INCHUSDT", "1INCH-USDT", "1INCH/USDT:USDT", "1INCHUSDT"),
        ("USDCUSDT", "USDC-USDT", "USDC/USDT:USDT", "USDCUSDT"),
        ("NVDAUSDT", None, "NVDA/USDT:USDT", "NVDAUSDT"),
    ],
)
def test_formats(symbol: str, spot: str | None, ccxt: str, binance: str | None) -> None:
    formats = MARKET.resolve(symbol).formats
    assert (formats.standard, formats.kucoin_spot, formats.ccxt, formats.binance) == (
        symbol,
        spot,
        ccxt,
        binance,
    )


def test_every_format_of_every_contract_resolves_back() -> None:
    for entry in MARKET.entries:
        shown = entry.formats
        for text in (shown.standard, shown.kucoin_futures, shown.ccxt, shown.binance):
            if text is not None:
                assert MARKET.resolve(text) is entry
                assert MARKET.resolve(text.lower()) is entry


def test_contracts_without_a_date_or_of_unknown_kind_keep_their_code() -> None:
    strange = contract("XBTX99", "BTC", "USD", kind=ContractKind.OTHER)
    undated = dated("XBTMZ25", None)
    index = SymbolIndex.from_contracts(registered(strange, undated))
    for one in (strange, undated):
        entry = index.resolve(one.code.lower())
        assert entry.symbol == one.code
        assert (entry.formats.ccxt, entry.formats.binance, entry.formats.kucoin_spot) == (
            None,
            None,
            None,
        )


def test_two_contracts_of_one_name_are_an_error_that_lists_both() -> None:
    with pytest.raises(RefusedError) as refused:
        SymbolIndex.from_contracts(registered(BITCOIN, contract("BTCXUSDTM", "BTC")))
    assert refused.value.code is Code.SYMBOL_AMBIGUOUS
    assert "XBTUSDTM" in refused.value.detail
    assert "BTCXUSDTM" in refused.value.detail


def test_a_spelling_of_two_contracts_is_ambiguous() -> None:
    week = 7 * 86_400_000
    weekly = dated("XBTMH26W", LAST_FRIDAY_OF_MARCH_2026 - week)
    index = SymbolIndex.from_contracts(registered(dated(), weekly))
    assert index.resolve("BTC/USD:BTC-260320").contract is weekly
    with pytest.raises(RefusedError) as refused:
        index.resolve("BTCMH26")
    assert refused.value.code is Code.SYMBOL_AMBIGUOUS
    assert refused.value.facts["near_matches"] == ("BTCUSD-260320", "BTCUSD-260327")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", "<script>"),
        ("code", "A" * 33),
        ("code", "xbtusdtm"),
        ("base", "'; drop"),
        ("base", "B" * 25),
        ("base", "币"),
        ("quote", ""),
        ("settle", "=cmd()"),
    ],
)
def test_D23_names_from_the_exchange_are_checked(field: str, value: str) -> None:
    assert nameable(BITCOIN)
    assert not nameable(replace(BITCOIN, **{field: value}))  # type: ignore[arg-type]  # any field of it


@given(st.text())
def test_no_text_crashes_the_registry(text: str) -> None:
    try:
        entry = MARKET.resolve(text)
    except RefusedError:
        return
    assert readable(text)
    assert entry in MARKET.entries


def test_names_of_perpetual_contracts_are_converted_by_convention() -> None:
    perpetual = [one for one in MARKET.entries if one.contract.kind is ContractKind.PERPETUAL]
    assert len(perpetual) == len(MARKET.entries) - 1
    for entry in perpetual:
        assert to_kucoin(entry.symbol) == entry.contract.code
        assert to_standard(entry.contract.code) == entry.symbol
        for text in filter(None, (entry.formats.ccxt, entry.formats.binance)):
            assert (to_kucoin(text), to_standard(text)) == (entry.contract.code, entry.symbol)
    for text in ("xbt-usdt", "BTCUSDT.P", "BTC-USDT-SWAP", "btc_usdt"):
        assert (to_kucoin(text), to_standard(text)) == ("XBTUSDTM", "BTCUSDT")
    for text in ("", "USDT", "BTC", "BTCEUR", "BTCUSD-260327", "XBTMH26", "BTC USDT", "B" * 70):
        with pytest.raises(RefusedError) as caught:
            to_kucoin(text)
        assert caught.value.code is Code.SYMBOL_UNKNOWN


@pytest.mark.skipif(not REAL_LIST.exists(), reason="the list of real symbols is not here")
def test_all_real_symbols_round_trip() -> None:
    codes = json.loads(REAL_LIST.read_text())
    contracts = []
    for code in codes:
        if code == "XBTMH26":
            contracts.append(dated())
            continue
        parts = LISTED.fullmatch(code)
        assert parts is not None, code
        base = "BTC" if parts["base"] == "XBT" else parts["base"]
        contracts.append(contract(code, base, parts["quote"]))
    index = SymbolIndex.from_contracts(registered(*contracts))
    assert len(index.entries) == len(codes) == 556
    for code in codes:
        entry = index.resolve(code)
        assert index.to_kucoin(entry.symbol) == code
        assert index.to_standard(code) == entry.symbol
        assert nameable(entry.contract)
        shown = entry.formats
        texts = [shown.standard, shown.kucoin_spot, shown.ccxt, shown.binance, entry.symbol_id]
        for text in filter(None, texts):
            assert index.to_kucoin(text) == code
            assert index.to_kucoin(text.swapcase()) == code


@pytest.mark.parametrize(
    ("price", "tick", "expected"),
    [
        ("100.05", "0.1", "100.0"),
        ("100.15", "0.1", "100.2"),
        ("0.00001234567", "0.0000001", "0.0000123"),
        ("7", "5", "5"),
    ],
)
def test_rounds_to_tick(price: str, tick: str, expected: str) -> None:
    assert round_to_tick(Decimal(price), Decimal(tick)) == Decimal(expected)


def test_rounding_up_and_a_tick_of_nothing() -> None:
    assert round_to_tick(Decimal("1.01"), Decimal("0.1"), ROUND_UP) == Decimal("1.1")
    with pytest.raises(ValueError, match="tick"):
        round_to_tick(Decimal(1), Decimal(0))


@pytest.mark.parametrize(
    "change",
    [
        {"multiplier": Decimal("0.002")},
        {"lot_size": 2},
        {"tick_size": Decimal("0.2")},
        {"max_order_lots": 7},
        {"is_inverse": True},
    ],
)
def test_D12_other_numbers_that_an_order_depends_on_have_another_name(
    change: dict[str, Any],
) -> None:
    assert specification_of(replace(BITCOIN, **change)) != specification_of(BITCOIN)


def test_D12_the_same_numbers_have_the_same_name_whatever_else_changes() -> None:
    same = replace(BITCOIN, multiplier=BITCOIN.multiplier * Decimal("1.000"), expires_ms=9)
    assert specification_of(same) == specification_of(BITCOIN)


def test_D11_lots_become_coins_and_money() -> None:
    price = Decimal(50_000)
    assert base_quantity(BITCOIN, 20, price) == Decimal("0.02")
    assert notional(BITCOIN, 20, price) == Decimal(1000)
    inverse = MARKET.resolve("BTCUSD").contract
    assert base_quantity(inverse, 1000, price) == Decimal("0.02")
    assert notional(inverse, 1000, price) == Decimal(1000)


@given(
    value=st.decimals(0, 10**9, places=2),
    price=st.decimals("0.0001", 10**6, places=4),
    step=st.integers(1, 10),
    inverse=st.booleans(),
)
def test_lots_never_exceed_the_value_and_miss_it_by_less_than_a_step(
    value: Decimal, price: Decimal, step: int, *, inverse: bool
) -> None:
    one = contract("XBTUSDM", "BTC", "USD") if inverse else BITCOIN
    one = replace(one, lot_size=step)
    lots = lots_for(one, value, price)
    assert lots % step == 0
    assert notional(one, lots, price) <= value < notional(one, lots + step, price)


def test_a_volume_has_the_decimals_of_whole_lots() -> None:
    linear = contract("XBTUSDTM", "BTC", multiplier=Decimal("0.001"))
    assert linear.exact_volume(11810.443000000001) == Decimal("11810.443")
    assert linear.exact_volume(0.0) == 0
    assert linear.exact_volume(0.0005) == Decimal("0.0005"), "half a lot is no float noise"
    inverse = contract("XBTUSDM", "BTC", multiplier=Decimal(1), is_inverse=True)
    assert inverse.exact_volume(11810443.0) == 11810443
