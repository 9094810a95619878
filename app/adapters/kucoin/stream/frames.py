"""Frames of the stream: topic names, commands, control frames and message order.

Pure functions. An unusable frame raises UnreadableError, and no other error.
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


def topic_name(topic: Topic) -> str:
    """Topic name in the exchange's frames."""
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
        raise UnreadableError("an error without sense") from None
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


def conflation_key(topic: Topic, frame: StreamFrame) -> object:
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
