"""What people and programs are told, of what kind it is, how often, and when to try again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.domain.event_codec import EventRecord


class ChannelKind(StrEnum):
    APPRISE = "apprise"  # a person, through Telegram, Discord, Slack or mail
    WEBHOOK = "webhook"  # a program, signed


class NoticeKind(StrEnum):
    ERROR = "error"
    TRADE = "trade"
    STATUS = "status"


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    HELD = "held"  # too many of its kind; a digest will tell of it
    DIGESTED = "digested"  # a digest has told of it
    DEAD = "dead"  # given up; can be sent again by hand


@dataclass(frozen=True, slots=True)
class Limit:
    """So many of a kind in any hour, and the same thing again only after `cooldown_s`."""

    per_hour: int
    cooldown_s: int


LIMITS: Final[Mapping[NoticeKind, Limit]] = MappingProxyType(
    {
        NoticeKind.ERROR: Limit(10, 300),
        NoticeKind.TRADE: Limit(50, 60),
        NoticeKind.STATUS: Limit(5, 600),
    }
)
HOUR: Final = timedelta(hours=1)
MOST_TRIES: Final = 20
DIGEST_LINES: Final = 20
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
    kinds: tuple[NoticeKind, ...]
    enabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell; `key` says what is the same thing again."""

    kind: NoticeKind
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
    notice: Notice
    state: DeliveryState
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    delivered_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel was given lately."""

    kind: NoticeKind
    key: str
    at: datetime


def notice_of(record: EventRecord) -> Notice | None:
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
        kind: NoticeKind, key: str, title: str, body: str, *, critical: bool = False
    ) -> Notice:
        return Notice(kind, critical, key, title, body, event, record.seq)

    match record.type:
        case "alert_raised":
            return told(
                NoticeKind.ERROR,
                f"{data['rule']}:{data['subject']}",
                f"{str(data['severity']).upper()}: {data['rule']} ({data['subject']})",
                str(data["message"]),
                critical=data["severity"] == "critical",
            )
        case "alert_resolved":
            key = f"{data['rule']}:{data['subject']}"
            title = f"Over: {data['rule']} ({data['subject']})"
            return told(NoticeKind.STATUS, key, title, str(data["message"]))
        case "portfolio_changed":
            what = " ".join(str(one) for one in (data["type"], data["symbol"]) if one)
            title = f"Portfolio: {what}"
            return told(NoticeKind.TRADE, what, title, str(data["reason"] or ""))
        case "proposal_opened":
            what = f"{data['kind']} of {data['subject']}"
            body = f"Waits for a decision until {data['expires_at']}."
            return told(NoticeKind.STATUS, f"proposal:{what}", f"Proposed: {what}", body)
        case "configuration_changed":
            title = f"Settings: version {data['settings']['version']} is in force"
            return told(NoticeKind.STATUS, "configuration", title, "")
        case _:
            return None


def admitted(notice: Notice, told: Sequence[Told], at: datetime) -> bool:
    """Whether a person is told now; what is critical always. `told` covers the last hour."""
    if notice.is_critical:
        return True
    limit = LIMITS[notice.kind]
    alike = [one for one in told if one.kind is notice.kind and at - one.at < HOUR]
    cooling = timedelta(seconds=limit.cooldown_s)
    again = any(one.key == notice.key and at - one.at < cooling for one in alike)
    return len(alike) < limit.per_hour and not again


def digest_due(kind: NoticeKind, oldest: datetime, at: datetime) -> bool:
    """Whether what was held back since `oldest` is told in one piece now."""
    return at - oldest >= timedelta(seconds=LIMITS[kind].cooldown_s)


def digest(held: Sequence[Notice]) -> Notice:
    """One notice about those held back, oldest first."""
    kind = held[0].kind
    lines = [one.title for one in held[:DIGEST_LINES]]
    if len(held) > DIGEST_LINES:
        lines.append(f"and {len(held) - DIGEST_LINES} more")
    title = f"{len(held)} more of kind {kind.value}"
    sequences = [one.event_seq for one in held if one.event_seq is not None]
    return Notice(kind, False, "digest", title, "\n".join(lines), {"sequences": sequences})


def pause_s(tries: int, dice: float) -> float:
    """Seconds until the next try after `tries` failures: a minute, growing to six hours.

    `dice` in 0..1 lengthens it by up to a fifth, so that receivers are not hit in step.
    """
    return _PAUSES_S[min(tries, len(_PAUSES_S)) - 1] * (1.0 + _JITTER * dice)
