"""Hash chain: events that are sealed in order, so that a later change of any of them shows."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

GENESIS: Final = "0" * 64  # predecessor hash of the first event
MAX_BREAKS: Final = 20  # reported; the first one matters


class ChainEvent(Protocol):
    """Event of a chain, a frozen dataclass; `hash` covers `prev_hash` and the body."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def seq(self) -> int: ...

    @property
    def prev_hash(self) -> str: ...

    @property
    def hash(self) -> str: ...

    @property
    def payload(self) -> Mapping[str, Any]: ...

    @property
    def occurred_at(self) -> datetime: ...

    def body(self) -> Mapping[str, Any]:
        """Everything but the hashes: text, integers, booleans, null, lists and objects only."""
        ...


E = TypeVar("E", bound=ChainEvent)
F = TypeVar("F", bound="ChainFindings")


def canonical_json(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8.

    Raises TypeError for binary floating point and for anything that is not JSON.
    """
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("the history must not contain binary floating point")
    if isinstance(value, Mapping):
        _refuse_floats(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            _refuse_floats(one)


def instant_text(moment: datetime) -> str:
    """UTC with microseconds and Z, always of the same length."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def hash_event(event: ChainEvent) -> str:
    """SHA-256 over the predecessor's hash and the canonical body, as hexadecimal text."""
    return hashlib.sha256(event.prev_hash.encode() + canonical_json(event.body())).hexdigest()


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Last event at the last commit, stored apart from the events."""

    seq: int
    hash: str

    @classmethod
    def of(cls, event: ChainEvent) -> "ChainHead":
        return cls(event.seq, event.hash)

    @classmethod
    def read(cls, stored: object) -> "ChainHead | None":
        """Read the stored fact; None if it is malformed."""
        if not isinstance(stored, Mapping):
            return None
        seq, digits = stored.get("seq"), stored.get("hash")
        return cls(seq, digits) if isinstance(seq, int) and isinstance(digits, str) else None

    def fact(self) -> dict[str, Any]:
        return {"seq": self.seq, "hash": self.hash}


def seal(unsealed: Iterable[E], last: ChainHead | None) -> tuple[E, ...]:
    """Number and hash events as those after `last` (None: the chain begins)."""
    sealed: list[E] = []
    for event in unsealed:
        seq = 1 if last is None else last.seq + 1
        numbered = replace(event, seq=seq, prev_hash=GENESIS if last is None else last.hash)
        sealed.append(replace(numbered, hash=hash_event(numbered)))
        last = ChainHead.of(sealed[-1])
    return tuple(sealed)


def find_chain_faults(events: Sequence[ChainEvent], before: ChainEvent | None) -> list[str]:
    """Describe the faults in a section of the chain that follows `before`."""
    wrong: list[str] = []
    previous = before
    for event in events:
        seq = 1 if previous is None else previous.seq + 1
        linked = GENESIS if previous is None else previous.hash
        if event.seq != seq:
            wrong.append(f"event {event.seq} stands where {seq} was due")
        if event.prev_hash != linked:
            wrong.append(f"event {event.seq} does not name its predecessor")
        if event.hash != hash_event(event):
            wrong.append(f"event {event.seq} was altered")
        previous = event
    return wrong


@dataclass(frozen=True, slots=True)
class StoredEvent(Generic[E]):
    """Stored row of a chain.

    `event` is None for an unreadable row. `fault` names a deviation of the stored text: the service
    never writes another spelling of the same value.
    """

    seq: int
    event: E | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """Position at which a chain is broken, with the reason."""

    seq: int
    detail: str


@dataclass(frozen=True, slots=True)
class ChainFindings:
    """Result of a verification so far; it begins at the first event, or after an anchor."""

    events: int = 0
    due: int = 1  # expected number of the next event
    last_hash: str | None = GENESIS  # None after an unreadable event
    breaks: tuple[ChainBreak, ...] = ()

    @property
    def ok(self) -> bool:
        """True if no break was found."""
        return not self.breaks

    @property
    def first_break(self) -> int | None:
        """Smallest sequence number with a break."""
        return min((one.seq for one in self.breaks), default=None)


def verify_link(findings: F, row: StoredEvent[E]) -> F:
    """Returns the findings after one further row; rows come in order of their numbers.

    Checks that no number is missing or repeated, that the row names its predecessor, and its hash.
    """
    event, due = row.event, findings.due
    breaks: list[ChainBreak] = []
    if row.seq > due:
        breaks.append(ChainBreak(due, f"{_span(due, row.seq - 1)} missing"))
    elif row.seq < due:
        breaks.append(ChainBreak(row.seq, f"event {row.seq} is in the place of event {due}"))
    if row.fault is not None:
        breaks.append(ChainBreak(row.seq, f"event {row.seq}: {row.fault}"))
    if event is not None:
        is_linked = findings.last_hash in {None, event.prev_hash}
        if row.seq == due and not is_linked:
            breaks.append(ChainBreak(row.seq, f"event {row.seq} does not name its predecessor"))
        if event.hash != _digest(event):
            breaks.append(ChainBreak(row.seq, f"event {row.seq} was altered"))
    return replace(
        with_breaks(findings, breaks),
        events=findings.events + 1,
        due=max(row.seq + 1, due),
        last_hash=None if event is None else event.hash,
    )


def verify_head(findings: F, head: ChainHead | None) -> F:
    """Returns the findings after the last row; `head` is the stored end of the chain.

    A chain shorter than its head has lost its newest events; one without a head may have.
    """
    newest = findings.due - 1
    fault = None
    if head is None:
        if newest:
            fault = ChainBreak(newest, "the end of the chain is not on record")
    elif head.seq > newest:
        fault = ChainBreak(findings.due, f"{_span(findings.due, head.seq)} missing")
    elif head.seq < newest:
        fault = ChainBreak(head.seq + 1, f"the record says that {head.seq} was the last")
    elif findings.last_hash is not None and findings.last_hash != head.hash:
        fault = ChainBreak(head.seq, "the record of the last event names another hash")
    return findings if fault is None else with_breaks(findings, [fault])


def with_breaks(findings: F, breaks: Iterable[ChainBreak]) -> F:
    """Returns the findings with further breaks, bounded."""
    return replace(findings, breaks=(*findings.breaks, *breaks)[:MAX_BREAKS])


def _digest(event: ChainEvent) -> str | None:
    try:
        return hash_event(event)
    except (TypeError, ValueError):
        return None  # a payload that the service never writes


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"
