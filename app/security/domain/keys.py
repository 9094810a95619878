"""API keys: text form with checksum, hash under a pepper, state and allow list."""

import hmac
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

from app.foundation.principals import Principal, PrincipalKind, Role, Scope
from app.security.domain.addresses import networks_contain

BRAND: Final = "mysym_"  # secret scanners find leaked keys by it
ENTROPY_BYTES: Final = 38  # 6 for the public id of the key, 32 for its secret
LOCAL_KEY_FILE: Final = "local-admin.key"  # in a configured directory
LOCAL_KEY: Final = "local-cli"  # name of the key in the local key file
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,39}$"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_BYTES, _ID_CHARS = 6, 8
_SECRET_CHARS: Final = 43  # 62**43 > 2**256
_CHECKSUM_CHARS: Final = 6  # 62**6 > 2**32
_PREFIX_CHARS: Final = len(BRAND) + _ID_CHARS
_TOKEN: Final = re.compile(
    rf"{BRAND}[0-9A-Za-z]{{{_ID_CHARS + _SECRET_CHARS + _CHECKSUM_CHARS}}}", re.ASCII
)


def create_token(entropy: bytes) -> str:
    """Text of a new key, made of ENTROPY_BYTES random bytes; 256 bits of it are secret.

    Raises ValueError for another number of bytes.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key needs {ENTROPY_BYTES} random bytes")
    public = int.from_bytes(entropy[:_ID_BYTES]) % len(_ALPHABET) ** _ID_CHARS
    secret = int.from_bytes(entropy[_ID_BYTES:])
    body = BRAND + _base62(public, _ID_CHARS) + _base62(secret, _SECRET_CHARS)
    return body + _checksum(body)


def prefix_of(token: str) -> str | None:
    """Public prefix of a well-formed key; None for a text with another form or checksum."""
    if _TOKEN.fullmatch(token) is None:
        return None
    body, checksum = token[:-_CHECKSUM_CHARS], token[-_CHECKSUM_CHARS:]
    return token[:_PREFIX_CHARS] if checksum == _checksum(body) else None


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


MIN_PEPPER_CHARS: Final = 32
MIN_PEPPER_SYMBOLS: Final = 10
MAX_PEPPERS: Final = 2


@dataclass(frozen=True, slots=True)
class Pepper:
    """Server secret under which keys are hashed; `id` names it beside each hash."""

    secret: bytes = field(repr=False)
    id: str

    @classmethod
    def from_text(cls, text: str) -> "Pepper":
        secret = text.encode()
        return cls(secret, hmac.digest(secret, b"my-symbols pepper", "sha256")[:8].hex())

    def hash(self, token: str) -> str:
        """HMAC-SHA-256 of the key, in hexadecimal."""
        return hmac.new(self.secret, token.encode(), sha256).hexdigest()


def pepper_fault(text: str) -> str | None:
    """Reason why a pepper is too weak; None for a good one."""
    if len(text) < MIN_PEPPER_CHARS:
        return f"a pepper needs at least {MIN_PEPPER_CHARS} characters"
    if len(set(text)) < MIN_PEPPER_SYMBOLS:
        return f"a pepper needs at least {MIN_PEPPER_SYMBOLS} different characters"
    return None


def split_peppers(text: str) -> tuple[str, ...]:
    """Peppers of a setting, the newest first, separated by commas or lines."""
    return tuple(part.strip() for part in re.split(r"[,\n]", text) if part.strip())


class KeyState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Stored key without its text. Times are UTC; without `expires_at` it never expires.

    `allow` holds networks in CIDR notation; an empty one admits every address.
    """

    id: str
    name: str
    prefix: str
    hash: str = field(repr=False)
    pepper_id: str
    role: Role | None
    scopes: frozenset[Scope]
    sources: frozenset[str]
    allow: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> KeyState:
        if self.revoked_at is not None:
            return KeyState.REVOKED
        has_expired = self.expires_at is not None and self.expires_at <= now
        return KeyState.EXPIRED if has_expired else KeyState.ACTIVE

    def admits(self, peer: str | None) -> bool:
        """True if the allow list admits the peer address; an unknown address needs an empty one."""
        return not self.allow or (peer is not None and networks_contain(self.allow, peer))

    def principal(self) -> Principal:
        """Caller that this key authenticates."""
        return Principal(
            PrincipalKind.KEY, self.name, self.role, self.scopes, self.sources, self.id
        )


def order_scopes(scopes: Iterable[Scope]) -> list[str]:
    """Scopes as stored and shown: by declaration, each once."""
    wanted = set(scopes)
    return [scope.value for scope in Scope if scope in wanted]
