"""Append-only portfolio history, written in the transaction of each change."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Text, cast, func, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.hash_chain import ChainTable
from app.portfolio.domain.event_log import (
    MOVES,
    WEIGHS,
    Draft,
    EventOrigin,
    EventType,
    PortfolioEvent,
    unsealed_events,
)
from app.portfolio.storage.tables import MOVED, PORTFOLIO_ID
from app.portfolio.storage.tables import portfolio_history as table

# Identical to the condition of the index, so that both databases use it.
_MOVED: Final = text(MOVED)
_WEIGHINGS: Final = tuple(sorted(kind.value for kind in WEIGHS))
# In the order of an event's fields: positional access to fifty rows is faster than by name.
_FIELDS: Final = tuple(table.c[name] for name in PortfolioEvent.__slots__)
_EVENTS: Final = select(*_FIELDS)
_LAST: Final = (
    _EVENTS.where(table.c.aggregate == PORTFOLIO_ID).order_by(table.c.seq.desc()).limit(1)
)
_WEIGHING: Final = (
    _EVENTS.where(table.c.aggregate == PORTFOLIO_ID, _MOVED, table.c.type.in_(_WEIGHINGS))
    .order_by(table.c.seq.desc())
    .limit(1)
)
HEAD: Final = "history_head"  # fact of the newest event, stored apart from the events


@dataclass(frozen=True, slots=True)
class HistoryRepository:
    """Stores events by a sequence number without gaps."""

    connection: AsyncConnection

    async def input_hashes(self, since: datetime) -> frozenset[str]:
        """Input hashes of the boards behind events since then."""
        wanted = (
            select(table.c.input_hash)
            .where(table.c.occurred_at >= since, table.c.input_hash.is_not(None))
            .distinct()
        )
        return frozenset(await self.connection.scalars(wanted))

    async def append(
        self, drafts: Iterable[Draft], stamp: EventOrigin
    ) -> tuple[PortfolioEvent, ...]:
        """Append the drafts as the next events, with number and hash.

        Call it after `portfolio.load(for_update=True)`, whose lock keeps the numbers without
        gaps. Raises ConflictError(version_conflict) if another transaction was first.
        Raises UnavailableError(history_tampered) if the newest event differs from the stored head.
        """
        return await _CHAIN.append(self.connection, unsealed_events(drafts, stamp))

    async def last_weighting(self, until: datetime | None = None) -> PortfolioEvent | None:
        """Event that set the recorded weights, now or at `until`; None before the first."""
        wanted = _WEIGHING
        if until is not None:
            wanted = wanted.where(table.c.occurred_at <= until)
        row = (await self.connection.execute(wanted)).first()
        return None if row is None else _event(row)

    async def last_rebalance(self) -> datetime | None:
        """Time at which a rebalance last set weights."""
        wanted = (
            select(table.c.occurred_at)
            .where(table.c.aggregate == PORTFOLIO_ID, table.c.type == EventType.REBALANCE.value)
            .order_by(table.c.seq.desc())
            .limit(1)
        )
        found: datetime | None = (await self.connection.execute(wanted)).scalar()
        return found

    async def page(
        self,
        before_seq: int | None,
        limit: int,
        *,
        symbol: str | None = None,
        kind: EventType | None = None,
    ) -> tuple[PortfolioEvent, ...]:
        """Events before `before_seq`, newest first; optionally of one symbol or kind."""
        wanted = self._all().order_by(table.c.seq.desc()).limit(limit)
        if before_seq is not None:
            wanted = wanted.where(table.c.seq < before_seq)
        if symbol is not None:
            wanted = wanted.where(or_(table.c.symbol == symbol, table.c.other_symbol == symbol))
        if kind is not None:
            wanted = wanted.where(table.c.type == kind.value)
        return tuple(_event(row) for row in await self.connection.execute(wanted))

    async def page_by_time(
        self,
        before: tuple[datetime, int] | None,
        limit: int,
        *,
        actor: str | None = None,
        kind: EventType | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[PortfolioEvent, ...]:
        """Events before a time and number, newest first; `since` included, `until` not."""
        wanted = self._all().order_by(table.c.occurred_at.desc(), table.c.seq.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(tuple_(table.c.occurred_at, table.c.seq) < before)
        if actor is not None:
            wanted = wanted.where(table.c.actor == actor)
        if kind is not None:
            wanted = wanted.where(table.c.type == kind.value)
        if since is not None:
            wanted = wanted.where(table.c.occurred_at >= since)
        if until is not None:
            wanted = wanted.where(table.c.occurred_at < until)
        return tuple(_event(row) for row in await self.connection.execute(wanted))

    async def configuration_changes(
        self, times: Iterable[datetime]
    ) -> Mapping[int, PortfolioEvent]:
        """Events of new settings at these times, by the version of the settings."""
        wanted = self._all().where(
            table.c.occurred_at.in_(tuple(times)), table.c.type == EventType.CONFIG.value
        )
        found = (_event(row) for row in await self.connection.execute(wanted))
        return {event.configuration_version: event for event in found}

    async def weightings(self, field: str) -> tuple[tuple[datetime, int, Any], ...]:
        """Time, version and one payload field of every weighing, oldest first."""
        wanted = (
            select(
                table.c.occurred_at,
                _in_payload(self.connection, "version"),
                _in_payload(self.connection, field),
            )
            .where(table.c.aggregate == PORTFOLIO_ID, _MOVED, table.c.type.in_(_WEIGHINGS))
            .order_by(table.c.seq)
        )
        rows = await self.connection.execute(wanted)
        return tuple(
            (at, json.loads(version), None if value is None else json.loads(value))
            for at, version, value in rows
        )

    async def first_move_at(self) -> datetime | None:
        """Time of the first change of members or weights; None without one."""
        first = select(table.c.occurred_at).where(table.c.aggregate == PORTFOLIO_ID, _MOVED)
        found = await self.connection.execute(first.order_by(table.c.seq).limit(1))
        return found.scalar_one_or_none()

    async def moves(
        self,
        *,
        weighing: PortfolioEvent | None = None,
        since: datetime | None = None,
        without: frozenset[EventType] = frozenset(),
    ) -> tuple[PortfolioEvent, ...]:
        """Events that changed members or weights, oldest first, except the kinds `without`.

        With `weighing` the events begin after the weighing before it, because some of them belong
        to its version.
        """
        wanted = self._all().where(_MOVED)
        if weighing is not None:
            wanted = wanted.where(table.c.seq > _weighing_where(table.c.seq < weighing.seq))
        if without:
            kinds = sorted(kind.value for kind in MOVES - without)
            wanted = wanted.where(table.c.type.in_(kinds))
        if since is not None:
            # The index covers numbers but not times.
            earlier = _weighing_where(table.c.occurred_at < since)
            wanted = wanted.where(table.c.seq > earlier, table.c.occurred_at >= since)
        rows = await self.connection.execute(wanted.order_by(table.c.seq))
        return tuple(_event(row) for row in rows)

    async def all(self, after_seq: int = 0) -> tuple[PortfolioEvent, ...]:
        """Events after `after_seq`, oldest first."""
        wanted = self._all().where(table.c.seq > after_seq).order_by(table.c.seq)
        return tuple(_event(row) for row in await self.connection.execute(wanted))

    @staticmethod
    def _all() -> Any:
        return _EVENTS.where(table.c.aggregate == PORTFOLIO_ID)


def _in_payload(connection: AsyncConnection, field: str) -> ColumnElement[str]:
    """Payload field as JSON text, extracted by the database."""
    if connection.dialect.name == "sqlite":
        return cast(func.json_extract(table.c.payload, f"$.{field}"), Text)
    return cast(cast(cast(table.c.payload, Text), JSONB)[field], Text)


def _weighing_where(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Number of the last weighing that meets the condition; 0 without one."""
    weighings = select(table.c.seq).where(
        table.c.aggregate == PORTFOLIO_ID, _MOVED, table.c.type.in_(_WEIGHINGS), condition
    )
    last = weighings.order_by(table.c.seq.desc()).limit(1)
    return func.coalesce(last.scalar_subquery(), 0)


def _row(event: PortfolioEvent) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in PortfolioEvent.__slots__}
    return {
        **row,
        "aggregate": PORTFOLIO_ID,
        "type": event.type.value,
        "payload": {**event.payload},
    }


def _event(row: Row[Any]) -> PortfolioEvent:
    seq, kind, *rest = row[: len(_FIELDS)]
    return PortfolioEvent(seq, EventType(kind), *rest)


_CHAIN: Final = ChainTable(table, _LAST, HEAD, _row, _event, "history")
