"""Parses stream messages to market updates.

Pure functions. Data that no market can have raises UnreadableError, and no other error.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from operator import itemgetter
from typing import Final, Generic, TypeVar

import msgspec

from app.adapters.kucoin.fields import DIGITS, UnreadableError
from app.adapters.kucoin.stream.frames import (
    FUNDING,
    PREDICTED,
    MessageStamp,
    decode_message,
    parse_ms,
    stamp_from_data,
)
from app.market.domain.models import Book, Level
from app.market.domain.stream import (
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    MarkUpdate,
    QuoteUpdate,
    Topic,
    TopicKind,
    TradeUpdate,
    Update,
)

T = TypeVar("T")
LEVELS: Final = 20  # as many as in REST answers, so that books are alike
_PRICE, _LOTS = itemgetter(0), itemgetter(1)  # columns of a book row
_LEAST: Final = Decimal(10) ** -DIGITS
_MOST: Final = Decimal(10) ** (DIGITS + 1)


class _Payload(msgspec.Struct, Generic[T], gc=False):
    data: T


class _TickerV2(MessageStamp, gc=False):
    bestBidPrice: Decimal | None = None  # noqa: N815  # the exchange's names
    bestBidSize: int | None = None  # noqa: N815  # the exchange's names
    bestAskPrice: Decimal | None = None  # noqa: N815  # the exchange's names
    bestAskSize: int | None = None  # noqa: N815  # the exchange's names


class _Marks(msgspec.Struct, gc=False):
    markPrice: Decimal  # noqa: N815  # the exchange's names
    indexPrice: Decimal  # noqa: N815  # the exchange's names


class _Rate(msgspec.Struct, gc=False):
    fundingRate: Decimal  # noqa: N815  # the exchange's names
    granularity: int


class _Day(msgspec.Struct, gc=False):
    lastPrice: Decimal  # noqa: N815  # the exchange's names
    highPrice: Decimal  # noqa: N815  # the exchange's names
    lowPrice: Decimal  # noqa: N815  # the exchange's names
    priceChgPct: Decimal  # noqa: N815  # the exchange's names
    turnover: Decimal
    volume: Decimal


class _Depth(msgspec.Struct, gc=False):
    sequence: int
    bids: list[tuple[Decimal, int]]
    asks: list[tuple[Decimal, int]]
    ts: int | None = None
    timestamp: int | None = None


class _Match(msgspec.Struct, gc=False):
    price: Decimal
    size: int
    ts: int


class _Candle(msgspec.Struct, gc=False):
    candles: list[str]


_TICKER: Final = msgspec.json.Decoder(_Payload[_TickerV2])
_MARKS: Final = msgspec.json.Decoder(_Payload[_Marks])
_RATE: Final = msgspec.json.Decoder(_Payload[_Rate])
_DAY: Final = msgspec.json.Decoder(_Payload[_Day])
_DEPTH: Final = msgspec.json.Decoder(_Payload[_Depth])
_MATCH: Final = msgspec.json.Decoder(_Payload[_Match])
_CANDLE: Final = msgspec.json.Decoder(_Payload[_Candle])


def parse_update(topic: Topic, subject: str, text: bytes) -> Update:
    """Update of a message."""
    match topic.kind:
        case TopicKind.QUOTE:
            return _quote(decode_message(_TICKER, text).data)
        case TopicKind.INSTRUMENT if subject == FUNDING:
            rate = decode_message(_RATE, text).data
            return FundingUpdate(_sound(rate.fundingRate), rate.granularity == PREDICTED)
        case TopicKind.INSTRUMENT:
            marks = decode_message(_MARKS, text).data
            return MarkUpdate(_price(marks.markPrice), _price(marks.indexPrice))
        case TopicKind.DAY:
            return _day(decode_message(_DAY, text).data)
        case TopicKind.BOOK:
            return _book(topic, decode_message(_DEPTH, text).data)
        case TopicKind.HOUR_BAR:
            return _bar(decode_message(_CANDLE, text).data)
        case TopicKind.TRADE:
            match = decode_message(_MATCH, text).data
            return TradeUpdate(_price(match.price), _count(match.size), parse_ms(match.ts))


def parse_quote(text: bytes) -> tuple[QuoteUpdate, int, int | None]:
    """Quote with its exchange time in ms and its sequence."""
    found = decode_message(_TICKER, text).data
    stamp = stamp_from_data(found)
    return _quote(found), stamp[0], stamp[1]


def _quote(found: _TickerV2) -> QuoteUpdate:
    bid, ask, lots = found.bestBidPrice, found.bestAskPrice, (found.bestBidSize, found.bestAskSize)
    if bid and ask and lots[0] and lots[1] and lots[0] > 0 < lots[1]:
        try:  # nearly all sizes are whole
            if _LEAST <= bid < _MOST and _LEAST <= ask < _MOST:
                return QuoteUpdate(bid, lots[0], ask, lots[1])
        except InvalidOperation:  # strict parsing for the rest
            pass
    return QuoteUpdate(_side(bid), _lots(lots[0]), _side(ask), _lots(lots[1]))


def _day(found: _Day) -> DayUpdate:
    return DayUpdate(
        last=_price(found.lastPrice),
        high=_price(found.highPrice),
        low=_price(found.lowPrice),
        change=_sound(found.priceChgPct),
        turnover=_sound(found.turnover).copy_abs(),
        volume=_sound(found.volume).copy_abs(),
    )


def _book(topic: Topic, found: _Depth) -> Book:
    return Book(
        code=topic.code,
        sequence=found.sequence,
        bids=_levels(found.bids, is_falling=True),
        asks=_levels(found.asks, is_falling=False),
        stamped_ms=parse_ms(found.ts or found.timestamp or 0),
    )


def _levels(rows: Sequence[tuple[Decimal, int]], *, is_falling: bool) -> tuple[Level, ...]:
    """Best non-empty levels; one invalid level invalidates the message."""
    if not rows:
        return ()
    try:
        held = sorted(rows, key=_PRICE, reverse=is_falling)
    except InvalidOperation:  # not a number
        raise UnreadableError("not a price of a market") from None
    for price, _ in (held[0], held[-1]):  # all others lie between them
        _price(price)
    _count(min(map(_LOTS, rows)))
    filled = [row for row in islice(held, LEVELS) if row[1]]
    if len(filled) < LEVELS:  # some of the best levels are empty
        filled = list(islice(filter(_LOTS, held), LEVELS))
    return tuple(map(Level._make, filled))


def _bar(found: _Candle) -> BarUpdate:
    first = found.candles[0] if found.candles else ""
    if not first.isascii() or not first.isdigit() or len(first) > 19:
        raise UnreadableError("a bar without its opening")
    return BarUpdate(parse_ms(int(first)))


def _sound(number: Decimal) -> Decimal:
    if not number.is_finite() or (number and not -DIGITS <= number.adjusted() <= DIGITS):
        raise UnreadableError("not a number of a market")
    return number


def _price(number: Decimal) -> Decimal:
    try:
        if _LEAST <= number < _MOST:
            return number
    except InvalidOperation:  # not a number
        pass
    raise UnreadableError("not a price of a market")


def _side(number: Decimal | None) -> Decimal | None:
    """Best price of one side; none and zero both mean an empty side."""
    return _price(number) if number else None


def _lots(count: int | None) -> int | None:
    return None if count is None else _count(count)


def _count(lots: int) -> int:
    if lots < 0:
        raise UnreadableError("negative")
    return lots
