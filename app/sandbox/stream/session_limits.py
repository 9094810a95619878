"""Limits, counters and access tokens of stream sessions."""

import base64
import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

DAY_MS = 86_400_000
MAX_TOKENS = 10_000


@dataclass(slots=True)
class SessionLimits:
    """Limits of the stream, changed through the control endpoint.

    Lifetimes are exchange time, so that speed shortens them. Idling, pings and the limits of
    messages and connections are real time, like the client's timers. A connection may hold 400
    topics: KuCoin does not document today's futures limit, and 400 is the spot limit.
    """

    token_life_ms: int = DAY_MS
    connection_life_ms: int = DAY_MS
    ping_interval_ms: int = 18_000
    ping_timeout_ms: int = 10_000
    idle_s: float = 60.0
    topics_per_message: int = 100
    topics_per_connection: int = 400
    messages: int = 100
    messages_window_s: float = 10.0
    connections: int = 800
    new_connections: int = 30
    new_connections_window_s: float = 60.0
    queue: int = 10_000

    def update(self, changes: dict[str, Any]) -> None:
        """Set limits by name; ValueError for an unknown name or an unusable value."""
        for name, value in changes.items():
            if name not in asdict(self):
                raise ValueError(f"unknown term {name!r}; known: {', '.join(asdict(self))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0")
        for name, value in changes.items():
            setattr(self, name, value)


@dataclass(slots=True)
class StreamCounters:
    """Events of the stream since the last reset."""

    tokens: int = 0
    opened: int = 0
    refused: int = 0
    received: int = 0
    sent: int = 0
    cut_off: int = 0
    expired: int = 0
    idled: int = 0
    ticks: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)


class AccessTokens:
    """Tokens of bullet-public: valid for a day of exchange time and any number of connections.

    The seed determines the tokens, so that equal exchanges issue equal ones.
    """

    def __init__(self, seed: int, limits: SessionLimits) -> None:
        self._seed = seed
        self._limits = limits
        self._issued: dict[str, int] = {}
        self._count = 0

    def issue(self, now_ms: int) -> str:
        """Create a token in KuCoin's form: base64 with a tail behind a dot."""
        self._count += 1
        text = f"{self._seed}:{self._count}:{now_ms}".encode()
        body, tail = hashlib.sha512(text).digest(), hashlib.sha256(text).digest()[:16]
        token = (
            "2neA"
            + (base64.urlsafe_b64encode(body * 2) + b"." + base64.urlsafe_b64encode(tail)).decode()
        )
        self._issued[token] = now_ms
        if len(self._issued) > MAX_TOKENS:
            del self._issued[next(iter(self._issued))]
        return token

    def find_error(self, token: str, now_ms: int) -> str | None:
        """KuCoin's error text for an unusable token; None for a valid one."""
        issued = self._issued.get(token)
        if issued is None:
            return "token is invalid"
        return "token is expired" if now_ms - issued >= self._limits.token_life_ms else None
