"""People: users with a password, the rules of passwords, and the sessions of users and keys."""

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.foundation.principals import Principal, PrincipalKind, Role, Scope

MIN_PASSWORD_CHARS: Final = 12
MAX_PASSWORD_CHARS: Final = 256
_MIN_SYMBOLS: Final = 5
# Controls, formats, surrogates, line and paragraph separators: requests with them are refused.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MIN_OTHER_CHARS: Final = 6  # beside the user's name and common words
_MIN_NAME_CHARS: Final = 3  # a shorter name occurs in many passwords by chance
# The longest first: a word may be a part of another one.
_COMMON: Final = tuple(
    sorted(
        (
            *("abcdefghijklmnopqrstuvwxyz", "correcthorsebatterystaple", "administrator"),
            *("password", "passwort", "passw0rd", "p@ssword", "p@ssw0rd", "qwertyuiop"),
            *("1q2w3e4r5t", "1q2w3e4r", "qwertz", "qwerty", "asdfghjkl", "asdf", "zxcvbnm"),
            *("1qaz", "2wsx", "3edc", "4rfv", "qaz", "wsx", "edc", "rfv", "zaq1", "xsw2", "cde3"),
            *("q1w2e3r4t5y6", "q1w2e3r4", "a1s2d3f4g5h6", "z1x2c3v4b5n6", "qwe", "asd", "zxc"),
            *("112233445566", "112233", "123321", "654321", "987654"),
            *("letmein", "welcome", "iloveyou", "changeme", "trustno1", "whatever", "dragon"),
            *("monkey", "football", "baseball", "sunshine", "princess", "superman", "batman"),
            *("master", "admin", "login", "secret", "default", "hello", "test", "abc123"),
            *("abcdef", "0123456789", "1234567890", "987654321", "123456789", "12345678"),
            *("1234567", "123456", "12345", "1234", "2023", "2024", "2025", "2026", "123"),
            *("my-symbols", "my_symbols", "mysymbols", "kucoin", "bitcoin", "crypto"),
            *("trading", "trader", "operator", "viewer"),
        ),
        key=lambda word: (-len(word), word),
    )
)


def normalize_password(text: str) -> str:
    """The password in Unicode form NFKC: each keyboard gives the same characters."""
    return unicodedata.normalize("NFKC", text)


def password_fault(password: str, name: str) -> str | None:
    """Reason why a normalized password is refused for the user `name`; None for a good one.

    No kind of character is demanded, and only invisible ones are refused.
    """
    if not _INVISIBLE.isdisjoint(map(unicodedata.category, password)):
        return "A password must not contain control characters or invisible ones."
    if len(password) < MIN_PASSWORD_CHARS:
        return f"A password needs at least {MIN_PASSWORD_CHARS} characters."
    if len(password) > MAX_PASSWORD_CHARS:
        return f"A password may have up to {MAX_PASSWORD_CHARS} characters."
    rest = password.casefold()
    if len(set(rest)) < _MIN_SYMBOLS:
        return f"A password needs at least {_MIN_SYMBOLS} different characters."
    names = (name.casefold(),) if len(name) >= _MIN_NAME_CHARS else ()
    for word in (*names, *_COMMON):
        rest = rest.replace(word, "")
    if len(rest) < _MIN_OTHER_CHARS:
        return "A password must not consist of the user's name and common words or numbers."
    return None


@dataclass(frozen=True, slots=True)
class User:
    """Person with a password. Times are UTC; a user is never deleted, only disabled."""

    id: str
    name: str
    role: Role
    scopes: frozenset[Scope]
    password_hash: str = field(repr=False)
    created_by: str
    created_at: datetime
    password_changed_at: datetime
    disabled_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        return self.disabled_at is None

    def principal(self, session_id: str) -> Principal:
        """Caller that a session of this user authenticates."""
        return Principal(
            PrincipalKind.USER,
            self.name,
            self.role,
            self.scopes,
            credential_id=self.id,
            session_id=session_id,
        )


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Life of sessions. `allows_plain` admits them without TLS from other machines, too."""

    idle: timedelta = timedelta(minutes=30)
    absolute: timedelta = timedelta(hours=12)
    allows_plain: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """Stored session of a user or of an API key, without its text; exactly one of both ids is set.

    It ends at `expires_at`, or earlier when it was not used for the idle time.
    """

    id: str
    hash: str = field(repr=False)
    pepper_id: str
    user_id: str | None
    key_id: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime

    def is_live(self, now: datetime, last_used_at: datetime, idle: timedelta) -> bool:
        """True before its end; `last_used_at` may be later than the stored time."""
        return now < self.expires_at and now - last_used_at < idle
