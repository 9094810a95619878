"""Domain events: values published after commit, and their stored form as JSON."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from app.foundation.errors import ServiceError
from app.foundation.jobs import JobState


class JobChange(StrEnum):
    STARTED = "started"  # also when another process resumes the job
    PROGRESS = "progress"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job has started, progressed or ended; `error` is a stable code."""

    job_id: str
    kind: str
    change: JobChange
    state: JobState
    step: str | None
    progress: float
    error: str | None
    occurred_at: datetime


class EventTopic(StrEnum):
    """Subscription topics of the event stream."""

    PORTFOLIO_CHANGE = "portfolio_change"
    SCORE_UPDATE = "score_update"
    ALERT = "alert"
    SIGNAL = "signal"
    REBALANCE = "rebalance"
    JOB = "job"
    CONFIGURATION = "configuration"
    SCORING_RUN = "scoring_run"
    MODE = "mode"
    SECURITY = "security"


@dataclass(frozen=True, slots=True)
class EventDraft:
    """Stored form of an event before it has its number; `data` is plain JSON."""

    topic: EventTopic
    type: str
    subject: str | None  # symbol of the event; None if it concerns no single symbol
    data: Mapping[str, Any]
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class EventRecord(EventDraft):
    """Stored event; `seq` numbers the committed events from 1 without a gap."""

    seq: int


@dataclass(frozen=True, slots=True)
class EventKind:
    """Storage rule of one event class; `time` and `subject` name fields of the class.

    `split` turns an event about many subjects into one event for each.
    """

    cls: type
    type: str
    topic: EventTopic
    time: str = "occurred_at"
    subject: str | None = None
    split: Callable[[Any], Iterable[object]] | None = None


@dataclass(frozen=True, slots=True)
class ValueCodec:
    """JSON form of a class of values that is not the form of its fields."""

    cls: type
    write: Callable[[Any], Any]
    read: Callable[[Any], object]


JOB_EVENTS: Final = (EventKind(JobChanged, "job_changed", EventTopic.JOB),)


class EventCodec:
    """Encodes events as JSON drafts and decodes them, by a table of event kinds."""

    def __init__(self, kinds: Iterable[EventKind], codecs: Iterable[ValueCodec] = ()) -> None:
        self.kinds = tuple(kinds)
        self._by_class = {kind.cls: kind for kind in self.kinds}
        self._by_type = {kind.type: kind for kind in self.kinds}
        self._codecs = {codec.cls: codec for codec in codecs}

    def encode(self, event: object) -> tuple[EventDraft, ...]:
        """Returns one draft, several for a split event, none for an unknown class.

        Raises ValueError for NaN and infinities, TypeError for a value without a JSON form.
        """
        kind = self._by_class.get(type(event))
        if kind is None:
            return ()
        parts = (event,) if kind.split is None else kind.split(event)
        return tuple(self._draft(part) for part in parts)

    def decode(self, record: EventDraft) -> object:
        """Returns the stored event. Raises LookupError for an unknown type name.

        A field that an older version did not store has its default.
        """
        kind = self._by_type.get(record.type)
        if kind is None:
            raise LookupError(f"no event is stored as {record.type}")
        return self._read(kind.cls, record.data)

    def try_decode(self, record: EventDraft) -> object | None:
        """Returns the stored event; None for one that this version cannot decode."""
        try:
            return self.decode(record)
        except (ServiceError, LookupError, TypeError, ValueError):
            return None

    def _draft(self, event: object) -> EventDraft:
        kind = self._by_class[type(event)]
        return EventDraft(
            topic=kind.topic,
            type=kind.type,
            subject=None if kind.subject is None else getattr(event, kind.subject),
            data=self._plain(event),
            occurred_at=getattr(event, kind.time),
        )

    def _plain(self, value: Any) -> Any:
        """Returns the JSON form of a value; exact numbers and times are text."""
        codec = self._codecs.get(type(value))
        if codec is not None:
            return codec.write(value)
        for cls, write in _WRITERS:
            if isinstance(value, cls):
                return write(value)
        if isinstance(value, Mapping):
            return {str(key): self._plain(one) for key, one in value.items()}
        if isinstance(value, tuple | list):
            return [self._plain(one) for one in value]
        if is_dataclass(value):
            return {one.name: self._plain(getattr(value, one.name)) for one in fields(value)}
        raise TypeError(f"an event cannot hold a {type(value).__name__}")

    def _read(self, hint: Any, raw: Any) -> Any:
        """Returns the value of type `hint` whose JSON form is `raw`."""
        origin = get_origin(hint)
        if origin is UnionType:
            known = [one for one in get_args(hint) if one is not NoneType]
            return None if raw is None else self._read(known[0], raw)
        if origin is tuple:
            return tuple(self._read(get_args(hint)[0], one) for one in raw)
        if hint in self._codecs:
            return self._codecs[hint].read(raw)
        if hint is datetime:
            return datetime.fromisoformat(raw)
        if hint is Decimal or (isinstance(hint, type) and issubclass(hint, Enum)):
            return hint(raw)
        if is_dataclass(hint):
            hints = _hints_of(hint)  # type: ignore[arg-type]  # a class, not an instance of one
            named = {
                one.name: self._read(hints[one.name], raw[one.name])
                for one in fields(hint)
                if one.name in raw or one.default is MISSING
            }
            return hint(**named)  # type: ignore[operator]  # a class, not an instance of one
        return raw


# Reading the hints anew takes longer than decoding the event.
@cache
def _hints_of(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("an event cannot hold a number that is not finite")
    return value


def _instant_text(value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError("the time of an event must have a time zone")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


_WRITERS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (Enum, lambda value: value.value),
    (NoneType, lambda value: value),
    (int, lambda value: value),
    (str, lambda value: value),
    (float, _finite),
    (datetime, _instant_text),
    (Decimal, lambda value: format(value, "f")),
)
