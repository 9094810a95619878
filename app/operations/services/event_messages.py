"""Builds the JSON messages of the event stream, each once for all readers."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.foundation.data_status import DataStatus
from app.foundation.events import EventRecord
from app.market.domain.models import ContractStats, Ticker
from app.market.domain.symbols import SymbolEntry
from app.market.services.snapshot import QuoteView
from app.operations.domain.event_codec import decode_event
from app.portfolio.domain.events import MemberWeights, PortfolioChanged
from app.scoring.domain.events import ScoreChanged
from app.signals.domain.events import SignalChanged

TICKER: Final = "ticker"
GAP: Final = "gap"  # kind of the notice about events that cannot be sent
_PIECE: Final = 64 * 1024
_SIGNIFICANT_DIGITS: Final = 12  # as in responses
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


class LiveTopic(StrEnum):
    """Topics of the newest state: not stored, without a number, at most one message a second."""

    TICKERS = "tickers"
    DASHBOARD = "dashboard"


@dataclass(slots=True)
class LiveState:
    """Newest state of a live topic.

    A reader of the version before gets `change`; any other gets the complete state, which is built
    once and only if a reader needs it.
    """

    version: int
    change: Frame
    make_complete: Callable[[], Frame]
    _complete: Frame | None = None

    def frame(self, seen: int | None) -> Frame:
        """Returns the message for a reader that has seen version `seen`, None for no version."""
        if seen == self.version - 1:
            return self.change
        if self._complete is None:
            self._complete = self.make_complete()
        return self._complete


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
    data = rounded(_data(record))
    return envelope(record.topic.value, record.seq, instant_text(record.occurred_at), data)


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
    return _event(record.topic.value, record.seq, instant_text(record.occurred_at), rounded(data))


def rounded(value: Any) -> Any:
    """Returns a JSON value whose floats have the 12 significant digits of every response."""
    if isinstance(value, float):
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return value


def ticker_details(view: QuoteView, source: str) -> Details:
    """Returns the fields of a quote message; exact numbers are text, null is unknown."""
    return {
        "symbol": view.entry.symbol,
        "contract": view.entry.contract.code,
        "last_price": exact_text(view.last),
        "bid": exact_text(view.bid),
        "ask": exact_text(view.ask),
        "mark_price": exact_text(view.mark),
        "index_price": exact_text(view.index),
        "funding_rate": exact_text(view.funding_rate),
        "as_of": None if view.as_of is None else instant_text(view.as_of),
        "data_source": source,
        "data_status": view.status.value,
    }


def ticker_row(
    entry: SymbolEntry,
    stats: ContractStats | None,
    ticker: Ticker | None,
    as_of: datetime | None,
    status: DataStatus,
) -> Details:
    """Returns one line of the topic `tickers`: the fields of `ticker:SYMBOL` without the source."""
    return {
        "symbol": entry.symbol,
        "contract": entry.contract.code,
        "last_price": None if ticker is None else exact_text(ticker.last),
        "bid": None if ticker is None else exact_text(ticker.bid),
        "ask": None if ticker is None else exact_text(ticker.ask),
        "mark_price": None if stats is None else exact_text(stats.mark_price),
        "index_price": None if stats is None else exact_text(stats.index_price),
        "funding_rate": None if stats is None else exact_text(stats.funding_rate),
        "as_of": None if as_of is None else instant_text(as_of),
        "data_status": status.value,
    }


def tickers_frame(
    at: datetime, source: str, rows: Sequence[Details], removed: Sequence[str], *, is_complete: bool
) -> Frame:
    """Returns a message of the topic `tickers`; `removed` are symbols that are no longer listed."""
    details = {
        "data_source": source,
        "is_complete": is_complete,
        "tickers": list(rows),
        "removed": list(removed),
    }
    return _event(LiveTopic.TICKERS.value, None, instant_text(at), details)


def dashboard_frame(details: Details) -> Frame:
    """Returns a message of the topic `dashboard`."""
    return _event(LiveTopic.DASHBOARD.value, None, details["timestamp"], details)


def ticker_frame(view: QuoteView, details: Details) -> Frame:
    """Returns a quote message, dated by bid and ask; `as_of` also covers the older parts."""
    at = view.quoted_at or view.as_of
    timestamp = None if at is None else instant_text(at)
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
            "members": [member_details(one) for one in event.members],
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
        "timestamp": instant_text(event.occurred_at),
    }


def member_details(one: MemberWeights) -> Details:
    """Returns the old and the new weight of a symbol; null outside of the portfolio."""
    return {
        "symbol": one.symbol,
        "contract": one.contract,
        "position_rank": one.rank,
        "old_weight_percentage": _percent(one.old_u),
        "new_weight_percentage": _percent(one.new_u),
        "reason": one.reason,
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


def _signal(event: SignalChanged) -> Details:
    return {
        "type": "signal_changed",
        "signal_id": event.signal_id,
        "source": event.source,
        "signal_type": event.type,
        "symbol": event.symbol,
        "direction": event.direction,
        "state": event.state,
        "evaluation": event.evaluation,
        "score": event.score,
        "reason": event.reason,
        "occurred_at": instant_text(event.occurred_at),
    }


_VIEWS: Final[Mapping[str, Callable[[Any], Details]]] = MappingProxyType(
    {"portfolio_changed": _portfolio, "score_changed": _score, "signal_changed": _signal}
)


def instant_text(at: datetime) -> str:
    """Returns a time in UTC as ISO 8601 text with the suffix Z."""
    return at.isoformat().replace("+00:00", "Z")


def _percent(micro_percent: int | None) -> float | None:
    """Converts micro-percent to per cent; the shortest spelling has the exact 6 decimals."""
    return None if micro_percent is None else micro_percent / 1_000_000


def exact_text(value: Decimal | None) -> str | None:
    """Returns an exact number as plain decimal text without zeros at its end; None stays None."""
    if value is None:
        return None
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
