"""Frames of the stream: recorded ones are read exactly, impossible ones are refused."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.kucoin.fields import UnreadableError
from app.adapters.kucoin.stream.frames import (
    conflation_key,
    encode_command,
    message_stamp,
    parse_control,
    parse_frame,
    parse_update,
    topic_name,
)
from app.adapters.kucoin.stream.protocol import Control, Send
from app.market.domain.models import Book, Level
from app.market.domain.stream import (
    BarUpdate,
    FundingUpdate,
    MarkUpdate,
    QuoteUpdate,
    StreamTopic,
    TopicKind,
    TradeCounts,
    TradeUpdate,
)

QUOTE = StreamTopic(TopicKind.QUOTE, "XBTUSDTM")
BOOK = StreamTopic(TopicKind.BOOK, "XBTUSDTM")
BAR = StreamTopic(TopicKind.HOUR_BAR, "XBTUSDTM")
INSTRUMENT = StreamTopic(TopicKind.INSTRUMENT, "XBTUSDTM")
TRADE = StreamTopic(TopicKind.TRADE, "XBTUSDTM")
TICKER = {
    "symbol": "XBTUSDTM",
    "sequence": 1729843266,
    "bestBidSize": 2905,
    "bestBidPrice": "67159.2",
    "bestAskPrice": "67159.3",
    "bestAskSize": 1,
    "ts": 1729843266123000000,
}


def said(**data: Any) -> bytes:
    return json.dumps({"topic": "x", "data": data}).encode()


def test_names_and_commands_are_those_of_the_exchange() -> None:
    assert topic_name(BAR) == "/contractMarket/limitCandle:XBTUSDTM_1hour"
    other = StreamTopic(TopicKind.HOUR_BAR, "ETHUSDTM")
    sent = json.loads(encode_command(Send(1, "7", "subscribe", (BAR, other))))
    assert sent == {
        "id": "7",
        "type": "subscribe",
        "topic": "/contractMarket/limitCandle:XBTUSDTM_1hour,ETHUSDTM_1hour",
        "privateChannel": False,
        "response": True,
    }
    assert json.loads(encode_command(Send(1, "8", "ping"))) == {"id": "8", "type": "ping"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id":"a1","type":"welcome"}', Control("welcome", "a1")),
        ('{"id":7,"type":"ack"}', Control("ack", "7")),
        (
            '{"type":"error","code":509,"data":"exceed max permits per second"}',
            Control("error", None, 509, "exceed max permits per second"),
        ),
        ('{"id":"9","type":"error","code":"401","data":null}', Control("error", "9", 401, "")),
    ],
)
def test_control_frames_are_read_in_every_spelling(text: str, expected: Control) -> None:
    assert parse_control(parse_frame(text.encode())) == expected


def test_a_quote_is_exact_and_a_side_without_price_is_nobody() -> None:
    found = parse_update(QUOTE, "tickerV2", said(**TICKER))
    assert found == QuoteUpdate(Decimal("67159.2"), 2905, Decimal("67159.3"), 1)
    empty = parse_update(
        QUOTE, "tickerV2", said(**{**TICKER, "bestBidPrice": None, "bestAskPrice": 0})
    )
    assert isinstance(empty, QuoteUpdate)
    assert (empty.bid, empty.ask) == (None, None)


def test_times_are_told_by_magnitude_and_funding_by_its_granularity() -> None:
    frame = parse_frame(json.dumps({"topic": "x", "subject": "tickerV2", "data": TICKER}).encode())
    assert message_stamp(frame) == (1729843266123, 1729843266)
    keys = []
    for granularity in (60_000, 28_800_000):
        data = {"granularity": granularity, "fundingRate": 1e-4, "timestamp": 1729843260000}
        body = json.dumps({"topic": "x", "subject": "funding.rate", "data": data}).encode()
        keys.append(conflation_key(INSTRUMENT, parse_frame(body)))
        found = parse_update(INSTRUMENT, "funding.rate", body)
        assert found == FundingUpdate(Decimal("0.0001"), granularity == 60_000)
    assert len(set(keys)) == 2, "a prediction does not replace the rate in force"
    marks = parse_update(INSTRUMENT, "mark.index.price", said(markPrice=1.5, indexPrice=1.25))
    assert marks == MarkUpdate(Decimal("1.5"), Decimal("1.25"))


def test_a_book_is_sorted_without_empty_levels_and_no_deeper_than_an_answer() -> None:
    bids = [[str(100 - n), n] for n in range(40)]
    asks = [["103", 3], ["101", 1], ["102", 0]]
    found = parse_update(BOOK, "level2", said(sequence=5, bids=bids, asks=asks, ts=1729843266123))
    assert isinstance(found, Book)
    assert found.asks == (Level(Decimal(101), 1), Level(Decimal(103), 3))
    assert len(found.bids) == 20
    assert found.bids[0] == Level(Decimal(99), 1)
    assert (found.sequence, found.stamped_ms) == (5, 1729843266123)


def test_of_a_bar_only_its_opening_is_believed() -> None:
    found = parse_update(BAR, "candle.stick", said(candles=["1729843200", "1", "2", "3", "0.5"]))
    assert found == BarUpdate(1729843200000)


def test_a_trade_is_the_price_that_was_matched_and_when() -> None:
    said_of_it = said(price="67523", size=1, side="sell", ts=1729842192785164840)
    found = parse_update(TRADE, "match", said_of_it)
    assert found == TradeUpdate(Decimal(67523), 1, 1729842192785, TradeCounts(0, 1, 1))
    unknown = parse_update(TRADE, "match", said(price="67523", size=1, ts=1729842192785164840))
    assert unknown == TradeUpdate(Decimal(67523), 1, 1729842192785, None), "no side, no flow"
    assert topic_name(TRADE) == f"/contractMarket/execution:{TRADE.code}"


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        (QUOTE, {"bestBidPrice": "NaN"}),
        (QUOTE, {"bestBidPrice": "Infinity"}),
        (QUOTE, {"bestBidPrice": "-1"}),
        (QUOTE, {"bestBidPrice": "1e400"}),
        (QUOTE, {"bestBidPrice": True}),
        (QUOTE, {"bestBidSize": -1}),
        (QUOTE, {"bestBidSize": 1.5}),
        *(
            (QUOTE, TICKER | {f"best{side}{what}": wrong})
            for side in ("Bid", "Ask")
            for what, wrong in (
                ("Price", "NaN"),
                ("Price", "-1"),
                ("Price", "1e40"),
                ("Price", "1e-40"),
                ("Size", -1),
            )
        ),
        (INSTRUMENT, {"markPrice": 0, "indexPrice": 1}),
        (INSTRUMENT, {"markPrice": 1}),
        (BOOK, {"sequence": 1, "bids": [["1"]], "asks": [], "ts": 1729843266123}),
        (BOOK, {"sequence": 1, "bids": [["0", 1]], "asks": [], "ts": 1729843266123}),
        (BOOK, {"sequence": 1, "bids": [], "asks": []}),
        (BOOK, {"sequence": 1, "bids": [["1", -1]], "asks": [], "ts": 1729843266123}),
        (BOOK, {"sequence": 1, "bids": [["NaN", 1], ["2", 1]], "asks": [], "ts": 1729843266123}),
        (BOOK, {"sequence": 1, "bids": [["NaN", 1]], "asks": [], "ts": 1729843266123}),
        (BOOK, {"sequence": 1, "bids": [["2", 1], ["1e40", 0]], "asks": [], "ts": 1729843266123}),
        (TRADE, {"price": "0", "size": 1, "ts": 1729843266123}),
        (TRADE, {"price": "1", "size": -1, "ts": 1729843266123}),
        (TRADE, {"price": "1", "size": 1, "ts": 5}),
        (BAR, {"candles": []}),
        (BAR, {"candles": ["later"]}),
        (BAR, {"candles": ["9" * 30]}),
    ],
)
def test_D01_what_no_market_says_is_refused(topic: StreamTopic, data: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError):
        parse_update(topic, "", said(**data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)
READERS: tuple[Callable[[bytes], object], ...] = (
    lambda body: parse_control(parse_frame(body)),
    lambda body: message_stamp(parse_frame(body)),
    lambda body: message_stamp(parse_frame(b'{"data":' + body + b"}")),
    *(
        (
            lambda body, kind=kind: parse_update(
                StreamTopic(kind, "X"), "", b'{"data":' + body + b"}"
            )
        )
        for kind in TopicKind
    ),
)


@settings(max_examples=40)
@given(JSON.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=60))
def test_W13_whatever_comes_is_read_or_refused_and_nothing_else(body: bytes) -> None:
    for read in READERS:
        try:
            read(body)
        except UnreadableError:
            continue
