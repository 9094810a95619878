"""Faults of the stream, armed on the same board as the REST faults; `path` is a topic glob.

| kind | parameters | effect |
|---|---|---|
| stream_silence | connection? | messages of the topic are not sent; pongs and acks are |
| stream_half_open | connection? | no frame is sent, read or closed, the socket stays open |
| stream_duplicate | connection? | each message twice |
| stream_reorder | connection? | each message swaps places with its successor |
| stream_gap | connection? | messages are lost, one unless `times` says more |
| stream_garbage | form?, bytes?, connection? | an invalid frame before each message: `cut` \
(default), `binary`, `deep`, `large`, `mystery` (unknown type), `stranger` (unsubscribed topic) |
| stream_expired_token | connection? | 401 token is expired, whatever the token |
| stream_no_welcome | connection? | connections are accepted without a welcome |
| stream_early | connection? | an unsubscribed quote precedes the welcome |
| stream_no_ack | connection? | subscribe and unsubscribe work and are not acknowledged |
| stream_refuse | code?, text?, connection? | subscribing fails with that error, default 509 |

`connection` is a connectId; without it the fault applies to every connection.
"""

import msgspec

from app.sandbox.http.faults import FaultBoard, InjectedFault
from app.sandbox.stream.session_limits import DAY_MS

ON_MESSAGES = frozenset(
    {"stream_silence", "stream_duplicate", "stream_reorder", "stream_gap", "stream_garbage"}
)
BUSY = "exceed max permits per second"


class BinaryFrame(bytes):
    """Content of a frame with the binary opcode."""


def make_invalid_frame(fault: InjectedFault) -> bytes:
    """Create a frame that a client must reject or ignore."""
    form = str(fault.params.get("form", "cut"))
    size = int(fault.params.get("bytes", 5 << 20))
    if form == "binary":
        return BinaryFrame(bytes(range(256)))
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


def match_fault(board: FaultBoard, kind: str, path: str, connect_id: str) -> InjectedFault | None:
    """Find the first armed fault of a kind for this topic and connection, and count it."""
    for fault in board.listed():
        if fault.kind == kind and applies_to(fault, connect_id) and fault.meets(path):
            return fault
    return None


def applies_to(fault: InjectedFault, connect_id: str) -> bool:
    """True if a fault is armed for this connection."""
    return str(fault.params.get("connection", connect_id)) == connect_id


def apply_faults(
    board: FaultBoard, topic: str, connect_id: str, frame: bytes, delayed: dict[str, bytes]
) -> list[bytes]:
    """Frames to send in place of one message.

    `delayed` holds, by topic, the message that waits for its successor.
    """
    frames = [frame]
    for fault in board.listed():
        is_active = (
            fault.kind in ON_MESSAGES and applies_to(fault, connect_id) and fault.meets(topic)
        )
        if is_active and fault.kind in ("stream_silence", "stream_gap"):
            return []
        if is_active and fault.kind == "stream_duplicate":
            frames = frames * 2
        if is_active and fault.kind == "stream_garbage":
            frames = [make_invalid_frame(fault), *frames]
        if is_active and fault.kind == "stream_reorder" and topic not in delayed:
            delayed[topic] = frame
            return []
    earlier = delayed.pop(topic, None)
    return frames if earlier is None else [*frames, earlier]
