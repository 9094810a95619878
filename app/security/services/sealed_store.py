"""Sealed secrets of the whole database: counts, check at the start, rotation of their keys."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.foundation.idempotency import Command
from app.foundation.ports import Clock
from app.foundation.sql.database import Database, UnitOfWork
from app.security.domain.audit import SecurityDraft, SecurityEventKind
from app.security.services.sealing import SecretSealer, sealing_key_missing
from app.security.storage.audit import SecurityEventRepository
from app.security.storage.sealed_columns import (
    BATCH,
    SealedColumnRepository,
    SealedColumns,
    SealedRow,
)

NOT_SEALED: Final = "not sealed"
UNKNOWN_KEY: Final = "unknown"


@dataclass(frozen=True, slots=True)
class SealedCount:
    """Number of secrets of one kind under one key; `key` is its id, or one of the words above."""

    kind: str
    key: str
    secrets: int


async def _continue(rows: int) -> None:
    del rows


@dataclass(frozen=True, slots=True)
class SealedStore:
    """All sealed columns of the database under one ring of keys."""

    database: Database
    sealer: SecretSealer
    columns: tuple[SealedColumns, ...]
    clock: Clock

    async def list(self) -> tuple[SealedCount, ...]:
        """Counts by kind and key, in the order of both. Raises SealingKeyError."""
        counts = Counter[tuple[str, str]]()
        async for sealed, rows in self._pages():
            for row in rows:
                counts.update((sealed.kind, self._key_of(text)) for text in row.texts.values())
        return tuple(SealedCount(kind, key, counts[kind, key]) for kind, key in sorted(counts))

    async def require_keys(self) -> None:
        """Raises SealingKeyError unless the known keys open every stored secret."""
        self.sealer.known()
        unreadable = {one.kind: one.secrets for one in await self.list() if one.key == UNKNOWN_KEY}
        if unreadable:
            counts = ", ".join(f"{number} of kind {kind}" for kind, number in unreadable.items())
            raise sealing_key_missing(
                f"The key that sealed stored secrets ({counts}) is missing or another one"
            )

    async def rotate(
        self,
        command: Command,
        batch: int = BATCH,
        after_batch: Callable[[int], Awaitable[None]] = _continue,
    ) -> int:
        """Seals every secret under the newest key; returns the number of changed rows.

        Each batch is one transaction with a security event; an interrupted rotation goes on where
        it ended. Raises SealingKeyError, before any change, unless all secrets can be opened, and
        ConflictError (secrets_key_missing) without a key.
        """
        await self.require_keys()
        return await self._change(command, "rotated", self._seal_anew, batch, after_batch)

    async def discard_unreadable(self, command: Command) -> int:
        """Empties every secret that no known key opens; returns the number of changed rows."""
        return await self._change(command, "discarded", self._empty_unreadable, BATCH, _continue)

    async def _change(
        self,
        command: Command,
        code: str,
        renew: Callable[[SealedRow], Mapping[str, str]],
        batch: int,
        after_batch: Callable[[int], Awaitable[None]],
    ) -> int:
        """Replaces what `renew` returns for each row; other writers of a batch wait for it."""
        changed = 0
        for sealed in self.columns:
            after: str | None = ""
            while after is not None:
                number, after = await self._change_batch(command, code, sealed, after, batch, renew)
                changed += number
                await after_batch(number)
        return changed

    async def _change_batch(
        self,
        command: Command,
        code: str,
        sealed: SealedColumns,
        after: str,
        batch: int,
        renew: Callable[[SealedRow], Mapping[str, str]],
    ) -> tuple[int, str | None]:
        """Number of changed rows, and the last id of a full batch."""

        async def change(unit: UnitOfWork) -> tuple[int, str | None]:
            repository = unit.get(SealedColumnRepository)
            rows = await repository.page(sealed, after, batch, lock=True)
            renewed = {row.id: texts for row in rows if (texts := renew(row))}
            for row_id, texts in renewed.items():
                await repository.replace(sealed, row_id, texts)
            if renewed:
                number = sum(len(texts) for texts in renewed.values())
                await unit.get(SecurityEventRepository).append(
                    SecurityDraft(
                        SecurityEventKind.SECRETS_CHANGED,
                        command.actor,
                        self.clock(),
                        code=code,
                        subject=sealed.kind,
                        payload={"secrets": number, "rows": len(renewed)},
                        request_id=command.request_id,
                    )
                )
            return len(renewed), rows[-1].id if len(rows) == batch else None

        return await self.database.run(change)

    def _seal_anew(self, row: SealedRow) -> Mapping[str, str]:
        keys = self.sealer.known()
        newest = keys[0].id if keys else None
        return {
            name: self.sealer.seal(self.sealer.open(text))
            for name, text in row.texts.items()
            if self._key_of(text) != newest
        }

    def _empty_unreadable(self, row: SealedRow) -> Mapping[str, str]:
        return {name: "" for name, text in row.texts.items() if self._key_of(text) == UNKNOWN_KEY}

    def _key_of(self, text: str) -> str:
        if not self.sealer.is_sealed(text):
            return NOT_SEALED
        key = self.sealer.find_key(text)
        return UNKNOWN_KEY if key is None else key.id

    async def _pages(self) -> AsyncIterator[tuple[SealedColumns, tuple[SealedRow, ...]]]:
        """All rows in batches; each is read in a transaction of its own."""
        for sealed in self.columns:
            after: str | None = ""
            while after is not None:
                async with self.database.read() as unit:
                    rows = await unit.get(SealedColumnRepository).page(sealed, after)
                yield sealed, rows
                after = rows[-1].id if len(rows) == BATCH else None
