"""Track records of agents and sources: sums that grow with each outcome that counts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sqlalchemy import or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import insert
from app.signals.domain.track_record import Bin, Kind, Record, SourceKey
from app.signals.storage.signal_outcome_tables import signal_records as table

_NONE: Final[Mapping[SourceKey, Record]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SignalRecordRepository:
    connection: AsyncConnection

    async def of(
        self, sources: Collection[SourceKey] | None
    ) -> tuple[dict[str, Record], dict[SourceKey, Record]]:
        """Records of all agents, and of these sources (None: of all).

        An agent or source without an outcome is left out.
        """
        wanted = select(table)
        if sources is not None:
            named = tuple_(table.c.name, table.c.type).in_([*sources])
            wanted = wanted.where(or_(table.c.kind == Kind.AGENT.value, named))
        found: dict[tuple[str, str, str], list[Bin]] = {}
        order = (table.c.kind, table.c.name, table.c.type, table.c.bin)
        for row in await self.connection.execute(wanted.order_by(*order)):
            one = Bin(row.bin, row.outcomes, row.said, row.came, row.squares)
            found.setdefault((row.kind, row.name, row.type), []).append(one)
        agents: dict[str, Record] = {}
        known: dict[SourceKey, Record] = {}
        for (kind, name, type_), bins in found.items():
            if kind == Kind.AGENT.value:
                agents[name] = Record(tuple(bins))
            else:
                known[name, type_] = Record(tuple(bins))
        return agents, known

    async def add(
        self, agents: Mapping[str, Record], sources: Mapping[SourceKey, Record] = _NONE
    ) -> None:
        """Adds new outcomes to those that are there."""
        gathered = [
            *((Kind.AGENT, name, "", record) for name, record in sorted(agents.items())),
            *((Kind.SOURCE, *key, record) for key, record in sorted(sources.items())),
        ]
        rows = [
            {
                "kind": kind.value,
                "name": name,
                "type": type_,
                "bin": one.number,
                "outcomes": one.outcomes,
                "said": one.said,
                "came": one.came,
                "squares": one.squares,
            }
            for kind, name, type_, record in gathered
            for one in record.bins
        ]
        if not rows:
            return
        new = insert(self.connection, table)
        grown = {
            name: table.c[name] + new.excluded[name]
            for name in ("outcomes", "said", "came", "squares")
        }
        keys = ["kind", "name", "type", "bin"]
        await self.connection.execute(
            new.on_conflict_do_update(index_elements=keys, set_=grown), rows
        )
