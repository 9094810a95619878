"""Parsing: exact numbers, each year's shapes, and refusals that name the field."""

import contextlib
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.kucoin import fields, parse, parse_contracts
from app.adapters.kucoin.exchange import candle_pages, find_gap, funding_pages, next_older_ms
from app.adapters.kucoin.limiter import KLINE as KLINE_ROUTE
from app.adapters.kucoin.limiter import SILENT
from app.adapters.kucoin.transport import (
    ExchangeResponse,
    RequestFailure,
    RequestSuccess,
    interpret_response,
)
from app.foundation.errors import BadResponseError, ServiceError
from app.market.domain.models import (
    Contract,
    ContractKind,
    ContractListing,
    ContractStats,
    ContractStatus,
    ExchangeStatus,
    Level,
    Rejection,
)
from tests.adapters.kucoin.payloads import (
    BOOK,
    DATED,
    EMPTY_BOOK,
    FUNDING_2024,
    FUNDING_2026,
    FUNDING_HISTORY,
    INVERSE_2023,
    KLINE,
    LINEAR_2026,
    MARK,
    ONE_SIDED_TICKER,
    SCALED,
    TICKER,
    changed,
    decoded,
    judged,
    success,
)

REQUIRED = (
    "symbol",
    "baseCurrency",
    "quoteCurrency",
    "settleCurrency",
    "type",
    "status",
    "isInverse",
    "multiplier",
    "lotSize",
    "tickSize",
)
NOW_MS = 1_756_195_850_309  # the linear contract's settlement minus its countdown
DAY = 86_400_000


def listing(*records: Any) -> ContractListing:
    return parse_contracts.contracts(list(records), NOW_MS)


def one(record: Any) -> tuple[Contract, ContractStats]:
    answer = listing(record)
    assert answer.rejections == ()
    return answer.contracts[0], answer.stats[0]


def test_a_linear_contract_in_standard_words_and_exact_numbers() -> None:
    contract, stats = one(decoded(LINEAR_2026))
    assert (contract.code, contract.base, contract.quote, contract.settle) == (
        "XBTUSDTM",
        "BTC",
        "USDT",
        "USDT",
    )
    assert contract.kind is ContractKind.PERPETUAL
    assert contract.status is ContractStatus.OPEN
    assert (contract.multiplier, contract.tick_size) == (Decimal("0.001"), Decimal("0.1"))
    assert contract.taker_fee == Decimal("0.0006")
    assert contract.funding_interval_ms == 28_800_000  # in force, not the one announced
    assert (contract.listed_ms, contract.expires_ms) == (1_585_555_200_000, None)
    assert (contract.market_stage, contract.market_type) == ("NORMAL", "CRYPTO")
    assert str(stats.turnover_24h) == "635383419.4265137"
    assert stats.volume_24h == Decimal("5735.963")
    assert stats.open_interest_lots == 5_940_782
    assert stats.next_funding_ms == 1_756_224_000_000
    assert stats.change_24h == Decimal("-0.0085")


def test_an_inverse_contract_has_its_signs_and_units_put_right() -> None:
    contract, stats = one(decoded(INVERSE_2023))
    assert (contract.base, contract.settle, contract.is_inverse) == ("BTC", "BTC", True)
    assert contract.multiplier == 1
    assert stats.turnover_24h == stats.volume_24h == 14_215_097
    assert contract.funding_interval_ms is None
    assert contract.expires_ms is None  # the empty text says nothing
    hour = 3_600_000
    expected = round((NOW_MS + 25_242_830) / hour) * hour
    assert stats.next_funding_ms == expected  # countdown, put on the full hour


def test_a_dated_future_is_told_by_its_type_and_lacks_funding() -> None:
    contract, stats = one(decoded(DATED))
    assert contract.kind is ContractKind.DATED
    assert contract.expires_ms == 1_774_598_400_000
    assert (stats.funding_rate, stats.next_funding_ms, stats.mark_price) == (None, None, None)


def test_text_numbers_and_exponents_are_exact() -> None:
    contract, stats = one(decoded(SCALED))
    assert contract.tick_size == Decimal("0.0000001")
    assert contract.multiplier == 100
    assert contract.kind is ContractKind.PERPETUAL
    assert contract.expires_ms == 1_790_000_000_000  # a perpetual whose delisting is announced
    assert stats.funding_rate == Decimal("-0.002503")
    assert stats.open_interest_lots == 123_456


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("predicted_funding_rate", "predictedFundingFeeRate"),
        ("mark_price", "markPrice"),
        ("index_price", "indexPrice"),
        ("last_price", "lastTradePrice"),
        ("funding_rate", "fundingFeeRate"),
        ("open_interest_lots", "openInterest"),
        ("turnover_24h", "turnoverOf24h"),
        ("volume_24h", "volumeOf24h"),
        ("high_24h", "highPrice"),
        ("low_24h", "lowPrice"),
        ("change_24h", "priceChgPct"),
    ],
)
@pytest.mark.parametrize("nothing", [None, "", ...], ids=["null", "empty", "absent"])
def test_R12_what_may_be_null_is_none_and_the_symbol_is_still_served(
    name: str, wire: str, nothing: Any
) -> None:
    contract, stats = one(changed(LINEAR_2026, **{wire: nothing}))
    assert contract.code == "XBTUSDTM"
    assert getattr(stats, name) is None


@pytest.mark.parametrize("field", REQUIRED)
@pytest.mark.parametrize("wrong", [..., None, {"a": 1}, [1]])
def test_R13_a_required_field_that_is_gone_or_changed_rejects_that_record_only(
    field: str, wrong: Any
) -> None:
    broken = changed(LINEAR_2026, **{field: wrong})
    answer = listing(broken, decoded(INVERSE_2023), decoded(DATED))
    assert [contract.code for contract in answer.contracts] == ["XBTUSDM", "XBTMH26"]
    assert [stats.code for stats in answer.stats] == ["XBTUSDM", "XBTMH26"]
    (rejection,) = answer.rejections
    assert rejection.field == field
    assert rejection.key == ("#0" if field == "symbol" else "XBTUSDTM")


@pytest.mark.parametrize("wrong", [True, False, "abc", "1_000", "NaN", "Infinity", "١", "0x1f"])
@pytest.mark.parametrize("field", ["multiplier", "tickSize", "lotSize"])
def test_R13_truth_values_and_unreadable_text_are_not_numbers(field: str, wrong: Any) -> None:
    answer = listing(changed(LINEAR_2026, **{field: wrong}), decoded(INVERSE_2023))
    assert [contract.code for contract in answer.contracts] == ["XBTUSDM"]
    assert answer.rejections[0].field == field


@pytest.mark.parametrize("spelling", ["1.2E-7", Decimal("1.2E-7"), "0.00000012"])
def test_R13_strings_and_numbers_are_both_read(spelling: Any) -> None:
    contract, _ = one(changed(LINEAR_2026, tickSize=spelling))
    assert contract.tick_size == Decimal("0.00000012")


@pytest.mark.parametrize("wrong", [True, "abc", {"x": 1}, 0, -5])
def test_R13_an_optional_field_that_is_wrong_is_missing_and_reported(wrong: Any) -> None:
    answer = listing(changed(LINEAR_2026, markPrice=wrong))
    assert answer.contracts[0].code == "XBTUSDTM"
    assert answer.stats[0].mark_price is None
    assert [(r.key, r.field) for r in answer.rejections] == [("XBTUSDTM", "markPrice")]


def test_R13_reasons_never_repeat_the_value() -> None:
    answer = listing(changed(LINEAR_2026, markPrice="secret"), changed(TICKER, symbol="secret"))
    assert all("secret" not in f"{r.key}{r.reason}" for r in answer.rejections)


@pytest.mark.parametrize("word", ["Foo", "Vanished", "Unknown", "open"])
def test_R14_an_unknown_status_is_unknown(word: str) -> None:
    contract, _ = one(changed(LINEAR_2026, status=word))
    assert contract.status is ContractStatus.UNKNOWN


def test_an_unknown_type_is_other_and_a_repeated_code_is_refused() -> None:
    contract, _ = one(changed(LINEAR_2026, type="NEWKIND"))
    assert contract.kind is ContractKind.OTHER
    answer = listing(decoded(LINEAR_2026), decoded(LINEAR_2026))
    assert len(answer.contracts) == len(answer.stats) == 1
    assert answer.rejections == (Rejection("XBTUSDTM", "symbol", "repeated"),)


def test_one_contract_is_a_listing_of_one() -> None:
    answer = parse_contracts.contract(decoded(LINEAR_2026), "XBTUSDTM", NOW_MS)
    assert len(answer.contracts) == 1
    with pytest.raises(BadResponseError, match="symbol"):
        parse_contracts.contract(decoded(LINEAR_2026), "ETHUSDTM", NOW_MS)
    with pytest.raises(BadResponseError, match="tickSize"):
        parse_contracts.contract(changed(LINEAR_2026, tickSize=...), "XBTUSDTM", NOW_MS)


def test_a_ticker_and_an_empty_book_side() -> None:
    ticker = parse.ticker(decoded(TICKER), "XBTUSDTM")
    assert (ticker.last, ticker.bid, ticker.ask) == (
        Decimal(67153),
        Decimal("67152.9"),
        Decimal("67153.1"),
    )
    assert ticker.traded_ms == 1_729_163_466_659
    lonely = parse.ticker(decoded(ONE_SIDED_TICKER), "4USDTM")
    assert (lonely.bid, lonely.ask, lonely.bid_lots, lonely.ask_lots) == (None, None, 0, None)
    assert lonely.last == Decimal("0.0000001")
    assert parse.ticker(changed(TICKER, bestBidPrice="0"), "XBTUSDTM").bid is None


@pytest.mark.parametrize("field", ["price", "bestBidPrice", "ts", "size"])
def test_R13_a_bad_ticker_leaves_the_others_alone(field: str) -> None:
    answer = parse.tickers([changed(TICKER, **{field: True}), decoded(ONE_SIDED_TICKER), 7])
    assert [ticker.code for ticker in answer.tickers] == ["4USDTM"]
    assert [(r.key, r.field) for r in answer.rejections] == [("XBTUSDTM", field), ("#2", "data")]
    with pytest.raises(BadResponseError) as caught:
        parse.ticker(changed(TICKER, **{field: True}), "XBTUSDTM")
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize("read", [parse.ticker, parse.mark_price])
def test_an_answer_about_another_contract_is_refused(
    read: Callable[[object, str], object],
) -> None:
    data = decoded(TICKER if read is parse.ticker else MARK)
    with pytest.raises(BadResponseError, match="another contract"):
        read(data, "ETHUSDTM")


def test_a_book_is_sorted_and_loses_empty_levels() -> None:
    book = parse.book(decoded(BOOK), "XBTUSDM")
    assert [level.price for level in book.bids] == [
        Decimal(66968),
        Decimal("66964.8"),
        Decimal("0.1"),
    ]
    assert book.asks[0] == Level(Decimal("66968.1"), 13501)
    assert book.stamped_ms == 1_729_168_101_216
    empty = parse.book(decoded(EMPTY_BOOK), "XBTUSDM")
    assert (empty.bids, empty.asks, empty.sequence) == ((), (), -1)
    for wrong, where in (([[True, 1]], "bids[0]"), ("x", "bids"), ([[1, 2], [1]], "bids[1]")):
        with pytest.raises(BadResponseError) as caught:
            parse.book(changed(BOOK, bids=wrong), "XBTUSDM")
        assert caught.value.facts["field"] == where
    with pytest.raises(BadResponseError, match="another contract"):
        parse.book(decoded(BOOK), "ETHUSDTM")


def test_funding_now_of_both_shapes() -> None:
    now = parse.funding_now(decoded(FUNDING_2026), "ETHUSDTM")
    assert (now.code, now.rate) == ("ETHUSDTM", Decimal("-0.000032"))
    assert (now.started_ms, now.settles_ms) == (1_776_672_000_000, 1_776_700_800_000)
    old = parse.funding_now(decoded(FUNDING_2024), "XBTUSDTM")
    assert old.settles_ms == 1_705_896_000_000 + 28_800_000
    with pytest.raises(BadResponseError, match="value"):
        parse.funding_now(changed(FUNDING_2026, value=None), "ETHUSDTM")


def test_funding_history_is_sorted_and_each_rate_has_its_interval() -> None:
    rows, rejections = parse.funding_rows(decoded(FUNDING_HISTORY), "IDUSDTM")
    assert rejections == []
    linked = parse.link_settlements([*rows, *rows])
    assert [row.settled_ms for row in linked] == [1702267200000, 1702296000000, 1702310400000]
    hour = 3_600_000
    assert [row.interval_ms for row in linked] == [None, 8 * hour, 4 * hour]
    assert linked[-1].rate == Decimal("0.01875")
    rows, rejections = parse.funding_rows(decoded(FUNDING_HISTORY), "XBTUSDTM")
    assert rows == []
    assert {r.field for r in rejections} == {"symbol"}


def test_a_hole_in_the_funding_history_has_no_interval() -> None:
    rows, _ = parse.funding_rows(decoded(FUNDING_HISTORY), "IDUSDTM")
    linked = parse.link_settlements([rows[0], rows[2]])
    assert linked[1].interval_ms == 12 * 3_600_000  # could be an interval: cannot be told apart
    later = parse.funding_rows(
        [{"symbol": "IDUSDTM", "fundingRate": 0, "timepoint": 1702267200000 + 20 * 3_600_000}],
        "IDUSDTM",
    )[0]
    assert parse.link_settlements([rows[2], *later])[1].interval_ms is None


def test_candles_in_base_coins_with_turnover_given_or_derived() -> None:
    contract, _ = one(decoded(LINEAR_2026))
    rows, rejections = parse.candle_rows(decoded(KLINE))
    assert rejections == []
    series = parse.candle_series(rows, contract, 28_800_000, 0, 2**60)
    assert list(series.opened_ms) == [1728576000000, 1728604800000]
    assert series.volume == pytest.approx([5501.167, 1220.98])
    assert series.turnover == pytest.approx([331000000.5, 1220.98 * 60666.1])
    assert (series.open[0], series.high[0], series.low[0], series.close[0]) == (
        60791.1,
        61035,
        58940,
        60300,
    )
    inverse, _ = one(decoded(INVERSE_2023))
    series = parse.candle_series(rows, inverse, 28_800_000, 0, 2**60)
    assert list(series.turnover) == list(series.volume) == [5501167, 1220980]
    assert len(parse.candle_series(parse.join_rows([]), contract, DAY, 0, 1)) == 0


GOOD_ROW: list[Any] = [1728576000000, 10, 12, 9, 11, 100]


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        (0, "soon", "time"),
        (0, 12, "time"),
        (1, 0, "open"),
        (2, 10.5, "high"),
        (2, True, "high"),
        (3, 10.5, "high"),
        (3, -1, "low"),
        (4, None, "close"),
        (4, "1e400", "close"),
        (5, -1, "volume"),
    ],
)
def test_an_impossible_candle_is_a_hole(column: int, value: Any, field: str) -> None:
    row = list(GOOD_ROW)
    row[column] = Decimal(str(value)) if isinstance(value, float) else value
    rows, rejections = parse.candle_rows([GOOD_ROW, row, GOOD_ROW[:5], "x"])
    assert len(rows) == 1
    assert [r.field for r in rejections] == [field, "row", "row"]
    assert rejections[0].key == "#1"


START = 1_728_576_000_000
ODD_CELLS: list[Any] = [
    *(True, None, "11", "1e400", "x", 0, -1, 10.5, -0.0, 1e-31, 1e31, 5e-324, [], {}),
    *(Decimal("10.25"), Decimal("NaN"), Decimal("1e-40"), 10**40, 10**400, 2**64, 2**63),
    *(START // 1000, START * 1000, START + 0.5, float(START)),
    *(1_420_070_399_999, 1_420_070_400_000, 4_102_444_799_999, 4_102_444_800_000),
]


@pytest.mark.parametrize("odd", ODD_CELLS, ids=lambda odd: str(odd)[:20])
@pytest.mark.parametrize("column", range(8))
def test_a_page_read_at_once_says_what_its_rows_say_one_by_one(column: int, odd: Any) -> None:
    for width in (5, 6, 7, 8):
        for shortened in (False, True):
            sent: list[Any] = [
                [START + n * DAY, 10, 12.5, 9, 11, 100, -7.5, 0][:width] for n in range(3)
            ]
            if shortened:
                sent[2].pop()
            if column < width:
                sent[1][column] = odd
            together, refused = parse.candle_rows(sent)
            singly, refused_singly = parse.candle_rows([*sent, "what no page holds"])
            assert [*refused, Rejection("#3", "row", "fewer than six columns")] == refused_singly
            np.testing.assert_array_equal(together.opened_ms, singly.opened_ms)
            np.testing.assert_array_equal(together.values, singly.values)
            assert len(together) + len(refused) == 3


@pytest.mark.parametrize("count", [1, 200])
def test_prices_turned_around_are_refused_in_any_company(count: int) -> None:
    sent = [[START + n * DAY, 10, 12, 9, 11, 100, 7] for n in range(count)]
    for spoiled, field in (([-9, -8, -11, -10], "open"), ([10, 9, 12, 11], "high")):
        sent[-1][1:5] = spoiled
        rows, rejections = parse.candle_rows(sent)
        assert len(rows) == count - 1
        assert [(one.key, one.field) for one in rejections] == [(f"#{count - 1}", field)]


def test_numbers_of_candles_are_floats_and_the_nearest_ones() -> None:
    texts = ["0.1", "60791.1", "1e-7", "123456789.123456789", "9007199254740993.1", "0.30000000004"]
    for position, text in enumerate(texts):
        row = ["1", "1", "1", "1", "1", "1"]
        row[position] = text
        body = success(f"[[{START},{','.join(row)}]]")
        outcome = interpret_response(ExchangeResponse(200, SILENT, body), KLINE_ROUTE)
        assert isinstance(outcome, RequestSuccess)
        cells = cast("list[list[object]]", outcome.data)[0]
        assert not any(isinstance(cell, Decimal) for cell in cells)
        assert cells[position + 1] == float(Decimal(text))


def test_a_number_beyond_floats_costs_its_candle_only() -> None:
    data = f"[[{START},10,12,9,11,100],[{START + DAY},10,12,9,1e400,100]]"
    outcome = interpret_response(ExchangeResponse(200, SILENT, success(data)), KLINE_ROUTE)
    assert isinstance(outcome, RequestSuccess)
    rows, rejections = parse.candle_rows(outcome.data)
    assert list(rows.opened_ms) == [START]
    assert [(one.key, one.field) for one in rejections] == [("#1", "close")]


def test_R15_candles_are_sorted_deduplicated_and_on_the_grid() -> None:
    contract, _ = one(decoded(LINEAR_2026))
    moments = [5 * DAY, 3 * DAY, 4 * DAY, 3 * DAY, 4 * DAY + 1, 7 * DAY]
    base = 1_700_006_400_000 // DAY * DAY
    sent = [[base + m, 10, 12, 9, 10 + n / 10, 100] for n, m in enumerate(moments)]
    rows, _ = parse.candle_rows(decoded(str(sent)))
    series = parse.candle_series(rows, contract, DAY, base, base + 7 * DAY)
    assert list(series.opened_ms - base) == [3 * DAY, 4 * DAY, 5 * DAY]
    assert series.close[0] == 10.3  # the later row is the newer knowledge
    assert np.all(np.diff(series.opened_ms) > 0)


@pytest.mark.parametrize(
    "spelling", [1_760_000_000, 1_760_000_000_000, 1_760_000_000_000_000, 1_760_000_000 * 10**9]
)
@pytest.mark.parametrize("form", [int, str, Decimal])
def test_T02_the_unit_of_a_time_is_told_by_its_size(
    spelling: int, form: Callable[[int], Any]
) -> None:
    assert parse.server_time(form(spelling)) == 1_760_000_000_000


def test_T02_nanoseconds_keep_their_milliseconds() -> None:
    assert parse.server_time(1_545_914_149_935_808_589) == 1_545_914_149_935


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_T02_outside_2015_to_2100_is_refused(unit: int) -> None:
    assert parse.server_time(1_420_070_400 * unit) == 1_420_070_400_000
    for seconds in (1_420_070_399, 4_102_444_800):
        with pytest.raises(BadResponseError):
            parse.server_time(seconds * unit)


@pytest.mark.parametrize("data", [None, True, "now", -1, 0, [], {}, Decimal("1.5")])
def test_T02_what_is_no_time_is_refused(data: object) -> None:
    with pytest.raises(BadResponseError):
        parse.server_time(data)


def test_status_words() -> None:
    for word in ("open", "close", "cancelonly"):
        assert parse.status({"status": word, "msg": ""}) is ExchangeStatus(word)
    senseless: list[object] = [{"status": "asleep"}, {"status": True}, {}, []]
    for data in senseless:
        with pytest.raises(BadResponseError):
            parse.status(data)


@pytest.mark.parametrize("data", [None, {}, "x", 5, True])
@pytest.mark.parametrize(
    "read",
    [
        parse.tickers,
        parse.candle_rows,
        partial(parse.funding_rows, requested="X"),
        partial(parse_contracts.contracts, received_ms=0),
    ],
)
def test_a_list_that_is_none_is_a_typed_error(read: Callable[[object], object], data: Any) -> None:
    with pytest.raises(BadResponseError) as caught:
        read(data)
    assert caught.value.facts["field"] == "data"


READERS: list[Callable[[object], object]] = [
    parse.server_time,
    parse.status,
    parse.tickers,
    parse.candle_rows,
    partial(parse.ticker, requested="XBTUSDTM"),
    partial(parse.book, requested="XBTUSDM"),
    partial(parse.mark_price, requested="XBTUSDTM"),
    partial(parse.funding_now, requested="XBTUSDTM"),
    partial(parse.funding_rows, requested="IDUSDTM"),
    partial(parse_contracts.contracts, received_ms=NOW_MS),
    partial(parse_contracts.contract, requested="XBTUSDTM", received_ms=NOW_MS),
]


def read_everything(body: bytes) -> None:
    """Judge and read a body in every way; only errors of the domain may come out."""
    outcome = judged(body)
    if isinstance(outcome, RequestFailure):
        assert isinstance(outcome.error, ServiceError)
        return
    assert isinstance(outcome, RequestSuccess)
    for read in READERS:
        with contextlib.suppress(BadResponseError):
            read(outcome.data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    read_everything(body)
    read_everything(b'{"code":"200000","data":' + body + b"}")


SIZES = ["0", "-0", "1e400", "-1E-400", "1e999999999999999999", "9" * 400, "9" * 5000, "0E-8"]
WORDS = ["1760000000000", "1.5", "true", "null", '""', '"\\ud800"', '"NaN"', '"1E-7"', "[]", "{}"]
RECORDS = [LINEAR_2026, INVERSE_2023, TICKER, BOOK, FUNDING_2026, MARK]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_damaged_record_raises_anything_else(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(RECORDS))
    quotes = [i for i, letter in enumerate(text) if letter in ",:"]
    begin = data.draw(st.sampled_from(quotes)) + 1
    end = data.draw(st.integers(begin, min(len(text), begin + 40)))
    damaged = text[:begin] + data.draw(st.sampled_from(SIZES + WORDS)) + text[end:]
    read_everything(success(damaged))
    read_everything(success(f"[{text},{damaged}]"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_wrong_field_never_hurts_another_record(data: st.DataObject) -> None:
    record = decoded(LINEAR_2026)
    field = data.draw(st.sampled_from(sorted(record)))
    record[field] = data.draw(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
    )
    answer = listing(record, decoded(INVERSE_2023))
    assert answer.contracts[-1].code == "XBTUSDM"
    assert {r.field for r in answer.rejections} <= {field}


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20))
def test_a_number_survives_its_text_exactly(number: Decimal) -> None:
    in_range = number == 0 or -30 <= number.adjusted() <= 30
    if in_range and len(str(number)) <= 80:
        assert fields.decimal(str(number)) == number
    else:
        with pytest.raises(fields.UnreadableError):
            fields.decimal(str(number))


@pytest.mark.parametrize("value", [1.5, 10**31, -(10**31), "1" * 81, "", " 1", "1 ", "--1", b"1"])
def test_what_is_not_an_exact_number_is_refused(value: object) -> None:
    with pytest.raises(fields.UnreadableError):
        fields.decimal(value)


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (fields.lots, -1),
        (fields.whole, "1.5"),
        (fields.some_lots, 0),
        (fields.positive_magnitude, 0),
        (fields.flag, 1),
        (fields.flag, "true"),
        (fields.text, "two words"),
        (fields.code, "xbtusdtm"),
        (fields.decimal, fields.number_from_text("1e" + "9" * 30)),
        (fields.decimal, fields.number_from_text("1" * 81)),
    ],
)
def test_a_reader_refuses_what_its_field_cannot_be(
    read: Callable[[object], object], wrong: object
) -> None:
    with pytest.raises(fields.UnreadableError):
        read(wrong)


def test_a_mark_price_with_a_senseless_index_is_refused() -> None:
    assert parse.mark_price(changed(MARK, indexPrice=None), "XBTUSDTM").index is None
    with pytest.raises(BadResponseError, match="indexPrice"):
        parse.mark_price(changed(MARK, indexPrice=True), "XBTUSDTM")


@given(
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.sampled_from([3_600_000, 86_400_000]),
    st.integers(0, 3_599_999),
)
def test_R15_pages_cover_the_range_once_and_hold_200_at_most(
    begin: int, length: int, step: int, offset: int
) -> None:
    start, end = begin * step + offset, (begin + length) * step
    asked = [
        moment
        for first, last in candle_pages(start, end, step, 200)
        for moment in range(first, last + 1, step)
    ]
    assert asked == [m for m in range(begin * step, end, step) if m >= start]
    for first, last in candle_pages(start, end, step, 200):
        assert (last - first) // step < 200


def test_holes_are_spanned() -> None:
    rows, _ = parse.candle_rows([[1728576000000 + n * DAY, 1, 1, 1, 1, 1] for n in (0, 1, 4, 6)])
    first = 1728576000000
    assert find_gap(rows, first, first + 6 * DAY, DAY) == (first + 2 * DAY, first + 5 * DAY)
    assert find_gap(rows, first, first + DAY, DAY) is None
    assert find_gap(rows, first, first - DAY, DAY) is None


@given(st.integers(0, 10**9), st.integers(0, 10**10), st.integers(1, 20))
def test_funding_windows_cover_the_range_once(begin: int, length: int, days: int) -> None:
    pages = list(funding_pages(begin, begin + length, days))
    assert pages[0][0] == begin
    assert pages[-1][1] == begin + length
    assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(pages))


def test_an_older_page_is_asked_for_only_when_it_may_hold_something() -> None:
    rows, _ = parse.funding_rows(decoded(FUNDING_HISTORY), "IDUSDTM")
    oldest = 1702267200000
    hours = 4 * 3_600_000
    assert next_older_ms(rows, oldest - hours + 1, 2**60) is None
    assert next_older_ms(rows, oldest - hours, 2**60) == oldest - 1
    assert next_older_ms([], 0, 2**60) is None
    assert next_older_ms(rows, 0, oldest - 1) is None  # nothing older came: no endless loop
