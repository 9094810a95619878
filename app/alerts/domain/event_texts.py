"""Texts of events: category, title and body of the notification about each event type."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from app.alerts.domain.models import AlertRule
from app.configuration.domain.sections import NotificationCategory, Severity
from app.foundation.events import EventRecord
from app.portfolio.domain.event_log import EventType


@dataclass(frozen=True, slots=True)
class EventText:
    """Notification text of one event; equal keys mark a repetition."""

    category: NotificationCategory
    key: str
    title: str
    body: str = ""


# Text from an event and the public address of the API; None where there is nothing to notify.
Describe = Callable[[EventRecord, str | None], EventText | None]

# Category of an alert by its rule; a critical alert of an error rule is a critical error.
ALERT_CATEGORIES: Final[Mapping[AlertRule, NotificationCategory]] = MappingProxyType(
    {
        **dict.fromkeys(AlertRule, NotificationCategory.ERROR),
        AlertRule.PORTFOLIO_BELOW_SIZE: NotificationCategory.STATUS_UPDATE,
        AlertRule.REPLACEMENT_RECOMMENDED: NotificationCategory.STATUS_UPDATE,
        AlertRule.REBALANCE_DONE: NotificationCategory.STATUS_UPDATE,
        AlertRule.RECOVERED: NotificationCategory.STATUS_UPDATE,
        AlertRule.LARGE_LOSS: NotificationCategory.LARGE_LOSS,
        AlertRule.PROFITABLE_EXIT: NotificationCategory.PROFITABLE_EXIT,
    }
)
# Alerts about one moment: they end by time, so their end is no news.
_MOMENTARY: Final = frozenset(
    {
        AlertRule.REBALANCE_DONE,
        AlertRule.RECOVERED,
        AlertRule.LARGE_LOSS,
        AlertRule.PROFITABLE_EXIT,
    }
)

# Category of a change of the portfolio by its type; None: another event reports it.
CHANGE_CATEGORIES: Final[Mapping[EventType, NotificationCategory | None]] = MappingProxyType(
    {
        EventType.ADD: NotificationCategory.TRADE,
        EventType.REMOVE: NotificationCategory.TRADE,
        EventType.REPLACE: NotificationCategory.TRADE,
        EventType.REBALANCE: NotificationCategory.TRADE,
        EventType.WEIGHTS: NotificationCategory.TRADE,
        EventType.PERFORMANCE: NotificationCategory.TRADE,
        EventType.LOCK: NotificationCategory.STATUS_UPDATE,
        EventType.SWITCH: NotificationCategory.STATUS_UPDATE,
        EventType.CONFIG: None,  # configuration_changed
    }
)


def describe_event(record: EventRecord, api_url: str | None = None) -> EventText | None:
    """Returns the text of an event; None for one without a notification.

    Types and rules of a newer version, which a rolling restart brings, are tolerated.
    """
    describe = EVENT_TEXTS.get(record.type)
    return None if describe is None else describe(record, api_url)


def _alert_raised(record: EventRecord, api_url: str | None) -> EventText:
    data = record.data
    category = ALERT_CATEGORIES.get(data["rule"], NotificationCategory.ERROR)
    if category is NotificationCategory.ERROR and data["severity"] == Severity.CRITICAL:
        category = NotificationCategory.CRITICAL_ERROR
    title = f"{str(data['severity']).upper()}: {data['rule']} ({data['subject']})"
    if data["value"] is not None:
        limit = "" if data["limit"] is None else f", limit {data['limit']:.6g}"
        title += f": {data['value']:.6g}{limit}"
    lines = [_sentence(data["message"])]
    if data["symbols"]:
        lines.append(f"Symbols: {', '.join(data['symbols'])}.")
    lines += _since(data.get("since"), record.occurred_at, "holds for")
    lines.append(f"Acknowledge: my-symbols alerts acknowledge {data['alert_id']}")
    if api_url is not None:
        lines.append(f"Alert: {api_url}/alerts/{data['alert_id']}")
    return EventText(category, _alert_key(data), title, "\n".join(lines))


def _alert_resolved(record: EventRecord, api_url: str | None) -> EventText | None:
    del api_url
    data = record.data
    if data["rule"] in _MOMENTARY:
        return None
    by = f" by {data['resolved_by']}" if data["resolved_by"] else ""
    lines = [
        f"Last reading: {_sentence(data['message'])}",
        f"End: {data['resolution']}{by}.",
        *_since(data.get("since"), record.occurred_at, "held for"),
    ]
    title = f"Resolved: {data['rule']} ({data['subject']})"
    return EventText(NotificationCategory.STATUS_UPDATE, _alert_key(data), title, "\n".join(lines))


def _alert_key(data: Mapping[str, Any]) -> str:
    return f"{data['rule']}:{data['subject']}"


def _portfolio_changed(record: EventRecord, api_url: str | None) -> EventText | None:
    del api_url
    data = record.data
    entries = data.get("entries") or [data]
    categories = {CHANGE_CATEGORIES.get(one["type"]) for one in entries} - {None}
    if not categories:
        return None
    is_trade = NotificationCategory.TRADE in categories
    changes = summarize_changes(entries)
    lines = [
        *_labelled("Reason", data["reason"]),
        *_labelled("Actor", data["actor"]),
        *_member_lines(data.get("members") or ()),
    ]
    if data.get("cash_u") is not None and data["old_cash_u"] != data["cash_u"]:
        lines.append(f"Cash: {percent_text(data['old_cash_u'])} to {percent_text(data['cash_u'])}.")
    lines.append(f"Portfolio version: {data['version']}.")
    lines += _labelled("Rebalance run", data.get("run_id"))
    lines += _labelled("Approved proposal", data.get("proposal_id"))
    return EventText(
        NotificationCategory.TRADE if is_trade else NotificationCategory.STATUS_UPDATE,
        changes,
        f"Portfolio: {changes}",
        "\n".join(lines),
    )


_CHANGE_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        EventType.ADD: "added",
        EventType.REMOVE: "removed",
        EventType.REPLACE: "replaced",
        EventType.REBALANCE: "rebalanced",
        EventType.WEIGHTS: "weights set",
        EventType.PERFORMANCE: "result booked for",
        EventType.LOCK: "lock changed for",
        EventType.SWITCH: "trading switch changed",
        EventType.CONFIG: "settings changed",
    }
)
_MAX_NAMED: Final = 5  # symbols of one kind of change in a title
_MAX_CHANGES: Final = 10  # settings or sectors that a text names


def summarize_changes(entries: Sequence[Mapping[str, Any]]) -> str:
    """Changes in words, such as `added A and B; removed C`; weights only if alone."""
    by_type: dict[str, list[str]] = {}
    for one in entries:
        names = by_type.setdefault(one["type"], [])
        if one["type"] == EventType.REPLACE:
            names.append(f"{one['other_symbol']} by {one['symbol']}")
        elif one["symbol"] is not None:
            names.append(one["symbol"])
    if len(by_type) > 1:
        by_type.pop(EventType.WEIGHTS, None)
    return "; ".join(
        f"{_CHANGE_WORDS.get(kind, kind)} {enumerate_names(names)}".rstrip()
        for kind, names in by_type.items()
    )


def enumerate_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _member_lines(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Line per member that entered, left or changed its weight, then the number of all."""
    if not members:
        return []
    lines = []
    for one in members:
        old, new = one["old_u"], one["new_u"]
        if old is None:
            lines.append(f"{one['symbol']}: enters with {percent_text(new)}.")
        elif new is None:
            lines.append(f"{one['symbol']}: leaves, was {percent_text(old)}.")
        elif old != new:
            lines.append(f"{one['symbol']}: {percent_text(old)} to {percent_text(new)}.")
    before = sum(one["old_u"] is not None for one in members)
    after = sum(one["new_u"] is not None for one in members)
    return [*lines, f"Members: {before} before, {after} after."]


def _proposal_opened(record: EventRecord, api_url: str | None) -> EventText:
    data = record.data
    proposal_id, leaving, entering = data["proposal_id"], data.get("leaving"), data.get("entering")
    subject = f"{data['kind']} of {data['subject']}"
    lines = _labelled("Reason", data.get("reason"))
    lines += [] if leaving is None else [f"{leaving}: would leave."]
    lines += [] if entering is None else [f"{entering}: would enter."]
    lines += [
        f"{one['symbol']}: {percent_text(one['old_u'])} to {percent_text(one['new_u'])}."
        for one in data.get("weights") or ()
    ]
    lines += [
        f"Proposal: {proposal_id}, for version {data['portfolio_version']} of the portfolio.",
        f"Waits for a decision until {_shown(data['expires_at'])}.",
        f"Approve: my-symbols portfolio approve {proposal_id}",
        f"Decline: my-symbols portfolio decline {proposal_id}",
    ]
    if api_url is not None:
        lines.append(f"Approve by POST: {api_url}/portfolio/proposals/{proposal_id}/approve")
    return EventText(
        NotificationCategory.STATUS_UPDATE,
        f"proposal:{subject}",
        f"Proposed: {subject}",
        "\n".join(lines),
    )


def _configuration_changed(record: EventRecord, api_url: str | None) -> EventText:
    del api_url
    data = record.data
    lines = [f"{change}." for change in _first_changes(data.get("changes") or ())]
    lines += _labelled("Reason", data.get("reason"))
    lines += _labelled("Actor", data.get("actor"))
    title = f"Settings: version {data['settings']['version']} is active"
    return EventText(NotificationCategory.STATUS_UPDATE, "configuration", title, "\n".join(lines))


def _sectors_changed(record: EventRecord, api_url: str | None) -> EventText:
    del api_url
    data = record.data
    changes = [
        f"{one['base']}: {one['before']['sector']} to"
        f" {'its default' if one['after'] is None else one['after']['sector']}"
        for one in data["changes"]
    ]
    lines = [f"{change}." for change in _first_changes(changes)]
    lines += [*_labelled("Reason", data["reason"]), *_labelled("Actor", data["actor"])]
    title = f"Sectors: version {data['version']} is active"
    return EventText(NotificationCategory.STATUS_UPDATE, "sectors", title, "\n".join(lines))


def _first_changes(changes: Sequence[str]) -> list[str]:
    more = len(changes) - _MAX_CHANGES
    return [*changes[:_MAX_CHANGES], *([f"and {more} more"] if more > 0 else ())]


def _since(since: str | None, at: datetime, verb: str) -> list[str]:
    """Line with start and age of a condition; none without a start."""
    if since is None:
        return []
    seconds = max(0.0, (at - datetime.fromisoformat(since)).total_seconds())
    return [f"Since: {_shown(since)}, {verb} {_duration(seconds)}."]


def _labelled(label: str, value: object) -> list[str]:
    """Line with a labelled value; none without a value."""
    return [] if value in {None, ""} else [f"{label}: {_sentence(value)}"]


def percent_text(micro_percent: int) -> str:
    return f"{micro_percent / 1_000_000:.2f} %"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _shown(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M:%S} UTC"


def _sentence(message: object) -> str:
    return f"{str(message).rstrip('.')}."


# Every event type; a test compares it with the table of stored events.
EVENT_TEXTS: Final[Mapping[str, Describe | None]] = MappingProxyType(
    {
        "alert_raised": _alert_raised,
        "alert_resolved": _alert_resolved,
        "portfolio_changed": _portfolio_changed,
        "proposal_opened": _proposal_opened,
        "configuration_changed": _configuration_changed,
        "sectors_changed": _sectors_changed,
        "proposal_decided": None,  # an approval is a change of the portfolio
        "plan_created": None,  # the change of the portfolio reports it
        "mode_changed": None,  # alert rules report its causes and `recovered`
        "authentication_burst": None,  # the alert rule of the same name
        "scores_updated": None,
        "score_changed": None,
        "signal_changed": None,
        "job_changed": None,
        "api_key_changed": None,
        "user_changed": None,
        "session_changed": None,
    }
)
