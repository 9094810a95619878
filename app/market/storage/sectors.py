"""Repository of edited classifications of base coins."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.key_value import KeyValueRepository
from app.foundation.sql.statements import upsert
from app.market.domain.sectors import AssetClass, CapCategory, Classification
from app.market.storage.tables import contracts, sectors

_VERSION: Final = "sectors_version"  # key of the number of changes


@dataclass(frozen=True, slots=True)
class SectorRepository:
    """Edited classifications by base coin, and their version, which counts the changes."""

    connection: AsyncConnection

    async def version(self) -> int:
        """Returns the version; 0 before the first change."""
        return int(await KeyValueRepository(self.connection).get(_VERSION) or 0)

    async def lock_version(self) -> int:
        """Returns the version, locked until the transaction ends, so that changes take turns."""
        return int(await KeyValueRepository(self.connection).get_locked(_VERSION, 0))

    async def edits(self) -> dict[str, Classification]:
        """Returns the edited classifications."""
        rows = await self.connection.execute(select(sectors).order_by(sectors.c.base))
        return {
            row.base: Classification(
                AssetClass(row.asset_class), row.sector, CapCategory(row.cap_category)
            )
            for row in rows
        }

    async def save(
        self,
        version: int,
        edits: Mapping[str, Classification | None],
        shown: Mapping[str, Classification],
        at: datetime,
        by: str,
    ) -> None:
        """Stores edits, None deleting one, and the `shown` sectors of the contracts."""
        gone = [base for base, one in edits.items() if one is None]
        if gone:
            await self.connection.execute(sectors.delete().where(sectors.c.base.in_(gone)))
        rows = [
            {"base": base, **_columns(one), "changed_at": at, "changed_by": by}
            for base, one in edits.items()
            if one is not None
        ]
        if rows:
            await self.connection.execute(upsert(self.connection, sectors), rows)
        statement = (
            contracts.update()
            .where(contracts.c.base == bindparam("of"))
            .values(sector=bindparam("to_sector"), cap_category=bindparam("to_cap"))
        )
        changed = [
            {"of": base, "to_sector": one.sector, "to_cap": one.cap_category.value}
            for base, one in shown.items()
        ]
        if changed:
            await self.connection.execute(statement, changed)
        await KeyValueRepository(self.connection).put(_VERSION, version)


def _columns(one: Classification) -> dict[str, str]:
    return {
        "asset_class": one.asset_class.value,
        "sector": one.sector,
        "cap_category": one.cap_category.value,
    }
