"""Frames of the stream: topics by their names, control frames, and messages as domain values.

Pure functions. What cannot be used raises UnreadableError, and nothing else.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from app.adapters.kucoin.fields import DIGITS, YEAR_2015_S, YEAR_2100_S, UnreadableError
from app.adapters.kucoin.stream_terms import Control, Send
from app.domain.feed import (
    BarUpdate,
    DayUpdate,
    FundingUpdate,
    MarkUpdate,
    QuoteUpdate,
    Topic,
    TopicKind,
    Update,
)
from app.domain.market import Book, Level

T = TypeVar("T")
LEVELS: Final = 20  # as many as the answers have, so that books are alike wherever they come from
CONTROL: Final = frozenset({"welcome", "ack", "pong", "error"})
_CHANNELS: Final = {
    TopicKind.QUOTE: "/contractMarket/tickerV2",
    TopicKind.INSTRUMENT: "/contract/instrument",
    TopicKind.DAY: "/contractMarket/snapshot",
    TopicKind.BOOK: "/contractMarket/level2Depth50",
    TopicKind.HOUR_BAR: "/contractMarket/limitCandle",
}
_TAILS: Final = {TopicKind.HOUR_BAR: "_1hour"}
_FUNDING: Final = "funding.rate"
_PREDICTED: Final = 60_000  # the granularity of a rate that is still running
_UNITS: Final = ((1, 1_000, 1), (1_000, 1, 1), (1_000_000, 1, 1_000), (1_000_000_000, 1, 1_000_000))


class Frame(msgspec.Struct, gc=False):
    """One frame with its data still as text; old messages lack even the type."""

    type: str = "message"
    topic: str = ""
    subject: str = ""
    id: str | int | None = None
    code: int | str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Stamp(msgspec.Struct, gc=False):
    ts: int | None = None
    timestamp: int | None = None
    time: int | None = None
    sequence: int | None = None
    granularity: int | None = None


class _TickerV2(msgspec.Struct, gc=False):
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


class _Candle(msgspec.Struct, gc=False):
    candles: list[str]


_FRAME: Final = msgspec.json.Decoder(Frame)
_STAMP: Final = msgspec.json.Decoder(_Stamp)
_TICKER: Final = msgspec.json.Decoder(_TickerV2)
_MARKS: Final = msgspec.json.Decoder(_Marks)
_RATE: Final = msgspec.json.Decoder(_Rate)
_DAY: Final = msgspec.json.Decoder(_Day)
_DEPTH: Final = msgspec.json.Decoder(_Depth)
_CANDLE: Final = msgspec.json.Decoder(_Candle)
_encode = msgspec.json.Encoder().encode


def topic_name(topic: Topic) -> str:
    """As it is written in the frames of one topic."""
    return f"{_CHANNELS[topic.kind]}:{topic.code}{_TAILS.get(topic.kind, '')}"


def command(sent: Send) -> bytes:
    """A command as it is sent; the topics of one command are of one kind."""
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


def frame_of(text: bytes) -> Frame:
    return _decoded(_FRAME, text)


def control_of(frame: Frame) -> Control:
    """A welcome, ack, pong or error; the id comes back as text whatever it was sent as."""
    number = None if frame.id is None else str(frame.id)
    if frame.type != "error":
        return Control(frame.type, number)
    try:
        code = None if frame.code is None else int(frame.code)
        text = msgspec.json.decode(frame.data)
    except (ValueError, RecursionError):
        raise UnreadableError("an error without sense") from None
    return Control("error", number, code, text if isinstance(text, str) else "")


def stamp_of(topic: Topic, frame: Frame) -> tuple[object, int, int | None]:
    """What a message is compared with its like by: key, exchange time in ms, sequence.

    A bar is of the second at which it was told, so each of its messages counts.
    """
    found = _decoded(_STAMP, frame.data)
    stamp = next((one for one in (found.ts, found.timestamp, found.time) if one is not None), None)
    if stamp is None:
        raise UnreadableError("a message without time")
    key: object = topic
    if frame.subject == _FUNDING:
        key = (topic, found.granularity == _PREDICTED)
    elif topic.kind is TopicKind.INSTRUMENT:
        key = (topic, frame.subject)
    return key, _ms(stamp), found.sequence


def update_of(topic: Topic, subject: str, data: msgspec.Raw) -> Update:
    """What a message says."""
    match topic.kind:
        case TopicKind.QUOTE:
            return _quote(_decoded(_TICKER, data))
        case TopicKind.INSTRUMENT if subject == _FUNDING:
            rate = _decoded(_RATE, data)
            return FundingUpdate(_sound(rate.fundingRate), rate.granularity == _PREDICTED)
        case TopicKind.INSTRUMENT:
            marks = _decoded(_MARKS, data)
            return MarkUpdate(_price(marks.markPrice), _price(marks.indexPrice))
        case TopicKind.DAY:
            return _day(_decoded(_DAY, data))
        case TopicKind.BOOK:
            return _book(topic, data)
        case TopicKind.HOUR_BAR:
            return _bar(_decoded(_CANDLE, data))


def _quote(found: _TickerV2) -> QuoteUpdate:
    bid, ask = _side(found.bestBidPrice), _side(found.bestAskPrice)
    return QuoteUpdate(bid, _lots(found.bestBidSize), ask, _lots(found.bestAskSize))


def _day(found: _Day) -> DayUpdate:
    return DayUpdate(
        last=_price(found.lastPrice),
        high=_price(found.highPrice),
        low=_price(found.lowPrice),
        change=_sound(found.priceChgPct),
        turnover=_sound(found.turnover).copy_abs(),
        volume=_sound(found.volume).copy_abs(),
    )


def _book(topic: Topic, data: msgspec.Raw) -> Book:
    found = _decoded(_DEPTH, data)
    stamp = _decoded(_STAMP, data)
    bids, asks = _levels(found.bids), _levels(found.asks)
    return Book(
        code=topic.code,
        sequence=found.sequence,
        bids=tuple(sorted(bids, key=lambda level: level.price, reverse=True)[:LEVELS]),
        asks=tuple(sorted(asks, key=lambda level: level.price)[:LEVELS]),
        stamped_ms=_ms(stamp.ts or stamp.timestamp or 0),
    )


def _levels(rows: Sequence[tuple[Decimal, int]]) -> list[Level]:
    return [Level(_price(price), lots) for price, lots in rows if (_lots(lots) or 0) > 0]


def _bar(found: _Candle) -> BarUpdate:
    first = found.candles[0] if found.candles else ""
    if not first.isascii() or not first.isdigit() or len(first) > 19:
        raise UnreadableError("a bar without its opening")
    return BarUpdate(_ms(int(first)))


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):  # msgspec's own errors and those of Unicode are such
        raise UnreadableError("not a frame of the exchange") from None


def _ms(stamp: int) -> int:
    """A time as epoch milliseconds, its unit (s, ms, us, ns) told by magnitude."""
    for per_second, times, parts in _UNITS:
        if YEAR_2015_S * per_second <= stamp < YEAR_2100_S * per_second:
            return stamp * times // parts
    raise UnreadableError("not a time between 2015 and 2100")


def _sound(number: Decimal) -> Decimal:
    if not number.is_finite() or (number and not -DIGITS <= number.adjusted() <= DIGITS):
        raise UnreadableError("not a number of a market")
    return number


def _price(number: Decimal) -> Decimal:
    if _sound(number) <= 0:
        raise UnreadableError("not positive")
    return number


def _side(number: Decimal | None) -> Decimal | None:
    """A best price; none and zero both say that nobody is there."""
    if number is None or _sound(number) == 0:
        return None
    return _price(number)


def _lots(count: int | None) -> int | None:
    if count is not None and count < 0:
        raise UnreadableError("negative")
    return count
