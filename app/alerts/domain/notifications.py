"""What people and programs are told, of what kind it is, how often, and when to try again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.configuration.domain.sections import NotificationLimit, NotificationSettings
from app.foundation.events import EventRecord


class ChannelKind(StrEnum):
    APPRISE = "apprise"  # a person: Telegram, Discord, Slack, mail; URLs as of apprise
    WEBHOOK = "webhook"  # a program, signed


class NotificationKind(StrEnum):
    ERROR = "error"
    TRADE = "trade"
    STATUS = "status"


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    HELD = "held"  # too many at a time; a digest will tell of it
    DIGESTED = "digested"  # a digest has told of it
    DEAD = "dead"  # given up; can be sent again by hand


HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
MAX_ATTEMPTS: Final = 20
DIGEST_LINES: Final = 20
MAX_HELD: Final = 1_000  # per channel; beyond it they are counted, not kept
_LEFT_OUT: Final = "left_out"
_PAUSES_S: Final = (60, 120, 240, 480, 960, 1_800, 3_600, 7_200, 14_400, 21_600)
_JITTER: Final = 0.2  # a pause is up to a fifth longer


@dataclass(frozen=True, slots=True)
class Channel:
    """Where to tell. `url` and `secret` are secrets: they never leave but towards the receiver."""

    id: str
    name: str
    kind: ChannelKind
    url: str = field(repr=False)
    secret: str | None = field(repr=False)
    kinds: tuple[NotificationKind, ...]
    enabled: bool
    created_at: datetime

    @property
    def secret_fingerprint(self) -> str | None:
        """Twelve digits that tell two apart; None where there is none, or nobody can read it."""
        if self.secret is None or not self.url:
            return None
        return hashlib.sha256(b"channel secret:" + self.secret.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing to tell; `key` says what is the same thing again."""

    kind: NotificationKind
    is_critical: bool
    key: str
    title: str
    body: str
    event: Mapping[str, Any] = field(default_factory=dict)  # for programs
    event_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notice on its way over one channel."""

    id: int
    channel_id: str
    notice: Notification
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class RecentNotification:
    """What a channel was given lately."""

    kind: NotificationKind
    key: str
    at: datetime


def notification_of(record: EventRecord) -> Notification | None:
    """What an event means to somebody who is not watching; None for what is no news."""
    data = record.data
    event = {
        "type": record.type,
        "topic": record.topic.value,
        "sequence": record.seq,
        "occurred_at": record.occurred_at.isoformat().replace("+00:00", "Z"),
        "data": dict(data),
    }

    def told(
        kind: NotificationKind, key: str, title: str, body: str, *, critical: bool = False
    ) -> Notification:
        return Notification(kind, critical, key, title, body, event, record.seq)

    match record.type:
        case "alert_raised":
            return told(
                NotificationKind.ERROR,
                f"{data['rule']}:{data['subject']}",
                f"{str(data['severity']).upper()}: {data['rule']} ({data['subject']})",
                str(data["message"]),
                critical=data["severity"] == "critical",
            )
        case "alert_resolved":
            key = f"{data['rule']}:{data['subject']}"
            title = f"Over: {data['rule']} ({data['subject']})"
            return told(NotificationKind.STATUS, key, title, str(data["message"]))
        case "portfolio_changed":
            what = " ".join(str(one) for one in (data["type"], data["symbol"]) if one)
            title = f"Portfolio: {what}"
            return told(NotificationKind.TRADE, what, title, str(data["reason"] or ""))
        case "proposal_opened":
            what = f"{data['kind']} of {data['subject']}"
            body = f"Waits for a decision until {data['expires_at']}."
            return told(NotificationKind.STATUS, f"proposal:{what}", f"Proposed: {what}", body)
        case "configuration_changed":
            title = f"Settings: version {data['settings']['version']} is in force"
            return told(NotificationKind.STATUS, "configuration", title, "")
        case _:
            return None


def limit_of(kind: NotificationKind, rules: NotificationSettings) -> NotificationLimit:
    limit: NotificationLimit = getattr(rules, kind.value)
    return limit


def is_admitted(
    notice: Notification,
    told: Sequence[RecentNotification],
    waiting: int,
    at: datetime,
    rules: NotificationSettings,
) -> bool:
    """Whether a person is told of it by itself; `told` covers the last hour.

    `waiting` are on their way: with a minute's worth of them even what is critical is told in one
    piece with others, or a storm would be told of for hours.
    """
    if waiting >= rules.per_minute:
        return False
    if notice.is_critical:
        return True
    limit = limit_of(notice.kind, rules)
    alike = [one for one in told if one.kind is notice.kind and at - one.at < HOUR]
    cooling = timedelta(seconds=limit.cooldown_s)
    again = any(one.key == notice.key and at - one.at < cooling for one in alike)
    return len(alike) < limit.per_hour and not again


def is_digest_due(
    held: Sequence[Notification], oldest: datetime, at: datetime, rules: NotificationSettings
) -> bool:
    """Whether those of one kind held back since `oldest` are told in one piece now."""
    cooldown = timedelta(seconds=limit_of(held[0].kind, rules).cooldown_s)
    if any(one.is_critical for one in held):
        cooldown = min(cooldown, MINUTE)
    return at - oldest >= cooldown


def suppressed_count(kind: NotificationKind, number: int) -> Notification:
    """Stands for so many that were not even kept for a digest."""
    title = f"{number} that are not named here"
    return Notification(kind, False, _LEFT_OUT, title, "", {_LEFT_OUT: number})


def digest(held: Sequence[Notification]) -> Notification:
    """One notice about those held back, what is critical first, each as old as it is."""
    kind = held[0].kind
    count = sum(int(one.event.get(_LEFT_OUT, 1)) for one in held)
    named = sorted(held, key=lambda one: not one.is_critical)[:DIGEST_LINES]
    lines = [one.title for one in named]
    if (unnamed := count - sum(int(one.event.get(_LEFT_OUT, 1)) for one in named)) > 0:
        lines.append(f"and {unnamed} more")
    title = f"{count} more of kind {kind.value}"
    sequences = [one.event_seq for one in held if one.event_seq is not None]
    is_critical = any(one.is_critical for one in held)
    return Notification(
        kind, is_critical, "digest", title, "\n".join(lines), {"sequences": sequences}
    )


def remaining_quota(delivered: int, rules: NotificationSettings) -> tuple[int, int]:
    """How many more may go to people now, and how many of those may be ordinary.

    `delivered` went out in the last minute. A part is kept free for what is critical.
    """
    return max(0, rules.per_minute - delivered), max(0, rules.for_ordinary - delivered)


def retry_delay_s(attempts: int, dice: float) -> float:
    """Seconds until the next try after `attempts` failures: a minute, growing to six hours.

    `dice` in 0..1 lengthens it by up to a fifth, so that receivers are not hit in step.
    """
    return _PAUSES_S[min(attempts, len(_PAUSES_S)) - 1] * (1.0 + _JITTER * dice)
