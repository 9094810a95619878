"""Keys that seal stored secrets: their text form, strength and public id."""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

SEALED_MARK: Final = "sealed:"  # starts every sealed text
_KEY_BYTES: Final = 32
_MIN_DIFFERENT_BYTES: Final = 12  # a random key has fewer once in 10**24 draws
_ID_DIGITS: Final = 8
_FINGERPRINT_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class SealingKey:
    """Fernet key; `id` names it in lists and messages."""

    text: str = field(repr=False)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that reveal nothing of the key."""
        return sha256(b"my-symbols sealing key " + self.text.encode()).hexdigest()[:_ID_DIGITS]

    def fingerprint(self, secret: str) -> str:
        """Twelve hexadecimal digits that equal secrets share; guessing a secret needs the key."""
        key = hmac.digest(self.text.encode(), b"my-symbols fingerprint", "sha256")
        return hmac.digest(key, secret.encode(), "sha256").hex()[:_FINGERPRINT_DIGITS]


def sealing_key_fault(text: str) -> str | None:
    """Reason why a text is no good sealing key; None for a good one."""
    try:
        secret = urlsafe_b64decode(text)
    except ValueError:
        secret = b""
    if len(secret) != _KEY_BYTES or urlsafe_b64encode(secret).decode() != text:
        return f"each key must be {_KEY_BYTES} bytes in URL-safe base64"
    if len(set(secret)) < _MIN_DIFFERENT_BYTES:
        return "each key must be random"
    return None


def split_sealing_keys(text: str) -> tuple[str, ...]:
    """Keys of a setting or file, the newest first, separated by commas or white space."""
    return tuple(part for part in re.split(r"[,\s]+", text) if part)
