"""Faults of the stream, armed on the same board as those of the answers; `path` is a topic glob.

| kind | parameters | effect |
|---|---|---|
| stream_silence | connection? | messages of the topic are not sent; pongs and acks are |
| stream_half_open | connection? | nothing is sent, read or closed any more, the socket stays |
| stream_duplicate | connection? | each message twice |
| stream_reorder | connection? | each message changes places with the one after it |
| stream_gap | connection? | messages are lost, one unless `times` says more |
| stream_garbage | form?, bytes?, connection? | before each message a frame that is none: `cut` \
(default), `binary`, `deep`, `large`, `mystery` (unknown type), `stranger` (topic nobody asked) |
| stream_expired_token | connection? | 401 token is expired, whatever the token |
| stream_no_welcome | connection? | connections are accepted and not welcomed |
| stream_early | connection? | a quote that nobody asked for comes before the welcome |
| stream_no_ack | connection? | subscribe and unsubscribe work and are not acknowledged |
| stream_refuse | code?, text?, connection? | subscribing is answered with that error, default 509 |

`connection` is a connectId; without it every connection is meant.
"""

from typing import TYPE_CHECKING

import msgspec

from app.sandbox.stream.terms import DAY_MS

if TYPE_CHECKING:
    from app.sandbox.faults import Fault, FaultBoard

ON_MESSAGES = frozenset(
    {"stream_silence", "stream_duplicate", "stream_reorder", "stream_gap", "stream_garbage"}
)
BUSY = "exceed max permits per second"


class Blob(bytes):
    """A frame that is sent as binary."""


def garbage(fault: "Fault") -> bytes:
    """A frame that a client cannot or must not use."""
    form = str(fault.params.get("form", "cut"))
    size = int(fault.params.get("bytes", 5 << 20))
    if form == "binary":
        return Blob(bytes(range(256)))
    if form == "deep":
        return b'{"topic":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    if form == "large":
        return b'{"type":"message","topic":"' + b"x" * size + b'"}'
    if form == "mystery":
        return msgspec.json.encode({"id": "1", "type": "mystery", "subject": "riddle"})
    if form == "stranger":
        topic = "/contractMarket/tickerV2:NOBODYASKEDUSDTM"
        data = {"symbol": "NOBODYASKEDUSDTM", "sequence": DAY_MS}
        return msgspec.json.encode({"topic": topic, "type": "message", "data": data})
    return b'{"topic":"/contractMarket/tickerV2:XBTUSDTM","type":"mess'


def meeting(board: "FaultBoard", kind: str, path: str, connect_id: str) -> "Fault | None":
    """The first armed fault of a kind that acts on this topic and connection; counts it."""
    for fault in board.listed():
        if fault.kind == kind and meant(fault, connect_id) and fault.meets(path):
            return fault
    return None


def meant(fault: "Fault", connect_id: str) -> bool:
    """Whether a fault is of this connection."""
    return str(fault.params.get("connection", connect_id)) == connect_id


def altered(
    board: "FaultBoard", topic: str, connect_id: str, frame: bytes, held: dict[str, bytes]
) -> list[bytes]:
    """What is sent in place of one message; `held` keeps what waits for its successor."""
    frames = [frame]
    for fault in board.listed():
        acts = fault.kind in ON_MESSAGES and meant(fault, connect_id) and fault.meets(topic)
        if acts and fault.kind in ("stream_silence", "stream_gap"):
            return []
        if acts and fault.kind == "stream_duplicate":
            frames = frames * 2
        if acts and fault.kind == "stream_garbage":
            frames = [garbage(fault), *frames]
        if acts and fault.kind == "stream_reorder" and topic not in held:
            held[topic] = frame
            return []
    before = held.pop(topic, None)
    return frames if before is None else [*frames, before]
