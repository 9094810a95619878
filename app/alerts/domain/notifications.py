"""Notifications: content, rate limits, digests and retry delays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.alerts.domain.event_texts import describe_event
from app.configuration.domain.sections import (
    NotificationCategory,
    NotificationLimit,
    NotificationPriority,
    NotificationSettings,
)
from app.foundation.events import EventRecord


class ChannelKind(StrEnum):
    """Kind of receiver of a channel."""

    APPRISE = "apprise"  # a person: Telegram, Discord, Slack, mail; URLs as of apprise
    WEBHOOK = "webhook"  # a program, signed


class NotificationKind(StrEnum):
    """Subject matter of a notification; a channel subscribes to kinds."""

    ERROR = "error"
    TRADE = "trade"
    STATUS = "status"


_KINDS: Final[Mapping[NotificationCategory, NotificationKind]] = MappingProxyType(
    {
        NotificationCategory.CRITICAL_ERROR: NotificationKind.ERROR,
        NotificationCategory.ERROR: NotificationKind.ERROR,
        NotificationCategory.LARGE_LOSS: NotificationKind.TRADE,
        NotificationCategory.TRADE: NotificationKind.TRADE,
        NotificationCategory.PROFITABLE_EXIT: NotificationKind.TRADE,
        NotificationCategory.STATUS_UPDATE: NotificationKind.STATUS,
    }
)


class DeliveryState(StrEnum):
    """State of one delivery over one channel."""

    PENDING = "pending"
    DELIVERED = "delivered"
    HELD = "held"  # over the rate limit; waits for a digest
    DIGESTED = "digested"  # delivered as part of a digest
    DEAD = "dead"  # attempts exhausted; can be sent again by hand


HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
MAX_ATTEMPTS: Final = 20
DIGEST_LINES: Final = 20
MAX_HELD: Final = 1_000  # per channel; further ones are only counted
_SUPPRESSED: Final = "left_out"
_PAUSES_S: Final = (60, 120, 240, 480, 960, 1_800, 3_600, 7_200, 14_400, 21_600)
_JITTER: Final = 0.2  # a pause is up to a fifth longer


@dataclass(frozen=True, slots=True)
class Channel:
    """Receiver of notifications; only the receiver ever gets `url` and `secret`."""

    id: str
    name: str
    kind: ChannelKind
    url: str = field(repr=False)
    secret: str | None = field(repr=False)
    kinds: tuple[NotificationKind, ...]
    enabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Notification:
    """Content of one notification; equal keys mark a repetition."""

    kind: NotificationKind
    priority: NotificationPriority
    key: str
    title: str
    body: str
    event: Mapping[str, Any] = field(default_factory=dict)  # for programs
    event_seq: int | None = None

    @property
    def is_critical(self) -> bool:
        """True for an immediate one, which the limits per hour do not hold back."""
        return self.priority is NotificationPriority.IMMEDIATE


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivery of one notification over one channel."""

    id: int
    channel_id: str
    notification: Notification
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class RecentNotification:
    """Notification that counts against the rate limits of a channel."""

    kind: NotificationKind
    key: str
    at: datetime


def notification_from_event(
    record: EventRecord,
    priorities: Mapping[NotificationCategory, NotificationPriority],
    api_url: str | None = None,
) -> Notification | None:
    """Returns the notification about an event; None for an event without one.

    `api_url` is the public address of the API; without it the text has no link.
    """
    text = describe_event(record, api_url)
    if text is None:
        return None
    event = {
        "type": record.type,
        "topic": record.topic.value,
        "sequence": record.seq,
        "occurred_at": record.occurred_at.isoformat().replace("+00:00", "Z"),
        "data": dict(record.data),
    }
    return Notification(
        _KINDS[text.category],
        priorities[text.category],
        text.key,
        text.title,
        text.body,
        event,
        record.seq,
    )


_BY_PRIORITY: Final = tuple(NotificationPriority)


def priority_rank(priority: NotificationPriority) -> int:
    """Rank of a priority; 0 is immediate."""
    return _BY_PRIORITY.index(priority)


def rate_limit(kind: NotificationKind, rules: NotificationSettings) -> NotificationLimit:
    """Returns the rate limit of one kind."""
    limit: NotificationLimit = getattr(rules, kind.value)
    return limit


def is_admitted(
    notification: Notification,
    recent: Sequence[RecentNotification],
    waiting: int,
    at: datetime,
    rules: NotificationSettings,
) -> bool:
    """True if a notification is sent on its own; `recent` covers the last hour.

    With a minute's quota already waiting, immediate ones go into a digest too; otherwise a storm
    of alerts would be delivered for hours.
    """
    if waiting >= rules.per_minute:
        return False
    if notification.is_critical:
        return True
    limit = rate_limit(notification.kind, rules)
    same_kind = [one for one in recent if one.kind is notification.kind and at - one.at < HOUR]
    cooldown = timedelta(seconds=limit.cooldown_s)
    is_repeated = any(one.key == notification.key and at - one.at < cooldown for one in same_kind)
    return len(same_kind) < limit.per_hour and not is_repeated


def is_digest_due(
    held: Sequence[Notification], oldest: datetime, at: datetime, rules: NotificationSettings
) -> bool:
    """True if the held notifications of one kind are due as a digest."""
    cooldown = timedelta(seconds=rate_limit(held[0].kind, rules).cooldown_s)
    if any(one.is_critical for one in held):
        cooldown = min(cooldown, MINUTE)
    return at - oldest >= cooldown


def suppressed_count(kind: NotificationKind, number: int) -> Notification:
    """Returns the notification that stands for `number` others above the limit of held ones."""
    title = f"{number} more without titles"
    return Notification(
        kind, NotificationPriority.LOW, _SUPPRESSED, title, "", {_SUPPRESSED: number}
    )


def digest(held: Sequence[Notification]) -> Notification:
    """Returns the digest of held notifications, by priority; it has the highest of them."""
    kind = held[0].kind
    count = sum(int(one.event.get(_SUPPRESSED, 1)) for one in held)
    named = sorted(held, key=lambda one: priority_rank(one.priority))[:DIGEST_LINES]
    lines = [one.title for one in named]
    if (unnamed := count - sum(int(one.event.get(_SUPPRESSED, 1)) for one in named)) > 0:
        lines.append(f"and {unnamed} more")
    title = f"{count} more of kind {kind.value}"
    sequences = [one.event_seq for one in held if one.event_seq is not None]
    priority = min((one.priority for one in held), key=priority_rank)
    return Notification(kind, priority, "digest", title, "\n".join(lines), {"sequences": sequences})


def remaining_quota(delivered: int, rules: NotificationSettings) -> tuple[int, int]:
    """Returns the remaining deliveries to people this minute: in total, and of non-critical ones.

    `delivered` counts the last minute. A part of the quota is reserved for critical ones.
    """
    return max(0, rules.per_minute - delivered), max(0, rules.ordinary_per_minute - delivered)


def retry_delay_s(attempts: int, jitter: float) -> float:
    """Returns the seconds until the next attempt after `attempts` failures, 1 min to 6 h.

    `jitter` in 0..1 adds up to a fifth, which spreads retries.
    """
    return _PAUSES_S[min(attempts, len(_PAUSES_S)) - 1] * (1.0 + _JITTER * jitter)
