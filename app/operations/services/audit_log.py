"""Audit log: the portfolio history and the security events, merged by time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from app.foundation.sql.database import Database
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.storage.history import HistoryRepository
from app.security.domain.audit import SecurityEvent, SecurityEventKind
from app.security.storage.audit import SecurityEventRepository


class AuditChain(StrEnum):
    """Hash chain that an entry belongs to."""

    PORTFOLIO = "portfolio"
    SECURITY = "security"


_PORTFOLIO_KINDS: Final = {kind.value.lower(): kind for kind in EventType}
ACTIONS: Final = (*_PORTFOLIO_KINDS, *(kind.value for kind in SecurityEventKind))
_BEFORE_ALL: Final = 0  # numbers begin at 1
_AFTER_ALL: Final = 2**63 - 1
Position = tuple[datetime, AuditChain, int]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One event of either chain; `payload` is that of the chain."""

    chain: AuditChain
    seq: int
    occurred_at: datetime
    actor: str
    action: str
    subject: str | None
    address: str | None
    code: str | None
    count: int
    reason: str | None
    request_id: str | None
    payload: Mapping[str, Any]
    hash: str

    @property
    def position(self) -> Position:
        """Place in the merged order, which is descending."""
        return self.occurred_at, self.chain, self.seq

    @classmethod
    def of_portfolio(cls, event: PortfolioEvent) -> "AuditEntry":
        return cls(
            chain=AuditChain.PORTFOLIO,
            seq=event.seq,
            occurred_at=event.occurred_at,
            actor=event.actor,
            action=event.type.value.lower(),
            subject=event.symbol,
            address=None,
            code=None,
            count=1,
            reason=event.reason,
            request_id=event.request_id,
            payload=event.payload,
            hash=event.hash,
        )

    @classmethod
    def of_security(cls, event: SecurityEvent) -> "AuditEntry":
        return cls(
            chain=AuditChain.SECURITY,
            seq=event.seq,
            occurred_at=event.occurred_at,
            actor=event.principal,
            action=event.kind,
            subject=event.subject,
            address=event.address,
            code=event.code,
            count=event.count,
            reason=None,
            request_id=event.request_id,
            payload=event.payload,
            hash=event.hash,
        )


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Filter of entries; None matches any. `since` is included, `until` is not."""

    actor: str | None = None
    action: str | None = None  # one of ACTIONS
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Lists the entries of both chains."""

    database: Database

    async def page(
        self, criteria: AuditFilter, before: Position | None, limit: int
    ) -> tuple[AuditEntry, ...]:
        """Entries before a position, newest first.

        At equal times security events come first, then portfolio events; within a chain the higher
        number comes first.
        """
        portfolio, security = await self._both(criteria, before, limit)
        entries = (
            *map(AuditEntry.of_portfolio, portfolio),
            *map(AuditEntry.of_security, security),
        )
        return tuple(sorted(entries, key=lambda entry: entry.position, reverse=True)[:limit])

    async def _both(
        self, criteria: AuditFilter, before: Position | None, limit: int
    ) -> tuple[tuple[PortfolioEvent, ...], tuple[SecurityEvent, ...]]:
        action = criteria.action
        portfolio: tuple[PortfolioEvent, ...] = ()
        security: tuple[SecurityEvent, ...] = ()
        async with self.database.read() as unit:
            if action is None or action in _PORTFOLIO_KINDS:
                portfolio = await unit.get(HistoryRepository).page_by_time(
                    _within(before, AuditChain.PORTFOLIO),
                    limit,
                    actor=criteria.actor,
                    kind=None if action is None else _PORTFOLIO_KINDS[action],
                    since=criteria.since,
                    until=criteria.until,
                )
            if action not in _PORTFOLIO_KINDS:
                security = await unit.get(SecurityEventRepository).page(
                    _within(before, AuditChain.SECURITY),
                    limit,
                    principal=criteria.actor,
                    kind=action,
                    since=criteria.since,
                    until=criteria.until,
                )
        return portfolio, security


def _within(before: Position | None, chain: AuditChain) -> tuple[datetime, int] | None:
    """Position in one chain: time and number before which its entries follow."""
    if before is None:
        return None
    at, other, seq = before
    if chain == other:
        return at, seq
    return at, _AFTER_ALL if chain < other else _BEFORE_ALL
