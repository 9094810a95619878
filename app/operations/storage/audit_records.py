"""Compares what is stored beside the portfolio with the events: results, settings and controls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Text, select, type_coerce
from sqlalchemy import inspect as sqlalchemy_inspect
from sqlalchemy.ext.asyncio import AsyncConnection

from app.container.tables import system_configuration, trades
from app.foundation.sql.facts import FactRepository
from app.operations.domain.audit_records import (
    Beside,
    Told,
    controls_amiss,
    results_amiss,
    settings_amiss,
    told,
)
from app.operations.domain.history_audit import Break
from app.portfolio.domain.event_log import PortfolioEvent
from app.portfolio.domain.returns import BookedResult
from app.portfolio.storage.controls import LOCKS, SWITCH

# Of a number, a time or a document that is none any more.
_UNREADABLE: Final = (ValueError, TypeError, LookupError, ArithmeticError)


@dataclass(slots=True)
class Comparison:
    """Goes along the history, whose events so far hold; `breaks` are what is stored otherwise."""

    connection: AsyncConnection
    has_results: bool
    breaks: list[Break] = field(default_factory=list)
    _said: Told = field(default_factory=Told)
    _stored: Beside | None = None

    @classmethod
    async def begun(cls, connection: AsyncConnection) -> "Comparison":
        """A schema from before results were booked has no table of them."""
        has_results = await connection.run_sync(
            lambda sync: sqlalchemy_inspect(sync).has_table(trades.name)
        )
        made = cls(connection, has_results)
        try:
            made._stored = await _beside(connection)
        except _UNREADABLE:
            made.breaks.append(Break(1, "settings, switch or locks cannot be read"))
        return made

    async def follow(self, events: Sequence[PortfolioEvent]) -> None:
        """Further events, in the order of their numbers."""
        await self._results(events, max((event.seq for event in events), default=None))
        if self._stored is not None:
            self.breaks += settings_amiss(events, self._stored)
        self._said = told(self._said, events)

    async def conclude(self) -> tuple[Break, ...]:
        """All breaks, once the last event was followed."""
        await self._results((), None)
        if self._stored is not None:
            self.breaks += controls_amiss(self._said, self._stored)
        return tuple(self.breaks)

    async def _results(self, events: Sequence[PortfolioEvent], upto: int | None) -> None:
        """Those of the events, and that there are no others up to `upto`; None: none at all."""
        try:
            stored = await self._booked(upto) if self.has_results else {}
            self.breaks += results_amiss(events, stored)
        except _UNREADABLE:
            self.breaks.append(Break(self._said.newest + 1, "a booked result cannot be read"))

    async def _booked(self, upto: int | None) -> dict[int, BookedResult]:
        fields = [trades.c[name] for name in BookedResult.__slots__]
        wanted = select(trades.c.event_seq, *fields).where(trades.c.event_seq > self._said.newest)
        if upto is not None:
            wanted = wanted.where(trades.c.event_seq <= upto)
        rows = (await self.connection.execute(wanted)).all()
        return {seq: BookedResult(*rest) for seq, *rest in rows}


async def _beside(connection: AsyncConnection) -> Beside:
    body = type_coerce(system_configuration.c.body, Text).label("body")
    rows = (await connection.execute(select(system_configuration.c.version, body))).all()
    facts = await FactRepository(connection).several(SWITCH, LOCKS)
    switch: Any = facts.get(SWITCH) or {"enabled": True}
    locks: Any = facts.get(LOCKS) or {}
    return Beside(
        settings={row.version: json.loads(row.body) for row in rows},
        is_enabled=switch["enabled"],
        locks=dict(locks),
    )
