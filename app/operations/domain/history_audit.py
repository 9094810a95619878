"""Verifies the history: every hash link, no gap, the stored head, and the state it folds to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from app.portfolio.domain.event_log import GENESIS, PortfolioEvent, apply, digest
from app.portfolio.domain.models import EMPTY, Portfolio

_MOST: Final = 20  # so many breaks are told; the first one is what matters
UNRECORDED: Final = (
    "the history is older than the record of its end: that its newest events are all there is"
    " proved by the stored state alone; the next change of the portfolio makes the record"
)


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ended when the last change was committed, kept apart from the events."""

    seq: int
    hash: str

    @classmethod
    def of(cls, event: PortfolioEvent) -> "Head":
        return cls(event.seq, event.hash)

    @classmethod
    def read(cls, stored: object) -> "Head | None":
        """From the stored fact; None where it is none."""
        if not isinstance(stored, Mapping):
            return None
        seq, digits = stored.get("seq"), stored.get("hash")
        return cls(seq, digits) if isinstance(seq, int) and isinstance(digits, str) else None

    def fact(self) -> dict[str, Any]:
        return {"seq": self.seq, "hash": self.hash}


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A row of the history as it lies there.

    `event` is None where it cannot be read; `fault` says what is wrong with its spelling, for
    text that reads the same is not yet the text that was written.
    """

    seq: int
    event: PortfolioEvent | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain does not hold, and why."""

    seq: int
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict so far: `state` is None once the history can no longer be folded."""

    events: int = 0
    due: int = 1  # the number of the next event
    last_hash: str | None = GENESIS  # None after an event that could not be read
    state: Portfolio | None = EMPTY
    breaks: tuple[Break, ...] = ()
    caveat: str | None = None  # what a verdict without breaks leaves open

    @property
    def ok(self) -> bool:
        return not self.breaks

    @property
    def first_break(self) -> int | None:
        """The smallest sequence number at which the chain does not hold."""
        return min((one.seq for one in self.breaks), default=None)


def follow(findings: Findings, rows: Iterable[StoredEvent]) -> Findings:
    """The findings after further rows, which come in the order of their numbers."""
    for row in rows:
        findings = _followed(findings, row)
    return findings


def concluded(
    findings: Findings, head: Head | None, present: Portfolio | None, *, is_older: bool = False
) -> Findings:
    """The verdict, once all rows were followed.

    `head` is the stored end of the chain (None: there is none), `present` the stored state (None:
    it cannot be read). A history that is shorter than its head has lost its newest events. One
    that `is_older` than such records may be without, which is a caveat and no break.
    """
    newest = findings.due - 1
    if head is None:
        if newest and is_older:
            findings = replace(findings, caveat=UNRECORDED)
        elif newest:
            findings = _broken(findings, newest, "the end of the chain is not on record")
    elif head.seq > newest:
        findings = _broken(findings, findings.due, f"{_span(findings.due, head.seq)} missing")
    elif head.seq < newest:
        findings = _broken(findings, head.seq + 1, f"the record says that {head.seq} was the last")
    elif findings.last_hash is not None and findings.last_hash != head.hash:
        findings = _broken(findings, head.seq, "the record of the last event names another hash")
    if findings.ok and present != findings.state:
        findings = _broken(findings, newest, "the history gives another state than the stored one")
    return findings


def noted(findings: Findings, breaks: Iterable[Break]) -> Findings:
    """The verdict with what else does not hold."""
    return replace(findings, breaks=(*findings.breaks, *breaks)[:_MOST])


def _followed(findings: Findings, row: StoredEvent) -> Findings:
    event, due = row.event, findings.due
    wrong: list[Break] = []
    if row.seq > due:
        wrong.append(Break(due, f"{_span(due, row.seq - 1)} missing"))
    elif row.seq < due:
        wrong.append(Break(row.seq, f"event {row.seq} stands where {due} was due"))
    if row.fault is not None:
        wrong.append(Break(row.seq, f"event {row.seq}: {row.fault}"))
    if event is not None:
        linked = findings.last_hash in {None, event.prev_hash}
        if row.seq == due and not linked:
            wrong.append(Break(row.seq, f"event {row.seq} does not name its predecessor"))
        if event.hash != _digest(event):
            wrong.append(Break(row.seq, f"event {row.seq} was altered"))
    state = None
    if not wrong and event is not None and findings.state is not None:
        state, wrong = _applied(findings.state, event)
    return replace(
        findings,
        events=findings.events + 1,
        due=max(row.seq + 1, due),
        last_hash=None if event is None else event.hash,
        state=state,
        breaks=(*findings.breaks, *wrong)[:_MOST],
    )


def _digest(event: PortfolioEvent) -> str | None:
    try:
        return digest(event)
    except (TypeError, ValueError):
        return None  # a payload that the history never holds


def _applied(state: Portfolio, event: PortfolioEvent) -> tuple[Portfolio | None, list[Break]]:
    try:
        return apply(state, event.type, event.payload, event.occurred_at), []
    except (KeyError, TypeError, ValueError):
        return None, [Break(event.seq, f"event {event.seq} cannot be applied")]


def _broken(findings: Findings, seq: int, detail: str) -> Findings:
    return replace(findings, breaks=(*findings.breaks, Break(seq, detail)))


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"
