"""Verifies the portfolio history: hash chain, gaps, stored head and resulting state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.portfolio.domain.event_log import (
    GENESIS,
    ChainHead,
    EventType,
    PortfolioEvent,
    apply,
    hash_event,
    instant,
)
from app.portfolio.domain.membership import write_floats_as_text
from app.portfolio.domain.models import EMPTY, Portfolio
from app.portfolio.domain.returns import BookedResult

_MAX_BREAKS: Final = 20  # reported; the first one matters
UNRECORDED: Final = (
    "the history is older than the record of its head: only the stored state proves that its newest"
    " events are complete; the next change of the portfolio writes the record"
)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Stored row of the history.

    `event` is None for an unreadable row. `fault` names a deviation of the stored text: the service
    never writes another spelling of the same value.
    """

    seq: int
    event: PortfolioEvent | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryBreak:
    """Position at which the chain is broken, with the reason."""

    seq: int
    detail: str


@dataclass(frozen=True, slots=True)
class HistoryFindings:
    """Result so far; `state` is None once an event could not be applied."""

    events: int = 0
    due: int = 1  # expected number of the next event
    last_hash: str | None = GENESIS  # None after an unreadable event
    state: Portfolio | None = EMPTY
    breaks: tuple[HistoryBreak, ...] = ()
    caveat: str | None = None  # open question of a result without breaks

    @property
    def ok(self) -> bool:
        """True if no break was found."""
        return not self.breaks

    @property
    def first_break(self) -> int | None:
        """Smallest sequence number with a break."""
        return min((one.seq for one in self.breaks), default=None)


def verify_events(findings: HistoryFindings, rows: Iterable[StoredEvent]) -> HistoryFindings:
    """Returns the findings after further rows, which must be in order of their numbers."""
    for row in rows:
        findings = _with_row(findings, row)
    return findings


def conclude(
    findings: HistoryFindings,
    head: ChainHead | None,
    present: Portfolio | None,
    *,
    is_older: bool = False,
) -> HistoryFindings:
    """Returns the final result after all rows.

    `head` is the stored end of the chain (None: missing), `present` the stored state (None:
    unreadable). A history shorter than its head has lost its newest events. With `is_older` the
    history may predate head records: a missing head is a caveat, not a break.
    """
    newest = findings.due - 1
    if head is None:
        if newest and is_older:
            findings = replace(findings, caveat=UNRECORDED)
        elif newest:
            findings = _with_break(findings, newest, "the end of the chain is not on record")
    elif head.seq > newest:
        findings = _with_break(findings, findings.due, f"{_span(findings.due, head.seq)} missing")
    elif head.seq < newest:
        findings = _with_break(
            findings, head.seq + 1, f"the record says that {head.seq} was the last"
        )
    elif findings.last_hash is not None and findings.last_hash != head.hash:
        findings = _with_break(
            findings, head.seq, "the record of the last event names another hash"
        )
    if findings.ok and present != findings.state:
        findings = _with_break(
            findings, newest, "the history gives another state than the stored one"
        )
    return findings


def with_breaks(findings: HistoryFindings, breaks: Iterable[HistoryBreak]) -> HistoryFindings:
    """Returns the findings with further breaks."""
    return replace(findings, breaks=(*findings.breaks, *breaks)[:_MAX_BREAKS])


def _with_row(findings: HistoryFindings, row: StoredEvent) -> HistoryFindings:
    event, due = row.event, findings.due
    breaks: list[HistoryBreak] = []
    if row.seq > due:
        breaks.append(HistoryBreak(due, f"{_span(due, row.seq - 1)} missing"))
    elif row.seq < due:
        breaks.append(HistoryBreak(row.seq, f"event {row.seq} is in the place of event {due}"))
    if row.fault is not None:
        breaks.append(HistoryBreak(row.seq, f"event {row.seq}: {row.fault}"))
    if event is not None:
        is_linked = findings.last_hash in {None, event.prev_hash}
        if row.seq == due and not is_linked:
            breaks.append(HistoryBreak(row.seq, f"event {row.seq} does not name its predecessor"))
        if event.hash != _digest(event):
            breaks.append(HistoryBreak(row.seq, f"event {row.seq} was altered"))
    state = None
    if not breaks and event is not None and findings.state is not None:
        state, breaks = _apply(findings.state, event)
    return replace(
        findings,
        events=findings.events + 1,
        due=max(row.seq + 1, due),
        last_hash=None if event is None else event.hash,
        state=state,
        breaks=(*findings.breaks, *breaks)[:_MAX_BREAKS],
    )


def _digest(event: PortfolioEvent) -> str | None:
    try:
        return hash_event(event)
    except (TypeError, ValueError):
        return None  # a payload that the service never writes


def _apply(state: Portfolio, event: PortfolioEvent) -> tuple[Portfolio | None, list[HistoryBreak]]:
    try:
        return apply(state, event.type, event.payload, event.occurred_at), []
    except (KeyError, TypeError, ValueError):
        return None, [HistoryBreak(event.seq, f"event {event.seq} cannot be applied")]


def _with_break(findings: HistoryFindings, seq: int, detail: str) -> HistoryFindings:
    return replace(findings, breaks=(*findings.breaks, HistoryBreak(seq, detail)))


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


@dataclass(frozen=True, slots=True)
class StoredControls:
    """Stored settings, switch and locks to compare with the history."""

    settings: Mapping[int, Any]  # documents by version; None if unreadable
    is_enabled: object  # stored value of the switch
    locks: Mapping[str, Any]  # stored locks by symbol


@dataclass(frozen=True, slots=True)
class RecordedControls:
    """Controls according to the events so far; version 1 of the settings has no event."""

    newest: int = 0
    versions: frozenset[int] = frozenset({1})
    is_enabled: bool = True
    locks: Mapping[str, Any] = field(default_factory=dict)
    locked_at: datetime | None = None  # last change of a lock


def record_controls(before: RecordedControls, events: Iterable[PortfolioEvent]) -> RecordedControls:
    """Returns the controls after further events."""
    for event in events:
        before = replace(before, newest=event.seq)
        match event.type:
            case EventType.CONFIG:
                version = event.payload["configuration_version"]
                before = replace(before, versions=before.versions | {version})
            case EventType.SWITCH:
                before = replace(before, is_enabled=event.payload["enabled"])
            case EventType.LOCK:
                locks = {**before.locks, str(event.symbol): event.payload["lock"]}
                before = replace(before, locks=locks, locked_at=event.occurred_at)
            case _:
                pass
    return before


def result_breaks(
    events: Iterable[PortfolioEvent], stored: Mapping[int, BookedResult]
) -> tuple[HistoryBreak, ...]:
    """Returns differences between booked results and their events; `stored` is keyed by event."""
    due = {event.seq: _result(event) for event in events if event.type is EventType.PERFORMANCE}
    return tuple(
        HistoryBreak(
            seq, f"the result of event {seq} is {'different' if seq in stored else 'missing'}"
        )
        if seq in due
        else HistoryBreak(seq, f"a stored result has no booking in event {seq}")
        for seq in sorted(due.keys() | stored.keys())
        if due.get(seq) != stored.get(seq)
    )


def settings_breaks(
    events: Iterable[PortfolioEvent], stored: StoredControls
) -> tuple[HistoryBreak, ...]:
    """Returns differences between stored versions of the settings and their events."""
    return tuple(
        HistoryBreak(
            event.seq, f"the settings of version {version} are not those of event {event.seq}"
        )
        for event in events
        if event.type is EventType.CONFIG
        for version in (event.payload["configuration_version"],)
        if write_floats_as_text(stored.settings.get(version)) != event.payload["settings"]
    )


def control_breaks(recorded: RecordedControls, stored: StoredControls) -> tuple[HistoryBreak, ...]:
    """Returns differences of switch, locks and settings versions from the events."""
    unknown = sorted(stored.settings.keys() - recorded.versions)
    return (
        *(
            HistoryBreak(recorded.newest, f"no event created version {version} of the settings")
            for version in unknown
        ),
        *(
            (HistoryBreak(recorded.newest, "the trading switch differs from its last event"),)
            if stored.is_enabled is not recorded.is_enabled
            else ()
        ),
        *(
            HistoryBreak(recorded.newest, f"the lock of {symbol} differs from its last event")
            for symbol in sorted(recorded.locks.keys() | stored.locks.keys())
            if not _lock_matches(
                recorded.locks.get(symbol), stored.locks.get(symbol), recorded.locked_at
            )
        ),
    )


def _lock_matches(due: Any, stored: Any, locked_at: datetime | None) -> bool:
    """Returns True if a lock matches; one that had expired at the last change may be missing."""
    if due == stored:
        return True
    ends = None if due is None or stored is not None else due["expires_at"]
    return ends is not None and locked_at is not None and instant(ends) <= locked_at


def _result(event: PortfolioEvent) -> BookedResult:
    trade = event.payload["trade"]
    return BookedResult(
        trade_id=trade["trade_id"],
        symbol_id=trade["symbol_id"],
        symbol=str(event.symbol),
        contract=trade["contract"],
        pnl=Decimal(trade["pnl"]),
        currency=trade["currency"],
        fees=Decimal(trade["fees"]),
        funding=Decimal(trade["funding"]),
        occurred_at=instant(trade["occurred_at"]),
    )
