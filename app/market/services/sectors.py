"""Sector table: shipped defaults with edits from the database, in force in every process."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from app.foundation.errors import Code, NotFoundError, RefusedError, UnavailableError
from app.foundation.events import EventCodec, EventRecord, EventTopic
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.events import EVENTS, SectorsChanged
from app.market.domain.sectors import (
    AssetClass,
    CapCategory,
    Classification,
    SectorChange,
    SectorTable,
    check_base,
    check_sector,
    parse_sectors,
    render_sectors,
)
from app.market.services.symbol_registry import Registry
from app.market.storage.sectors import SectorRepository
from app.security.domain.audit import SecurityEventKind

_CODEC: Final = EventCodec(EVENTS)
_AUDITED: Final = 200  # changes in one entry of the audit log; the event has all of them
Edits = Mapping[str, Classification]
_log = structlog.get_logger("sectors")


@dataclass(frozen=True, slots=True)
class SectorRow:
    """Classification of one base coin; `symbols` are the known contracts of the coin."""

    base: str
    classification: Classification
    is_edited: bool
    is_known: bool  # by the table; else the coin is unclassified
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SectorEdit:
    """Requested change of one classification; None keeps a part."""

    sector: str
    asset_class: AssetClass | None = None
    cap_category: CapCategory | None = None


@dataclass(frozen=True, slots=True)
class SectorUpdate:
    """Result of a change: the version of the table, and the coins that changed."""

    version: int
    changes: tuple[SectorChange, ...]


@dataclass(slots=True)
class SectorService:
    """Reads and edits the sector table; decisions read `registry.sectors`.

    A change is in force in this process when its request is answered, and in the others as soon as
    they read its event.
    """

    registry: Registry
    database: Database
    idempotency: IdempotentExecutor
    defaults: SectorTable
    version: int = field(default=0, init=False)
    _edits: Mapping[str, Classification] = field(default_factory=dict, init=False)

    async def load(self) -> None:
        """Loads the stored edits, even older ones: a failover may have lost a change."""
        before = self._edits
        async with self.database.read() as unit:
            repository = unit.get(SectorRepository)
            version, edits = await repository.version(), await repository.edits()
        if self._edits is before or version > self.version:  # unchanged meanwhile, or newer
            self._apply(version, edits)

    def on_record(self, record: EventRecord) -> None:
        """Applies a change committed by any process."""
        if record.topic is EventTopic.CONFIGURATION:
            event = _CODEC.try_decode(record)
            if isinstance(event, SectorsChanged):
                self.on_event(event)

    def on_event(self, event: SectorsChanged) -> None:
        """Applies the next version; a version that is already in force changes nothing."""
        if event.version == self.version + 1:
            changed = {one.base: one.after for one in event.changes}
            self._apply(event.version, SectorTable(self._edits).with_changes(changed).rows)
        elif event.version > self.version:
            _log.error("sector_version_missed", known=self.version, version=event.version)

    def _apply(self, version: int, edits: Mapping[str, Classification]) -> None:
        self.version, self._edits = version, edits
        self.registry.sectors = self.defaults.with_changes(edits)

    def rows(self) -> tuple[SectorRow, ...]:
        """Returns all classified coins and all unclassified ones of known contracts, by base."""
        table, symbols = self.registry.sectors, dict[str, list[str]]()
        for entry in self.registry.index.entries:
            symbols.setdefault(entry.contract.base, []).append(entry.symbol)
        return tuple(
            SectorRow(
                base=base,
                classification=table.classify(base),
                is_edited=base in self._edits,
                is_known=base in table.rows,
                symbols=tuple(sorted(symbols.get(base, ()))),
            )
            for base in sorted({*table.rows, *symbols})
        )

    def export(self) -> str:
        """Returns the table in force as CSV, by base; `import_table` reads it."""
        return render_sectors(sorted(self.registry.sectors.rows.items()))

    async def set_sector(
        self,
        base: str,
        edit: SectorEdit,
        reason: str,
        command: Command,
        render: Render[SectorUpdate] | None = None,
    ) -> CommandResult[SectorUpdate]:
        """Changes the classification of one base coin. Raises RefusedError for a wrong word."""
        try:
            check_base(base)
            check_sector(edit.sector)
        except ValueError as error:
            raise _refused(error) from error

        def wanted(table: SectorTable, edits: Edits) -> dict[str, Classification | None]:
            del edits
            present = table.classify(base)
            return {
                base: Classification(
                    edit.asset_class or present.asset_class,
                    edit.sector,
                    edit.cap_category or present.cap_category,
                )
            }

        return await self._change(base, "set", wanted, reason, command, render)

    async def reset(
        self,
        base: str,
        reason: str,
        command: Command,
        render: Render[SectorUpdate] | None = None,
    ) -> CommandResult[SectorUpdate]:
        """Returns a base coin to its default. Raises NotFoundError for one that is not edited."""

        def wanted(table: SectorTable, edits: Edits) -> dict[str, Classification | None]:
            del table, edits
            return {base: None}

        return await self._change(base, "reset", wanted, reason, command, render)

    async def import_table(
        self,
        text: str,
        reason: str,
        command: Command,
        render: Render[SectorUpdate] | None = None,
        *,
        resets_missing: bool = False,
    ) -> CommandResult[SectorUpdate]:
        """Changes all coins of a CSV table in one version; equal rows change nothing.

        `resets_missing` returns edited coins that the table lacks to their defaults. Raises
        RefusedError naming the line of a wrong one: nothing of the table is applied then.
        """
        try:
            rows = parse_sectors(text).rows
        except ValueError as error:
            raise _refused(error) from error

        def wanted(table: SectorTable, edits: Edits) -> dict[str, Classification | None]:
            del table
            gone = dict.fromkeys(edits.keys() - rows.keys()) if resets_missing else {}
            return {**rows, **gone}

        return await self._change("table", "imported", wanted, reason, command, render)

    async def _change(
        self,
        subject: str,
        code: str,
        wanted: Callable[[SectorTable, Edits], Mapping[str, Classification | None]],
        reason: str,
        command: Command,
        render: Render[SectorUpdate] | None,
    ) -> CommandResult[SectorUpdate]:
        async def change(unit: UnitOfWork) -> SectorUpdate:
            repository = unit.get(SectorRepository)
            version, edits = await repository.lock_version(), await repository.edits()
            table, at = self.defaults.with_changes(edits), await self.idempotency.now(unit)
            if code == "reset" and subject not in edits:
                raise NotFoundError(Code.NOT_FOUND, "This coin has its default classification.")
            changes = tuple(
                SectorChange(base, table.classify(base), one)
                for base, one in sorted(wanted(table, edits).items())
                if (base in edits if one is None else table.rows.get(base) != one)
            )
            if not changes:
                return SectorUpdate(version, ())
            stored = {one.base: one.after for one in changes}
            after = self.defaults.with_changes(SectorTable(edits).with_changes(stored).rows)
            await repository.save(
                version + 1,
                stored,
                {base: after.classify(base) for base in stored},
                at,
                command.author,
            )
            unit.publish_after_commit(
                SectorsChanged(version + 1, changes, reason, command.author, at)
            )
            return SectorUpdate(version + 1, changes)

        audited = command.audited(
            SecurityEventKind.SECTORS_CHANGED,
            code,
            subject,
            lambda done: _details(done, reason),
        )
        done = await self.idempotency.run(audited, change, render)
        if not done.is_replay:
            with suppress(UnavailableError):  # the event brings the change then
                await self.load()
        return done


def _details(done: SectorUpdate, reason: str) -> Mapping[str, Any]:
    return {
        "version": done.version,
        "reason": reason,
        "changed": len(done.changes),
        "changes": [
            {"base": one.base, "before": _text(one.before), "after": _text(one.after)}
            for one in done.changes[:_AUDITED]
        ],
    }


def _text(one: Classification | None) -> str | None:
    if one is None:
        return None
    return f"{one.asset_class.value},{one.sector},{one.cap_category.value}"


def _refused(error: ValueError) -> RefusedError:
    return RefusedError(Code.VALIDATION_FAILED, f"{str(error)[:1].upper()}{str(error)[1:]}.")
