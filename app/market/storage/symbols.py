"""Repository of present and former contracts, and of their specifications over time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import upsert
from app.market.domain.models import Contract, ContractKind, ContractStatus, LotChange
from app.market.storage.tables import contract_specs, contracts

# A change of one of these starts a new version of the specification.
SPECIFICATION: Final = (
    "is_inverse",
    "multiplier",
    "lot_size",
    "tick_size",
    "max_order_lots",
    "max_leverage",
    "initial_margin",
    "maintenance_margin",
    "maker_fee",
    "taker_fee",
    "funding_interval_ms",
)


@dataclass(frozen=True, slots=True)
class SymbolRecord:
    """Contract under its own id, as last received from the exchange."""

    id: str  # UUID text
    symbol: str  # standard name, unique among present contracts
    contract: Contract
    sector: str
    cap_category: str
    first_seen: datetime
    last_seen: datetime
    vanished_at: datetime | None
    paused_since: datetime | None = None  # first seen Paused or CancelOnly, while it still is
    lot_changes: tuple[LotChange, ...] = ()  # oldest first


@dataclass(frozen=True, slots=True)
class SpecificationVersion:
    """Contract as specified in [valid_from, valid_to); None: still valid."""

    valid_from: datetime
    valid_to: datetime | None
    contract: Contract


@dataclass(frozen=True, slots=True)
class SavedSymbols:
    """Standard names of added and changed contracts."""

    added: tuple[str, ...]
    specification_changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SymbolRepository:
    """Contracts and their specifications, by our own id."""

    connection: AsyncConnection

    async def all(self) -> tuple[SymbolRecord, ...]:
        """Returns all contracts, vanished ones included, by standard name."""
        records, changes = await self._records(), await self.lot_changes()
        return tuple(replace(one, lot_changes=changes.get(one.id, ())) for one in records)

    async def lot_changes(self) -> dict[str, tuple[LotChange, ...]]:
        """Returns multiplier changes by symbol id, oldest first; symbols without are absent."""
        statement = select(
            contract_specs.c.symbol_id, contract_specs.c.valid_from, contract_specs.c.multiplier
        ).order_by(contract_specs.c.symbol_id, contract_specs.c.valid_from)
        rows = (await self.connection.execute(statement)).all()
        changes: dict[str, tuple[LotChange, ...]] = {}
        for old, new in pairwise(rows):
            if old.symbol_id == new.symbol_id and old.multiplier != new.multiplier:
                change = LotChange(old.valid_from, new.valid_from, old.multiplier, new.multiplier)
                changes[new.symbol_id] = (*changes.get(new.symbol_id, ()), change)
        return changes

    async def get(self, symbol_id: str) -> SymbolRecord | None:
        return next(iter(await self._records(contracts.c.id == symbol_id)), None)

    async def save(self, records: Sequence[SymbolRecord], now: datetime) -> SavedSymbols:
        """Inserts or updates by id; a changed specification gets a new version from `now` on.

        Raises RefusedError symbol_ambiguous where two contracts would share a code or a name.
        """
        if not records:
            return SavedSymbols((), ())
        # Vanished contracts first: that releases their codes and names.
        ordered = sorted(records, key=lambda one: (one.vanished_at is None, one.symbol))
        known = {row.symbol_id: row for row in await self._open_specifications(records)}
        added = tuple(one for one in ordered if one.id not in known)
        changed = tuple(
            one
            for one in ordered
            if one.id in known and _specification(one.contract) != _specification(known[one.id])
        )
        statement = upsert(self.connection, contracts)
        await self.connection.execute(statement, [_symbol_row(one) for one in ordered])
        if changed:
            close = contract_specs.update().where(
                contract_specs.c.symbol_id == bindparam("of"), contract_specs.c.valid_to.is_(None)
            )
            await self.connection.execute(
                close.values(valid_to=now), [{"of": one.id} for one in changed]
            )
        if fresh := (*added, *changed):
            rows = [
                {"symbol_id": one.id, "valid_from": now, **_specification(one.contract)}
                for one in fresh
            ]
            await self.connection.execute(contract_specs.insert(), rows)
        return SavedSymbols(
            tuple(one.symbol for one in added), tuple(one.symbol for one in changed)
        )

    async def specifications(self, symbol_id: str) -> tuple[SpecificationVersion, ...]:
        """Returns all versions, oldest first."""
        statement = (
            select(contracts, contract_specs)
            .join(contract_specs, contract_specs.c.symbol_id == contracts.c.id)
            .where(contracts.c.id == symbol_id)
            .order_by(contract_specs.c.valid_from)
        )
        rows = await self.connection.execute(statement)
        return tuple(
            SpecificationVersion(row.valid_from, row.valid_to, _contract(row)) for row in rows
        )

    async def _open_specifications(self, records: Iterable[SymbolRecord]) -> Sequence[Row[Any]]:
        statement = select(contract_specs).where(
            contract_specs.c.valid_to.is_(None),
            contract_specs.c.symbol_id.in_([one.id for one in records]),
        )
        return (await self.connection.execute(statement)).all()

    async def _records(self, *where: ColumnElement[bool]) -> tuple[SymbolRecord, ...]:
        open_one = and_(
            contract_specs.c.symbol_id == contracts.c.id, contract_specs.c.valid_to.is_(None)
        )
        statement = (
            select(contracts, contract_specs)
            .join(contract_specs, open_one)
            .where(*where)
            .order_by(contracts.c.symbol, contracts.c.id)
        )
        rows = await self.connection.execute(statement)
        return tuple(
            SymbolRecord(
                id=row.id,
                symbol=row.symbol,
                contract=_contract(row),
                sector=row.sector,
                cap_category=row.cap_category,
                first_seen=row.first_seen,
                last_seen=row.last_seen,
                vanished_at=row.vanished_at,
                paused_since=row.paused_since,
            )
            for row in rows
        )


def _specification(source: Contract | Row[Any]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in SPECIFICATION}


def _symbol_row(record: SymbolRecord) -> dict[str, Any]:
    contract = record.contract
    return {
        "id": record.id,
        "code": contract.code,
        "symbol": record.symbol,
        "base": contract.base,
        "quote": contract.quote,
        "settle": contract.settle,
        "kind": contract.kind.value,
        "status": contract.status.value,
        "listed_ms": contract.listed_ms,
        "expires_ms": contract.expires_ms,
        "market_stage": contract.market_stage,
        "market_type": contract.market_type,
        "sector": record.sector,
        "cap_category": record.cap_category,
        "first_seen": record.first_seen,
        "last_seen": record.last_seen,
        "vanished_at": record.vanished_at,
        "paused_since": record.paused_since,
    }


def _contract(row: Row[Any]) -> Contract:
    return Contract(
        code=row.code,
        base=row.base,
        quote=row.quote,
        settle=row.settle,
        kind=ContractKind(row.kind),
        status=ContractStatus(row.status),
        listed_ms=row.listed_ms,
        expires_ms=row.expires_ms,
        market_stage=row.market_stage,
        market_type=row.market_type,
        **_specification(row),
    )
