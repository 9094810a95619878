"""Verifies the portfolio history: hash chain, gaps, stored head and resulting state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.foundation.hash_chain import (
    ChainBreak,
    ChainFindings,
    ChainHead,
    StoredEvent,
    verify_head,
    verify_link,
    with_breaks,
)
from app.portfolio.domain.event_log import EventType, PortfolioEvent, apply, instant
from app.portfolio.domain.membership import write_floats_as_text
from app.portfolio.domain.models import EMPTY, Portfolio
from app.portfolio.domain.returns import BookedResult

UNRECORDED: Final = (
    "the history is older than the record of its head: only the stored state proves that its newest"
    " events are complete; the next change of the portfolio writes the record"
)


@dataclass(frozen=True, slots=True)
class HistoryFindings(ChainFindings):
    """Result so far; `state` is None once an event could not be applied."""

    state: Portfolio | None = EMPTY
    caveat: str | None = None  # open question of a result without breaks


def verify_events(
    findings: HistoryFindings, rows: Iterable[StoredEvent[PortfolioEvent]]
) -> HistoryFindings:
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
    if head is None and newest and is_older:
        findings = replace(findings, caveat=UNRECORDED)
    else:
        findings = verify_head(findings, head)
    if findings.ok and present != findings.state:
        fault = "the history gives another state than the stored one"
        findings = with_breaks(findings, [ChainBreak(newest, fault)])
    return findings


def _with_row(findings: HistoryFindings, row: StoredEvent[PortfolioEvent]) -> HistoryFindings:
    linked = verify_link(findings, row)
    is_intact = linked.breaks == findings.breaks and row.event is not None
    if not is_intact or row.event is None or findings.state is None:
        return replace(linked, state=None)
    state, breaks = _apply(findings.state, row.event)
    return replace(with_breaks(linked, breaks), state=state)


def _apply(state: Portfolio, event: PortfolioEvent) -> tuple[Portfolio | None, list[ChainBreak]]:
    try:
        return apply(state, event.type, event.payload, event.occurred_at), []
    except (KeyError, TypeError, ValueError):
        return None, [ChainBreak(event.seq, f"event {event.seq} cannot be applied")]


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
) -> tuple[ChainBreak, ...]:
    """Returns differences between booked results and their events; `stored` is keyed by event."""
    due = {event.seq: _result(event) for event in events if event.type is EventType.PERFORMANCE}
    return tuple(
        ChainBreak(
            seq, f"the result of event {seq} is {'different' if seq in stored else 'missing'}"
        )
        if seq in due
        else ChainBreak(seq, f"a stored result has no booking in event {seq}")
        for seq in sorted(due.keys() | stored.keys())
        if due.get(seq) != stored.get(seq)
    )


def settings_breaks(
    events: Iterable[PortfolioEvent], stored: StoredControls
) -> tuple[ChainBreak, ...]:
    """Returns differences between stored versions of the settings and their events."""
    return tuple(
        ChainBreak(
            event.seq, f"the settings of version {version} are not those of event {event.seq}"
        )
        for event in events
        if event.type is EventType.CONFIG
        for version in (event.payload["configuration_version"],)
        if write_floats_as_text(stored.settings.get(version)) != event.payload["settings"]
    )


def control_breaks(recorded: RecordedControls, stored: StoredControls) -> tuple[ChainBreak, ...]:
    """Returns differences of switch, locks and settings versions from the events."""
    unknown = sorted(stored.settings.keys() - recorded.versions)
    return (
        *(
            ChainBreak(recorded.newest, f"no event created version {version} of the settings")
            for version in unknown
        ),
        *(
            (ChainBreak(recorded.newest, "the trading switch differs from its last event"),)
            if stored.is_enabled is not recorded.is_enabled
            else ()
        ),
        *(
            ChainBreak(recorded.newest, f"the lock of {symbol} differs from its last event")
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
