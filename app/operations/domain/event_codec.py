"""Events as JSON and back: one table says which are stored, under which topic and name."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from app.alerts.domain.events import AlertRaised, AlertResolved
from app.configuration.domain.document import (
    ConfigurationRefusedError,
    as_document,
    from_document,
)
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.foundation.events import EventDraft, JobChanged, Topic
from app.market.domain.events import ModeChanged
from app.portfolio.domain.events import (
    PlanCreated,
    PortfolioChanged,
    ProposalDecided,
    ProposalOpened,
)
from app.scoring.domain.events import ScoreChanged, ScoresUpdated
from app.signals.domain.events import SignalChanged, SignalOutcomesBooked


@dataclass(frozen=True, slots=True)
class Kind:
    """How one class of events is stored; `time` and `subject` name fields of it."""

    cls: type
    type: str
    topic: Topic
    time: str = "occurred_at"
    subject: str | None = None


# A new event needs a line here, or a place in NOT_STORED; a test sees that it has one of them.
KINDS: Final[tuple[Kind, ...]] = (
    Kind(ScoresUpdated, "scores_updated", Topic.BOARD, time="calculated_at"),
    Kind(ScoreChanged, "score_changed", Topic.SCORE_UPDATE, "calculated_at", "symbol"),
    Kind(PortfolioChanged, "portfolio_changed", Topic.PORTFOLIO_CHANGE, subject="symbol"),
    Kind(PlanCreated, "plan_created", Topic.REBALANCE),
    Kind(ProposalOpened, "proposal_opened", Topic.REBALANCE),
    Kind(ProposalDecided, "proposal_decided", Topic.REBALANCE),
    Kind(SignalChanged, "signal_changed", Topic.SIGNAL, subject="symbol"),
    Kind(ConfigurationChanged, "configuration_changed", Topic.CONFIGURATION),
    Kind(AlertRaised, "alert_raised", Topic.ALERT, subject="symbol"),
    Kind(AlertResolved, "alert_resolved", Topic.ALERT, subject="symbol"),
    Kind(JobChanged, "job_changed", Topic.JOB),
    Kind(ModeChanged, "mode_changed", Topic.MODE),
)
NOT_STORED: Final[frozenset[type]] = frozenset({SignalOutcomesBooked})  # only counted
_BY_CLASS: Final = MappingProxyType({kind.cls: kind for kind in KINDS})
_BY_TYPE: Final = MappingProxyType({kind.type: kind for kind in KINDS})


def drafts_of(event: object) -> tuple[EventDraft, ...]:
    """What is stored of `event`: one draft, or several where it tells of many; none if unknown.

    Raises ValueError for a number that JSON does not know, TypeError for a value without a form.
    """
    return tuple(_draft(one) for one in _parts(event) if type(one) in _BY_CLASS)


def event_of(record: EventDraft) -> object:
    """The event that was stored. Raises LookupError for a name that nobody stores."""
    kind = _BY_TYPE.get(record.type)
    if kind is None:
        raise LookupError(f"no event is stored as {record.type}")
    return _read(kind.cls, record.data)


def understood(record: EventDraft) -> object | None:
    """The event that was stored; None for what a newer version wrote and this one cannot read."""
    try:
        return event_of(record)
    except (ConfigurationRefusedError, LookupError, TypeError, ValueError):
        return None


def _parts(event: object) -> Iterator[object]:
    if not isinstance(event, ScoresUpdated):
        yield event
        return
    yield from event.changes
    # Last: who sees it has seen every score of the run.
    yield replace(event, changes=())


def _draft(event: object) -> EventDraft:
    kind = _BY_CLASS[type(event)]
    data = _plain(event)
    return EventDraft(
        topic=kind.topic,
        type=kind.type,
        subject=None if kind.subject is None else getattr(event, kind.subject),
        data=data,
        occurred_at=getattr(event, kind.time),
    )


def _plain(value: Any) -> Any:
    """The JSON form of a value; exact numbers and times are text."""
    if isinstance(value, Configuration):
        return {"version": value.version, "settings": as_document(value)}
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _finite(value)
    for cls, write in _WRITERS:
        if isinstance(value, cls):
            return write(value)
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("an event cannot hold a number that is not finite")
    return value


def _instant(value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError("the time of an event must have a time zone")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


_WRITERS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (datetime, _instant),
    (Decimal, lambda value: format(value, "f")),
    (Mapping, lambda value: {str(key): _plain(one) for key, one in value.items()}),
    (tuple, lambda value: [_plain(one) for one in value]),
    (list, lambda value: [_plain(one) for one in value]),
)


def _read(hint: Any, raw: Any) -> Any:
    """The value of type `hint` whose JSON form is `raw`."""
    origin = get_origin(hint)
    if origin is UnionType:
        known = [one for one in get_args(hint) if one is not NoneType]
        return None if raw is None else _read(known[0], raw)
    if origin is tuple:
        return tuple(_read(get_args(hint)[0], one) for one in raw)
    if hint is Configuration:
        return from_document(raw["settings"], raw["version"])
    if hint is datetime:
        return datetime.fromisoformat(raw)
    if hint is Decimal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return hint(raw)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        named = {one.name: _read(hints[one.name], raw[one.name]) for one in fields(hint)}
        return hint(**named)  # type: ignore[operator]  # a class, not an instance of one
    return raw
