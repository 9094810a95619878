"""Records security events: at once, or as one event a minute for refusals that repeat."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from app.foundation.errors import ServiceError
from app.foundation.idempotency import AuditNote, Command, RecordAudit
from app.foundation.ports import Clock, Monotonic
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork, shield
from app.security.domain.audit import (
    Refusal,
    RefusalCounter,
    SecurityDraft,
    SecurityEventKind,
)
from app.security.domain.bursts import MAX_SUBJECTS, UNKNOWN_ADDRESS, Burst, BurstDetector
from app.security.domain.events import AuthenticationBurst
from app.security.domain.failures import MAX_FAILURES
from app.security.storage.audit import DELETED_AT_ONCE, SecurityEventRepository

POLL_S: Final = 1.0  # between two looks for minutes that are over
MAX_EVENTS: Final = 1_000_000  # stored; a flood of refusals must not fill the disk
_DELETIONS: Final = 50  # transactions of one sweep
_log = structlog.get_logger("security")


@dataclass(slots=True)
class SecurityAudit:
    """Security events of one process.

    Refusals are counted in memory and stored when their minute is over, so a process that is
    killed loses those of one minute; the log names them too.
    """

    database: Database
    clock: Clock
    monotonic: Monotonic = time.monotonic
    burst_limit: Callable[[], float] = lambda: MAX_FAILURES
    counter: RefusalCounter = field(default_factory=RefusalCounter)
    detector: BurstDetector = field(default_factory=BurstDetector)
    max_events: int = MAX_EVENTS
    _bursts: list[Burst] = field(default_factory=list, init=False)  # to be stored
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def record(
        self,
        kind: SecurityEventKind,
        principal: str,
        *,
        address: str | None = None,
        code: str | None = None,
        subject: str | None = None,
        payload: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        """Records one event in a transaction of its own. Raises UnavailableError.

        A change records its event in its own transaction instead: SecurityEventRepository.append.
        """
        draft = SecurityDraft(
            kind,
            principal,
            self.clock(),
            address,
            code,
            subject,
            payload=payload or {},
            request_id=request_id,
        )

        async def append(unit: UnitOfWork) -> None:
            await unit.get(SecurityEventRepository).append(draft)

        await self.database.run(append)

    def note_refusal(self, principal: str, address: str | None, code: str | None) -> None:
        """Counts a request that was refused with 401, 403 or 429, or for want of four eyes."""
        self._count(SecurityEventKind.REFUSED, principal, address, code)

    def note_failure(self, principal: str, address: str | None, code: str) -> None:
        """Counts an invalid credential; `principal` is anonymous if it names no known caller."""
        self._count(SecurityEventKind.AUTHENTICATION_FAILED, principal, address, code)
        found = self.detector.add(address or UNKNOWN_ADDRESS, self.monotonic(), self.burst_limit())
        if found is not None:
            self._bursts.append(Burst(*found, self.clock()))
            self._wake.set()

    def _count(
        self, kind: SecurityEventKind, principal: str, address: str | None, code: str | None
    ) -> None:
        self.counter.add(Refusal(kind, principal, address, code), self.clock())

    async def follow(self, beat: Callable[[], None]) -> None:
        """Stores bursts at once, and counts when their minute is over, until cancelled."""
        while True:
            self._wake.clear()
            await self.store_bursts()
            await self.store_counts(self.clock())
            beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def store_bursts(self) -> None:
        """Stores new bursts and publishes them; a database that is away leaves them."""
        bursts, self._bursts = self._bursts, []
        if not bursts:
            return

        async def append(unit: UnitOfWork) -> None:
            await unit.get(SecurityEventRepository).append_bursts(*bursts)
            for one in bursts:
                unit.publish_after_commit(
                    AuthenticationBurst(one.subject, one.failures, one.occurred_at)
                )

        async def store() -> None:
            try:
                await self.database.run(append)
            except ServiceError as error:
                self._bursts = [*bursts, *self._bursts][-MAX_SUBJECTS:]
                _log.warning("bursts_not_stored", cause=error.code.value)

        for one in bursts:
            _log.warning("authentication_burst", subject=one.subject, failures=one.failures)
        await shield(store())

    async def store_counts(self, now: datetime | None = None) -> None:
        """Stores the counts of all minutes but the running one, without `now` of all minutes.

        A database that is away leaves them for the next call.
        """
        counts = self.counter.take(now)
        if not counts:
            return

        async def append(unit: UnitOfWork) -> None:
            await unit.get(SecurityEventRepository).append(*(count.draft() for count in counts))

        async def store() -> None:
            try:
                await self.database.run(append)
            except ServiceError as error:
                self.counter.put_back(counts)
                _log.warning("refusals_not_stored", cause=error.code.value)

        await shield(store())  # a stopping process must not count them twice

    async def delete_old(self, max_age: timedelta) -> int:
        """Deletes events older than `max_age` and beyond `max_events`; returns their number.

        The log warns of events that are deleted for their number before their age.
        """
        now, number = self.clock(), 0
        async with self.database.read() as unit:
            trimmed_at = await unit.get(SecurityEventRepository).trimmed_at()
        for _ in range(_DELETIONS):  # each of its own, since others wait for the chain meanwhile
            async with self.database.write(BULK_STATEMENT_S) as unit:
                repository = unit.get(SecurityEventRepository)
                deleted = await repository.delete_old(now - max_age, self.max_events, now)
            number += deleted
            if deleted < DELETED_AT_ONCE:
                break
        async with self.database.read() as unit:
            if await unit.get(SecurityEventRepository).trimmed_at() != trimmed_at:
                _log.warning("security_events_trimmed", deleted=number, most=self.max_events)
        return number


def create_audit_recorder(clock: Clock) -> RecordAudit:
    """Returns the recorder of audit notes, for the executor of commands."""

    async def record(
        unit: UnitOfWork, command: Command, note: AuditNote, details: Mapping[str, Any]
    ) -> None:
        named = {} if command.note is None else {"note": command.note}
        draft = SecurityDraft(
            SecurityEventKind(note.kind),
            command.actor,
            clock(),
            code=note.code,
            subject=note.subject,
            payload={**details, **named},
            request_id=command.request_id,
        )
        await unit.get(SecurityEventRepository).append(draft)

    return record
