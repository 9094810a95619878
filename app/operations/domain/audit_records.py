"""Whether what is stored beside the portfolio is what the events say of it.

Booked results, settings, the trading switch and the locks each have an event of their own: a row
that was altered without one is as much a lie as an altered event.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.operations.domain.history_audit import Break
from app.portfolio.domain.event_log import EventType, PortfolioEvent, instant
from app.portfolio.domain.membership import exact
from app.portfolio.domain.returns import BookedResult


@dataclass(frozen=True, slots=True)
class Beside:
    """What is stored but for the results, which are too many to be held at once."""

    settings: Mapping[int, Any]  # documents by version; None where one cannot be read
    is_enabled: object  # as the switch is stored
    locks: Mapping[str, Any]  # by symbol, as they are stored


@dataclass(frozen=True, slots=True)
class Told:
    """What the events have said so far; version 1 of the settings has none."""

    newest: int = 0
    versions: frozenset[int] = frozenset({1})
    is_enabled: bool = True
    locks: Mapping[str, Any] = field(default_factory=dict)
    locked_at: datetime | None = None  # when locks were last changed


def told(before: Told, events: Iterable[PortfolioEvent]) -> Told:
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
) -> tuple[Break, ...]:
    """Results that are not those of the events; `stored` are all of that part, by event."""
    due = {event.seq: _result(event) for event in events if event.type is EventType.PERFORMANCE}
    return tuple(
        Break(
            seq, f"the result that event {seq} booked is {'another' if seq in stored else 'gone'}"
        )
        if seq in due
        else Break(seq, f"a result is stored that event {seq} did not book")
        for seq in sorted(due.keys() | stored.keys())
        if due.get(seq) != stored.get(seq)
    )


def settings_amiss(events: Iterable[PortfolioEvent], beside: Beside) -> tuple[Break, ...]:
    """Versions of the settings that are not those of their events."""
    return tuple(
        Break(event.seq, f"the settings of version {version} are not those of event {event.seq}")
        for event in events
        if event.type is EventType.CONFIG
        for version in (event.payload["configuration_version"],)
        if exact(beside.settings.get(version)) != event.payload["settings"]
    )


def controls_amiss(said: Told, beside: Beside) -> tuple[Break, ...]:
    """Switch, locks and versions of settings that no event has made so."""
    unknown = sorted(beside.settings.keys() - said.versions)
    return (
        *(Break(said.newest, f"no event made version {one} of the settings") for one in unknown),
        *(
            (Break(said.newest, "the trading switch does not stand as its last event says"),)
            if beside.is_enabled is not said.is_enabled
            else ()
        ),
        *(
            Break(said.newest, f"the lock of {symbol} is not that of its last event")
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
