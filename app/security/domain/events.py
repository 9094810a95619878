"""Events that security publishes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.foundation.events import EventKind, EventTopic


class KeyChange(StrEnum):
    CREATED = "created"
    ROTATED = "rotated"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKeyChanged:
    """An API key was created, rotated or revoked; `role` is None for a key of scopes alone."""

    key_id: str
    name: str
    prefix: str
    change: KeyChange
    role: str | None
    scopes: tuple[str, ...]
    actor: str
    occurred_at: datetime


class UserChange(StrEnum):
    CREATED = "created"
    CHANGED = "changed"  # role or scopes
    DISABLED = "disabled"
    ENABLED = "enabled"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  # a word, not a password


@dataclass(frozen=True, slots=True)
class UserChanged:
    """A user was created, changed, disabled or enabled, or has another password."""

    user_id: str
    name: str
    change: UserChange
    role: str
    scopes: tuple[str, ...]
    actor: str
    occurred_at: datetime


class SessionChange(StrEnum):
    STARTED = "started"
    ENDED = "ended"  # by a caller; one that expires ends without an event


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """A session was started by a log-in or ended; `owner` is the actor that it authenticates."""

    session_id: str
    owner: str
    change: SessionChange
    actor: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class AuthenticationBurst:
    """More authentications than the limit failed within a minute; `subject` is an address, or all.

    A burst that goes on is an event a minute.
    """

    subject: str
    failures: int
    occurred_at: datetime


EVENTS: Final = (
    EventKind(ApiKeyChanged, "api_key_changed", EventTopic.SECURITY),
    EventKind(UserChanged, "user_changed", EventTopic.SECURITY),
    EventKind(SessionChanged, "session_changed", EventTopic.SECURITY),
    EventKind(AuthenticationBurst, "authentication_burst", EventTopic.SECURITY),
)
