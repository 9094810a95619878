"""What became of approved signals: one row for each, written with the effect itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.domain.policy import Policy
from app.signals.domain.models import SignalState
from app.signals.domain.signal_effect import Effect, Move, Step
from app.signals.storage.tables import signal_effects as table
from app.signals.storage.tables import signals


@dataclass(frozen=True, slots=True)
class SignalEffectRepository:
    """Written only under the portfolio's lock: so nobody acts on a signal twice."""

    connection: AsyncConnection

    async def waiting(self, now: datetime, limit: int) -> tuple[str, ...]:
        """Approved signals in their time that nothing has been decided about, by id."""
        known = select(table.c.signal_id).where(table.c.signal_id == signals.c.signal_id)
        wanted = (
            select(signals.c.signal_id)
            .where(signals.c.state == SignalState.APPROVED.value, signals.c.expires_at > now)
            .where(~known.exists())
            .order_by(signals.c.settled_at, signals.c.signal_id)
            .limit(limit)
        )
        return tuple(row.signal_id for row in await self.connection.execute(wanted))

    async def of(self, signal_ids: Iterable[str]) -> dict[str, Effect]:
        """By signal; those without an effect are left out."""
        wanted = select(table).where(table.c.signal_id.in_([*signal_ids]))
        return {row.signal_id: _effect(row) for row in await self.connection.execute(wanted)}

    async def add(self, effect: Effect) -> None:
        step = effect.step
        row = {
            "signal_id": effect.signal_id,
            "policy": effect.policy.value,
            "move": None if step is None else step.move.value,
            "symbol": None if step is None else step.symbol,
            "old_symbol": None if step is None else step.old_symbol,
            "note": effect.note,
            "at": effect.at,
            "proposal_id": effect.proposal_id,
            "version": effect.version,
        }
        await self.connection.execute(table.insert(), row)

    async def carried_out(self, signal_id: str, version: int) -> None:
        """Its proposal was approved and made this version of the portfolio."""
        await self.connection.execute(
            table.update().where(table.c.signal_id == signal_id).values(version=version)
        )


def _effect(row: Row[Any]) -> Effect:
    step = None if row.move is None else Step(Move(row.move), row.symbol, row.old_symbol)
    return Effect(
        signal_id=row.signal_id,
        policy=Policy(row.policy),
        step=step,
        note=row.note,
        at=row.at,
        proposal_id=row.proposal_id,
        version=row.version,
    )
