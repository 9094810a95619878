"""Builds the JSON messages of the event stream, each once for all readers."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from app.foundation.events import EventRecord
from app.market.services.snapshot import QuoteView
from app.operations.domain.event_codec import decode_event
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoreChanged

TICKER: Final = "ticker"
GAP: Final = "gap"  # kind of the notice about events that cannot be sent
_PIECE: Final = 64 * 1024
Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; `sequence` is None for one that is not stored and cannot be replayed."""

    kind: str  # topic of an event, or hello, gap, heartbeat ...
    sequence: int | None
    text: str
    _encoded: dict["Encoder", bytes] = field(default_factory=dict, compare=False, repr=False)

    def encoded(self, encoder: "Encoder") -> bytes:
        """Returns the encoding for one transport, computed once for all of its readers."""
        data = self._encoded.get(encoder)
        if data is None:
            data = self._encoded[encoder] = encoder(self)
        return data


Encoder = Callable[[Frame], bytes]


def pieces(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Joins encoded frames into chunks of about 64 KiB."""
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        waiting.append(frame)
        size += len(frame)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def to_json_text(document: Mapping[str, Any]) -> str:
    """Returns compact JSON. Raises ValueError for NaN and Infinity."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def envelope(topic: str, sequence: int | None, timestamp: str | None, data: Details) -> Details:
    """Returns the envelope of an event, the same for WebSocket, SSE and webhook."""
    return {
        "type": "event",
        "topic": topic,
        "sequence": sequence,
        "timestamp": timestamp,
        "data": data,
    }


def event_envelope(record: EventRecord) -> Details:
    """Returns the envelope of a stored event."""
    return envelope(record.topic.value, record.seq, _time(record.occurred_at), _data(record))


def event_frame(record: EventRecord, since: float | None = None, *, merged: bool = False) -> Frame:
    """Returns the message of a stored event.

    `merged` means that older changes of the symbol were left out; `since` is the score before
    them.
    """
    data = _data(record)
    if merged:
        new = data["new_score"]
        known = since is not None and new is not None
        data |= {"old_score": since, "change": new - since if known else None}
    return _event(record.topic.value, record.seq, _time(record.occurred_at), data)


def ticker_details(view: QuoteView, source: str) -> Details:
    """Returns the fields of a quote message; exact numbers are text, null is unknown."""
    return {
        "symbol": view.entry.symbol,
        "contract": view.entry.contract.code,
        "last_price": _exact(view.last),
        "bid": _exact(view.bid),
        "ask": _exact(view.ask),
        "mark_price": _exact(view.mark),
        "index_price": _exact(view.index),
        "funding_rate": _exact(view.funding_rate),
        "as_of": None if view.as_of is None else _time(view.as_of),
        "data_source": source,
        "data_status": view.status.value,
    }


def ticker_frame(view: QuoteView, details: Details) -> Frame:
    """Returns a quote message, dated by bid and ask; `as_of` also covers the older parts."""
    at = view.quoted_at or view.as_of
    timestamp = None if at is None else _time(at)
    return _event(f"{TICKER}:{view.entry.symbol}", None, timestamp, details)


def notice(kind: str, sequence: int | None = None, **facts: Any) -> Frame:
    """Returns a message about the stream itself."""
    document = {"type": kind, **({} if sequence is None else {"sequence": sequence}), **facts}
    return Frame(kind, sequence, to_json_text(document))


def _event(topic: str, sequence: int | None, timestamp: str | None, data: Details) -> Frame:
    return Frame(topic, sequence, to_json_text(envelope(topic, sequence, timestamp, data)))


def _data(record: EventRecord) -> Details:
    view = _VIEWS.get(record.type)
    return {"type": record.type, **record.data} if view is None else view(decode_event(record))


def _portfolio(event: PortfolioChanged) -> Details:
    return {
        "type": event.type,
        "symbol": event.symbol,
        "details": {
            "version": event.version,
            "other_symbol": event.other_symbol,
            "reason": event.reason,
            "actor": event.actor,
            "run_id": event.run_id,
            "proposal_id": event.proposal_id,
            "old_cash_percentage": _percent(event.old_cash_u),
            "new_cash_percentage": _percent(event.cash_u),
            "members": [
                {
                    "symbol": one.symbol,
                    "contract": one.contract,
                    "position_rank": one.rank,
                    "old_weight_percentage": _percent(one.old_u),
                    "new_weight_percentage": _percent(one.new_u),
                    "reason": one.reason,
                }
                for one in event.members
            ],
            "history": [
                {
                    "seq": one.seq,
                    "type": one.type,
                    "symbol": one.symbol,
                    "other_symbol": one.other_symbol,
                    "reason": one.reason,
                }
                for one in event.history
            ],
        },
        "timestamp": _time(event.occurred_at),
    }


def _score(event: ScoreChanged) -> Details:
    return {
        "symbol": event.symbol,
        "new_score": event.new_score,
        "old_score": event.old_score,
        "change": event.change,
        "rank": event.rank,
        "run_id": event.run_id,
    }


_VIEWS: Final[Mapping[str, Callable[[Any], Details]]] = MappingProxyType(
    {"portfolio_changed": _portfolio, "score_changed": _score}
)


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _percent(micro_percent: int | None) -> float | None:
    """Converts micro-percent to per cent; the shortest spelling has the exact 6 decimals."""
    return None if micro_percent is None else micro_percent / 1_000_000


def _exact(value: object) -> str | None:
    return None if value is None else format(value, "f")
