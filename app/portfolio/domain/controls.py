"""Operator controls: a switch for trading; pinned, banned and watched symbols."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.foundation.errors import Code, ConflictError
from app.foundation.hash_chain import instant_text
from app.portfolio.domain.event_log import Draft, EventType, instant
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import Portfolio


class LockKind(StrEnum):
    PIN = "pin"  # neither replaced nor sold off by a rebalance
    BAN = "ban"  # cannot enter; a member goes to weight 0
    WATCH = "watch"  # on the watch list; its book is read first


@dataclass(frozen=True, slots=True)
class Lock:
    symbol: str
    kind: LockKind
    reason: str
    expires_at: datetime | None
    set_at: datetime
    set_by: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Trading switch; while off, weights may only move to cash."""

    enabled: bool = True
    reason: str = "never switched"
    changed_at: datetime | None = None
    changed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Controls:
    switch: Switch = Switch()
    locks: Mapping[str, Lock] = field(default_factory=dict)  # active ones, by symbol

    def ban(self, symbol: str) -> str | None:
        """Reason of the symbol's ban; None without one."""
        lock = self.locks.get(symbol)
        return lock.reason if lock is not None and lock.kind is LockKind.BAN else None

    def is_pinned(self, symbol: str) -> bool:
        lock = self.locks.get(symbol)
        return lock is not None and lock.kind is LockKind.PIN

    def watched(self) -> tuple[Lock, ...]:
        """Watched symbols, sorted."""
        watched = (lock for lock in self.locks.values() if lock.kind is LockKind.WATCH)
        return tuple(sorted(watched, key=lambda lock: lock.symbol))

    def in_force(self, since: Callable[[datetime], timedelta]) -> "Controls":
        """Controls without expired locks; a lock that ends now is expired.

        `since` gives the proven time since a timestamp. A lock lasts from its setting to its end.
        """
        return Controls(
            self.switch,
            {
                symbol: lock
                for symbol, lock in self.locks.items()
                if lock.expires_at is None or since(lock.set_at) < lock.expires_at - lock.set_at
            },
        )

    def require(self, drafts: Iterable[Draft]) -> None:
        """Check drafts; raises ConflictError (trading_disabled, symbol_banned, symbol_pinned)."""
        for draft in drafts:
            if draft.type in _BUYS and not self.switch.enabled:
                raise ConflictError(
                    Code.TRADING_DISABLED, f"Trading is switched off: {self.switch.reason}"
                )
            name, other = draft.symbol or "", draft.other_symbol or ""
            banned = self.ban(name) if draft.type in _ENTERS else None
            if banned is not None:
                raise ConflictError(Code.SYMBOL_BANNED, f"{name} is banned: {banned}")
            leaver = {EventType.REPLACE: other, EventType.REMOVE: name}.get(draft.type)
            if leaver is not None and self.is_pinned(leaver):
                reason = self.locks[leaver].reason
                raise ConflictError(Code.SYMBOL_PINNED, f"{leaver} is pinned: {reason}")


FREE: Final = Controls()  # nothing forbidden
_ENTERS: Final = frozenset({EventType.ADD, EventType.REPLACE})
_BUYS: Final = _ENTERS | {EventType.REBALANCE}
HELD_BACK: Final = _BUYS | {EventType.REMOVE}  # events that switch or locks may forbid


def record_lock(portfolio: Portfolio, lock: Lock) -> PortfolioChange:
    """Event of a lock, without a change of members or weights."""
    payload = {"lock": lock_payload(lock)}
    draft = Draft(EventType.LOCK, lock.symbol, None, payload, lock.reason)
    return PortfolioChange(portfolio, ()).then(draft, lock.set_at)


def record_unlock(portfolio: Portfolio, symbol: str, reason: str, at: datetime) -> PortfolioChange:
    draft = Draft(EventType.LOCK, symbol, None, {"lock": None}, reason)
    return PortfolioChange(portfolio, ()).then(draft, at)


def record_switch(
    portfolio: Portfolio, enabled: bool, reason: str, at: datetime
) -> PortfolioChange:
    draft = Draft(EventType.SWITCH, None, None, {"enabled": enabled}, reason)
    return PortfolioChange(portfolio, ()).then(draft, at)


def lock_payload(lock: Lock) -> dict[str, Any]:
    return {
        "symbol": lock.symbol,
        "kind": lock.kind.value,
        "reason": lock.reason,
        "expires_at": None if lock.expires_at is None else instant_text(lock.expires_at),
        "set_at": instant_text(lock.set_at),
        "set_by": lock.set_by,
    }


def read_lock(payload: Mapping[str, Any]) -> Lock:
    """Lock from the JSON of `lock_payload`."""
    ends = payload["expires_at"]
    return Lock(
        payload["symbol"],
        LockKind(payload["kind"]),
        payload["reason"],
        None if ends is None else instant(ends),
        instant(payload["set_at"]),
        payload["set_by"],
    )
