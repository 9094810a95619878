"""Track records of agents and sources: sums that grow with each outcome that counts."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.track_record import Bin, Kind, Record
from app.storage.signal_outcome_tables import signal_records as table
from app.storage.upsert import insert


@dataclass(frozen=True, slots=True)
class SignalRecordRepository:
    connection: AsyncConnection

    async def all(self, kind: Kind) -> dict[str, Record]:
        """By name; who has no outcome yet is left out."""
        wanted = select(table).where(table.c.kind == kind.value)
        found: dict[str, list[Bin]] = {}
        for row in await self.connection.execute(wanted.order_by(table.c.name, table.c.bin)):
            one = Bin(row.bin, row.outcomes, row.said, row.came, row.squares)
            found.setdefault(row.name, []).append(one)
        return {name: Record(tuple(bins)) for name, bins in found.items()}

    async def add(self, kind: Kind, gathered: Mapping[str, Record]) -> None:
        """Adds new outcomes to those that are there."""
        rows = [
            {
                "kind": kind.value,
                "name": name,
                "bin": one.number,
                "outcomes": one.outcomes,
                "said": one.said,
                "came": one.came,
                "squares": one.squares,
            }
            for name, record in sorted(gathered.items())
            for one in record.bins
        ]
        if not rows:
            return
        new = insert(self.connection, table)
        grown = {
            name: table.c[name] + new.excluded[name]
            for name in ("outcomes", "said", "came", "squares")
        }
        keys = ["kind", "name", "bin"]
        await self.connection.execute(
            new.on_conflict_do_update(index_elements=keys, set_=grown), rows
        )
