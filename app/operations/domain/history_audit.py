"""Verifies the history: every hash link, no gap, the stored head, and the state it folds to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.portfolio.domain.event_log import (
    GENESIS,
    EventType,
    Head,
    PortfolioEvent,
    apply,
    digest,
    instant,
)
from app.portfolio.domain.membership import exact
from app.portfolio.domain.models import EMPTY, Portfolio
from app.portfolio.domain.returns import BookedResult

_MOST: Final = 20  # so many breaks are told; the first one is what matters
UNRECORDED: Final = (
    "the history is older than the record of its end: that its newest events are all there is"
    " proved by the stored state alone; the next change of the portfolio makes the record"
)


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
class HistoryBreak:
    """Where the chain does not hold, and why."""

    seq: int
    detail: str


@dataclass(frozen=True, slots=True)
class HistoryFindings:
    """The verdict so far: `state` is None once the history can no longer be folded."""

    events: int = 0
    due: int = 1  # the number of the next event
    last_hash: str | None = GENESIS  # None after an event that could not be read
    state: Portfolio | None = EMPTY
    breaks: tuple[HistoryBreak, ...] = ()
    caveat: str | None = None  # what a verdict without breaks leaves open

    @property
    def ok(self) -> bool:
        return not self.breaks

    @property
    def first_break(self) -> int | None:
        """The smallest sequence number at which the chain does not hold."""
        return min((one.seq for one in self.breaks), default=None)


def verify_events(findings: HistoryFindings, rows: Iterable[StoredEvent]) -> HistoryFindings:
    """The findings after further rows, which come in the order of their numbers."""
    for row in rows:
        findings = _followed(findings, row)
    return findings


def conclude(
    findings: HistoryFindings,
    head: Head | None,
    present: Portfolio | None,
    *,
    is_older: bool = False,
) -> HistoryFindings:
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


def with_breaks(findings: HistoryFindings, breaks: Iterable[HistoryBreak]) -> HistoryFindings:
    """The verdict with what else does not hold."""
    return replace(findings, breaks=(*findings.breaks, *breaks)[:_MOST])


def _followed(findings: HistoryFindings, row: StoredEvent) -> HistoryFindings:
    event, due = row.event, findings.due
    wrong: list[HistoryBreak] = []
    if row.seq > due:
        wrong.append(HistoryBreak(due, f"{_span(due, row.seq - 1)} missing"))
    elif row.seq < due:
        wrong.append(HistoryBreak(row.seq, f"event {row.seq} stands where {due} was due"))
    if row.fault is not None:
        wrong.append(HistoryBreak(row.seq, f"event {row.seq}: {row.fault}"))
    if event is not None:
        linked = findings.last_hash in {None, event.prev_hash}
        if row.seq == due and not linked:
            wrong.append(HistoryBreak(row.seq, f"event {row.seq} does not name its predecessor"))
        if event.hash != _digest(event):
            wrong.append(HistoryBreak(row.seq, f"event {row.seq} was altered"))
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


def _applied(
    state: Portfolio, event: PortfolioEvent
) -> tuple[Portfolio | None, list[HistoryBreak]]:
    try:
        return apply(state, event.type, event.payload, event.occurred_at), []
    except (KeyError, TypeError, ValueError):
        return None, [HistoryBreak(event.seq, f"event {event.seq} cannot be applied")]


def _broken(findings: HistoryFindings, seq: int, detail: str) -> HistoryFindings:
    return replace(findings, breaks=(*findings.breaks, HistoryBreak(seq, detail)))


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


@dataclass(frozen=True, slots=True)
class StoredControls:
    """What is stored but for the results, which are too many to be held at once."""

    settings: Mapping[int, Any]  # documents by version; None where one cannot be read
    is_enabled: object  # as the switch is stored
    locks: Mapping[str, Any]  # by symbol, as they are stored


@dataclass(frozen=True, slots=True)
class RecordedControls:
    """What the events have said so far; version 1 of the settings has none."""

    newest: int = 0
    versions: frozenset[int] = frozenset({1})
    is_enabled: bool = True
    locks: Mapping[str, Any] = field(default_factory=dict)
    locked_at: datetime | None = None  # when locks were last changed


def record_controls(before: RecordedControls, events: Iterable[PortfolioEvent]) -> RecordedControls:
    """The same after further events."""
    for event in events:
        before = replace(before, newest=event.seq)
        match event.type:
            case EventType.CONFIG:
                version = event.payload["configuration_version"]
                before = replace(before, versions=before.versions | {version})
            case EventType.SWITCH:
                before = replace(before, is_enabled=event.payload["enabled"])
            case EventType.LOCK:
                held = {**before.locks, str(event.symbol): event.payload["lock"]}
                before = replace(before, locks=held, locked_at=event.occurred_at)
            case _:
                pass
    return before


def results_amiss(
    events: Iterable[PortfolioEvent], stored: Mapping[int, BookedResult]
) -> tuple[HistoryBreak, ...]:
    """Results that are not those of the events; `stored` are all of that part, by event."""
    due = {event.seq: _result(event) for event in events if event.type is EventType.PERFORMANCE}
    return tuple(
        HistoryBreak(
            seq, f"the result that event {seq} booked is {'another' if seq in stored else 'gone'}"
        )
        if seq in due
        else HistoryBreak(seq, f"a result is stored that event {seq} did not book")
        for seq in sorted(due.keys() | stored.keys())
        if due.get(seq) != stored.get(seq)
    )


def settings_amiss(
    events: Iterable[PortfolioEvent], beside: StoredControls
) -> tuple[HistoryBreak, ...]:
    """Versions of the settings that are not those of their events."""
    return tuple(
        HistoryBreak(
            event.seq, f"the settings of version {version} are not those of event {event.seq}"
        )
        for event in events
        if event.type is EventType.CONFIG
        for version in (event.payload["configuration_version"],)
        if exact(beside.settings.get(version)) != event.payload["settings"]
    )


def controls_amiss(said: RecordedControls, beside: StoredControls) -> tuple[HistoryBreak, ...]:
    """Switch, locks and versions of settings that no event has made so."""
    unknown = sorted(beside.settings.keys() - said.versions)
    return (
        *(
            HistoryBreak(said.newest, f"no event made version {one} of the settings")
            for one in unknown
        ),
        *(
            (HistoryBreak(said.newest, "the trading switch does not stand as its last event says"),)
            if beside.is_enabled is not said.is_enabled
            else ()
        ),
        *(
            HistoryBreak(said.newest, f"the lock of {symbol} is not that of its last event")
            for symbol in sorted(said.locks.keys() | beside.locks.keys())
            if not _is_so(said.locks.get(symbol), beside.locks.get(symbol), said.locked_at)
        ),
    )


def _is_so(due: Any, stored: Any, locked_at: datetime | None) -> bool:
    """A lock that had run out when locks were next changed may be gone."""
    if due == stored:
        return True
    ends = None if due is None or stored is not None else due["expires_at"]
    return ends is not None and locked_at is not None and instant(ends) <= locked_at


def _result(event: PortfolioEvent) -> BookedResult:
    one = event.payload["trade"]
    return BookedResult(
        trade_id=one["trade_id"],
        symbol_id=one["symbol_id"],
        symbol=str(event.symbol),
        contract=one["contract"],
        pnl=Decimal(one["pnl"]),
        currency=one["currency"],
        fees=Decimal(one["fees"]),
        funding=Decimal(one["funding"]),
        occurred_at=instant(one["occurred_at"]),
    )
