"""Security events, and how refusals that repeat become one event a minute."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from app.foundation.hash_chain import instant_text

MAX_ENTRIES: Final = 100  # different refusals counted in a minute; further ones are "others"
OTHERS: Final = "others"  # principal of the event of refusals beyond that
SYSTEM: Final = "service"  # principal of events that no caller causes
_MAX_TEXT: Final = 128  # of the columns
_MAX_ADDRESS: Final = 64


class SecurityEventKind(StrEnum):
    """Kinds of security events; a stored event may have a kind of a later version."""

    SERVICE_STARTED = "service_started"  # `code` is the access mode
    KEY_CREATED = "key_created"
    KEY_ROTATED = "key_rotated"
    KEY_REVOKED = "key_revoked"
    AUTHENTICATION_FAILED = "authentication_failed"  # `code` says why the credential is invalid
    AUTHENTICATION_BURST = "authentication_burst"
    REFUSED = "refused"  # 401, 403, 429 or four eyes; `code` is that of the problem
    LOGGED_IN = "logged_in"  # `code`: password, key
    LOGGED_OUT = "logged_out"
    SESSION_ENDED = "session_ended"  # a session other than that of the request
    USER_CHANGED = "user_changed"  # `code`: as UserChange
    SECRETS_CHANGED = "secrets_changed"  # `code`: rotated, discarded
    CHANNEL_CHANGED = "channel_changed"  # `code`: created, changed, removed, tested, redriven
    ALERT_CHANGED = "alert_changed"  # `code`: acknowledged, snoozed, resolved
    JOB_CHANGED = "job_changed"  # `code`: started, cancelled
    MANUAL_RUN = "manual_run"  # by a caller, without a job; `subject` names it
    SIGNALS_CHANGED = "signals_changed"  # `code`: cleaned, requeued
    PROPOSAL_DECLINED = "proposal_declined"  # an approved one is in the portfolio's history
    QUARANTINE_RELEASED = "quarantine_released"
    SECTORS_CHANGED = "sectors_changed"  # `code`: set, reset, imported
    EVENTS_DELETED = "events_deleted"  # by retention; names the anchor


@dataclass(frozen=True, slots=True)
class SecurityDraft:
    """Security event before it has a place in the chain.

    `principal` is the actor, `address` that of its peer, `subject` the object of a change, such as
    the name of a key. `count` is above 1 for refusals within one minute. `payload` holds text,
    integers, booleans, null, lists and objects only.
    """

    kind: SecurityEventKind
    principal: str
    occurred_at: datetime
    address: str | None = None
    code: str | None = None
    subject: str | None = None
    count: int = 1
    payload: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event of the chain; `hash` covers all other fields, including `prev_hash`."""

    seq: int
    kind: str
    principal: str
    address: str | None
    code: str | None
    subject: str | None
    count: int
    payload: Mapping[str, Any]
    request_id: str | None
    occurred_at: datetime
    prev_hash: str
    hash: str

    def body(self) -> dict[str, Any]:
        """Everything but the hashes, as it is hashed."""
        return {
            "seq": self.seq,
            "kind": self.kind,
            "principal": self.principal,
            "address": self.address,
            "code": self.code,
            "subject": self.subject,
            "count": self.count,
            "payload": self.payload,
            "request_id": self.request_id,
            "occurred_at": instant_text(self.occurred_at),
        }


def unsealed_security_events(drafts: Iterable[SecurityDraft]) -> tuple[SecurityEvent, ...]:
    """Events before they have number and hash; texts are cut to the width of their columns."""
    return tuple(
        SecurityEvent(
            seq=0,
            kind=draft.kind.value,
            principal=draft.principal[:_MAX_TEXT],
            address=None if draft.address is None else draft.address[:_MAX_ADDRESS],
            code=None if draft.code is None else draft.code[:_MAX_ADDRESS],
            subject=None if draft.subject is None else draft.subject[:_MAX_TEXT],
            count=draft.count,
            payload=draft.payload,
            request_id=None if draft.request_id is None else draft.request_id[:_MAX_TEXT],
            occurred_at=draft.occurred_at,
            prev_hash="",
            hash="",
        )
        for draft in drafts
    )


@dataclass(frozen=True, slots=True)
class SecurityAnchor:
    """End of the deleted part of the chain: number and hash of its last event."""

    seq: int
    hash: str

    def payload(self) -> dict[str, Any]:
        """Payload of the event that records the deletion in the chain."""
        return {"seq": self.seq, "hash": self.hash}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusals are equal, and counted together, if these values are."""

    kind: SecurityEventKind
    principal: str
    address: str | None
    code: str | None


_OTHER_REFUSALS: Final = Refusal(SecurityEventKind.REFUSED, OTHERS, None, None)


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """Number of equal refusals within one minute, and the time of the first one."""

    refusal: Refusal
    first_at: datetime
    count: int

    def draft(self) -> SecurityDraft:
        refusal = self.refusal
        return SecurityDraft(
            refusal.kind,
            refusal.principal,
            self.first_at,
            refusal.address,
            refusal.code,
            count=self.count,
        )


@dataclass(slots=True)
class RefusalCounter:
    """Counts refusals by principal, address, code and minute of the wall clock, in bounded memory.

    Refusals beyond `max_entries` different ones in memory share one entry a minute.
    """

    max_entries: int = MAX_ENTRIES
    _counts: dict[tuple[datetime, Refusal], RefusalCount] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, refusal: Refusal, at: datetime) -> None:
        """Counts one refusal at `at`."""
        self._merge(RefusalCount(refusal, at, 1))

    def take(self, now: datetime | None) -> tuple[RefusalCount, ...]:
        """Removes and returns the counts of all minutes but that of `now` (None: of all)."""
        running = None if now is None else _minute(now)
        due = [key for key in self._counts if key[0] != running]
        return tuple(self._counts.pop(key) for key in due)

    def put_back(self, counts: Iterable[RefusalCount]) -> None:
        """Adds counts that could not be stored."""
        for count in counts:
            self._merge(count)

    def _merge(self, more: RefusalCount) -> None:
        minute = _minute(more.first_at)
        key = (minute, more.refusal)
        if key not in self._counts and len(self._counts) >= self.max_entries:
            key = (minute, _OTHER_REFUSALS)
        known = self._counts.get(key)
        first_at = more.first_at if known is None else min(known.first_at, more.first_at)
        count = more.count + (0 if known is None else known.count)
        self._counts[key] = RefusalCount(key[1], first_at, count)


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
