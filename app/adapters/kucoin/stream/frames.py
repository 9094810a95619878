"""Frames of the stream: commands, control frames, message order, and messages as market updates.

Pure functions. An unusable frame, or data that no market can have, raises UnreadableError and no
other error.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from operator import itemgetter
from typing import Final, Generic, TypeVar

import msgspec

from app.adapters.kucoin.fields import DIGITS, YEAR_2015_S, YEAR_2100_S, UnreadableError
from app.adapters.kucoin.stream.protocol import Control, Send
from app.market.domain.models import Book, Level
from app.market.domain.stream import (
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    MarkUpdate,
    QuoteUpdate,
    StreamTopic,
    TopicKind,
    TradeCounts,
    TradeUpdate,
    Update,
)

T = TypeVar("T")
CONTROL: Final = frozenset({"welcome", "ack", "pong", "error"})
_CHANNELS: Final = {
    TopicKind.QUOTE: "/contractMarket/tickerV2",
    TopicKind.INSTRUMENT: "/contract/instrument",
    TopicKind.DAY: "/contractMarket/snapshot",
    TopicKind.BOOK: "/contractMarket/level2Depth50",
    TopicKind.HOUR_BAR: "/contractMarket/limitCandle",
    TopicKind.TRADE: "/contractMarket/execution",
}
_TAILS: Final = {TopicKind.HOUR_BAR: "_1hour"}
FUNDING: Final = "funding.rate"
PREDICTED: Final = 60_000  # granularity of the predicted rate of the running interval
_INSTRUMENT: Final = TopicKind.INSTRUMENT
_FIRST_NS: Final = YEAR_2015_S * 1_000_000_000
_LAST_NS: Final = YEAR_2100_S * 1_000_000_000
_UNITS: Final = (  # one second in each unit, and its conversion to ms; most stamps have the first
    (1_000_000_000, 1, 1_000_000), (1_000, 1, 1), (1_000_000, 1, 1_000), (1, 1_000, 1),
)  # fmt: skip


class MessageStamp(msgspec.Struct, gc=False):
    """Exchange time and sequence of a message, which order messages."""

    ts: int | None = None
    timestamp: int | None = None
    time: int | None = None
    sequence: int | None = None
    granularity: int | None = None


class StreamFrame(msgspec.Struct, gc=False):
    """Envelope of a frame; old messages lack even the type."""

    type: str = "message"
    topic: str = ""
    subject: str = ""
    id: str | int | None = None
    code: int | str | None = None
    data: MessageStamp | str | None = None


class _Bare(msgspec.Struct, gc=False):
    """Frame with data of an unknown kind."""

    type: str = "message"
    topic: str = ""
    subject: str = ""
    id: str | int | None = None
    code: int | str | None = None


_FRAME: Final = msgspec.json.Decoder(StreamFrame)
_BARE: Final = msgspec.json.Decoder(_Bare)
_encode = msgspec.json.Encoder().encode


def topic_name(topic: StreamTopic) -> str:
    """StreamTopic name in the exchange's frames."""
    return f"{_CHANNELS[topic.kind]}:{topic.code}{_TAILS.get(topic.kind, '')}"


def encode_command(sent: Send) -> bytes:
    """Encode a command; its topics are of one kind."""
    if not sent.topics:
        return _encode({"id": sent.number, "type": sent.kind})
    kind = sent.topics[0].kind
    names = ",".join(f"{topic.code}{_TAILS.get(kind, '')}" for topic in sent.topics)
    return _encode(
        {
            "id": sent.number,
            "type": sent.kind,
            "topic": f"{_CHANNELS[kind]}:{names}",
            "privateChannel": False,
            "response": True,
        }
    )


def parse_frame(text: bytes) -> StreamFrame:
    """Parse a frame; without data where these are of an unknown kind."""
    try:
        return _FRAME.decode(text)
    except (ValueError, RecursionError):
        bare = decode_message(_BARE, text)
        return StreamFrame(bare.type, bare.topic, bare.subject, bare.id, bare.code)


def parse_control(frame: StreamFrame) -> Control:
    """Parse a welcome, ack, pong or error; the id comes back as text, whatever its type was."""
    number = None if frame.id is None else str(frame.id)
    if frame.type != "error":
        return Control(frame.type, number)
    try:
        code = None if frame.code is None else int(frame.code)
    except ValueError:
        raise UnreadableError("an invalid error frame") from None
    return Control("error", number, code, frame.data if isinstance(frame.data, str) else "")


def message_stamp(frame: StreamFrame) -> tuple[int, int | None]:
    """Exchange time in ms and sequence of a message.

    A candle has the time of its message, so each of its messages counts.
    """
    if not isinstance(frame.data, MessageStamp):
        raise UnreadableError("a message without data")
    return stamp_from_data(frame.data)


def stamp_from_data(found: MessageStamp) -> tuple[int, int | None]:
    """Exchange time in ms and sequence from a message's data."""
    stamp = found.ts
    if stamp is None:
        stamp = found.time if found.timestamp is None else found.timestamp
    elif _FIRST_NS <= stamp < _LAST_NS:  # the usual case
        return stamp // 1_000_000, found.sequence
    if stamp is None:
        raise UnreadableError("a message without time")
    return parse_ms(stamp), found.sequence


def conflation_key(topic: StreamTopic, frame: StreamFrame) -> object:
    """Key of messages that replace each other: of these only the newest matters."""
    if topic.kind is not _INSTRUMENT:
        return frame.topic
    if frame.subject == FUNDING and isinstance(frame.data, MessageStamp):
        return frame.topic, frame.subject, frame.data.granularity == PREDICTED
    return frame.topic, frame.subject


def decode_message(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Decode a message; raises UnreadableError."""
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):  # msgspec and Unicode errors are ValueErrors
        raise UnreadableError("not a frame of the exchange") from None


def parse_ms(stamp: int) -> int:
    """Time as epoch milliseconds; the magnitude determines its unit (s, ms, us, ns)."""
    for per_second, times, parts in _UNITS:
        if YEAR_2015_S * per_second <= stamp < YEAR_2100_S * per_second:
            return stamp * times // parts
    raise UnreadableError("not a time between 2015 and 2100")


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
    side: str = ""  # of the taker


class _Candle(msgspec.Struct, gc=False):
    candles: list[str]


_TICKER: Final = msgspec.json.Decoder(_Payload[_TickerV2])
_MARKS: Final = msgspec.json.Decoder(_Payload[_Marks])
_RATE: Final = msgspec.json.Decoder(_Payload[_Rate])
_DAY: Final = msgspec.json.Decoder(_Payload[_Day])
_DEPTH: Final = msgspec.json.Decoder(_Payload[_Depth])
_MATCH: Final = msgspec.json.Decoder(_Payload[_Match])
_CANDLE: Final = msgspec.json.Decoder(_Payload[_Candle])


def parse_update(topic: StreamTopic, subject: str, text: bytes) -> Update:
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
            lots = _count(match.size)
            flow = _flow(match.side, lots)
            return TradeUpdate(_price(match.price), lots, parse_ms(match.ts), flow)


class _Taken(msgspec.Struct, gc=False):
    size: int
    side: str = ""


_TAKEN: Final = msgspec.json.Decoder(_Payload[_Taken])


def parse_trade_counts(text: bytes) -> TradeCounts | None:
    """Counts of one trade; None without a known side. Reads no price: all trades are counted."""
    found = decode_message(_TAKEN, text).data
    return _flow(found.side, _count(found.size))


def _flow(side: str, lots: int) -> TradeCounts | None:
    if side == "buy":
        return TradeCounts(lots, 0, 1)
    return TradeCounts(0, lots, 1) if side == "sell" else None


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


def _book(topic: StreamTopic, found: _Depth) -> Book:
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
        ordered = sorted(rows, key=_PRICE, reverse=is_falling)
    except InvalidOperation:  # not a number
        raise UnreadableError("not a price of a market") from None
    for price, _ in (ordered[0], ordered[-1]):  # all others lie between them
        _price(price)
    _count(min(map(_LOTS, rows)))
    filled = [row for row in islice(ordered, LEVELS) if row[1]]
    if len(filled) < LEVELS:  # some of the best levels are empty
        filled = list(islice(filter(_LOTS, ordered), LEVELS))
    return tuple(map(Level._make, filled))


def _bar(found: _Candle) -> BarUpdate:
    first = found.candles[0] if found.candles else ""
    if not first.isascii() or not first.isdigit() or len(first) > 19:
        raise UnreadableError("a bar without its opening time")
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
