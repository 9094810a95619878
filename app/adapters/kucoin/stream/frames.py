"""Frames of the stream: topics by their names, control frames, and which message is the newer.

Pure functions. What cannot be used raises UnreadableError, and nothing else.
"""

from typing import Final, TypeVar

import msgspec

from app.adapters.kucoin.fields import YEAR_2015_S, YEAR_2100_S, UnreadableError
from app.adapters.kucoin.stream.protocol import Control, Send
from app.market.domain.stream import Topic, TopicKind

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
PREDICTED: Final = 60_000  # the granularity of a rate that is still running
_INSTRUMENT: Final = TopicKind.INSTRUMENT
_FIRST_NS: Final = YEAR_2015_S * 1_000_000_000
_LAST_NS: Final = YEAR_2100_S * 1_000_000_000
_UNITS: Final = (  # a second of each, and how it becomes ms; most stamps are of the first
    (1_000_000_000, 1, 1_000_000), (1_000, 1, 1), (1_000_000, 1, 1_000), (1, 1_000, 1),
)  # fmt: skip


class MessageStamp(msgspec.Struct, gc=False):
    """What tells which of two messages is the newer one."""

    ts: int | None = None
    timestamp: int | None = None
    time: int | None = None
    sequence: int | None = None
    granularity: int | None = None


class StreamFrame(msgspec.Struct, gc=False):
    """What has to be known of every frame; old messages lack even the type."""

    type: str = "message"
    topic: str = ""
    subject: str = ""
    id: str | int | None = None
    code: int | str | None = None
    data: MessageStamp | str | None = None


class _Bare(msgspec.Struct, gc=False):
    """A frame whose data are none that we know."""

    type: str = "message"
    topic: str = ""
    subject: str = ""
    id: str | int | None = None
    code: int | str | None = None


_FRAME: Final = msgspec.json.Decoder(StreamFrame)
_BARE: Final = msgspec.json.Decoder(_Bare)
_encode = msgspec.json.Encoder().encode


def topic_name(topic: Topic) -> str:
    """As it is written in the frames of one topic."""
    return f"{_CHANNELS[topic.kind]}:{topic.code}{_TAILS.get(topic.kind, '')}"


def encode_command(sent: Send) -> bytes:
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


def parse_frame(text: bytes) -> StreamFrame:
    """What it is; without data where these are none that we know."""
    try:
        return _FRAME.decode(text)
    except (ValueError, RecursionError):
        bare = decode_message(_BARE, text)
        return StreamFrame(bare.type, bare.topic, bare.subject, bare.id, bare.code)


def parse_control(frame: StreamFrame) -> Control:
    """A welcome, ack, pong or error; the id comes back as text whatever it was sent as."""
    number = None if frame.id is None else str(frame.id)
    if frame.type != "error":
        return Control(frame.type, number)
    try:
        code = None if frame.code is None else int(frame.code)
    except ValueError:
        raise UnreadableError("an error without sense") from None
    return Control("error", number, code, frame.data if isinstance(frame.data, str) else "")


def message_stamp(frame: StreamFrame) -> tuple[int, int | None]:
    """Exchange time in ms and sequence of a message.

    A bar is of the second at which it was told, so each of its messages counts.
    """
    if not isinstance(frame.data, MessageStamp):
        raise UnreadableError("a message without data")
    return stamp_from_data(frame.data)


def stamp_from_data(found: MessageStamp) -> tuple[int, int | None]:
    """Exchange time in ms and sequence, as a message's data say them."""
    stamp = found.ts
    if stamp is None:
        stamp = found.time if found.timestamp is None else found.timestamp
    elif _FIRST_NS <= stamp < _LAST_NS:  # as in nearly all of them
        return stamp // 1_000_000, found.sequence
    if stamp is None:
        raise UnreadableError("a message without time")
    return parse_ms(stamp), found.sequence


def conflation_key(topic: Topic, frame: StreamFrame) -> object:
    """Messages of one topic that say the same thing: of these the newest replaces the others."""
    if topic.kind is not _INSTRUMENT:
        return frame.topic
    if frame.subject == FUNDING and isinstance(frame.data, MessageStamp):
        return frame.topic, frame.subject, frame.data.granularity == PREDICTED
    return frame.topic, frame.subject


def decode_message(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Raises UnreadableError."""
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):  # msgspec's own errors and those of Unicode are such
        raise UnreadableError("not a frame of the exchange") from None


def parse_ms(stamp: int) -> int:
    """A time as epoch milliseconds, its unit (s, ms, us, ns) told by magnitude."""
    for per_second, times, parts in _UNITS:
        if YEAR_2015_S * per_second <= stamp < YEAR_2100_S * per_second:
            return stamp * times // parts
    raise UnreadableError("not a time between 2015 and 2100")
