"""Log of trials: rows are only added."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    PrimaryKeyConstraint,
    Row,
    String,
    Table,
    Text,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.schema import FiniteFloat, JsonText, UtcInstant, metadata
from app.foundation.sql.statements import insert
from app.research.domain.trials import Trial

trials = Table(
    "trials",
    metadata,
    Column("id", String(36), nullable=False),
    Column("ran_at", UtcInstant, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("history", Text, nullable=False),
    Column("data_hash", String(64), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("parameters", JsonText, nullable=False),
    Column("sharpe", FiniteFloat),
    Column("result", JsonText, nullable=False),
    PrimaryKeyConstraint("id"),
    CheckConstraint("kind IN ('backtest')", name="kind_known"),
    Index("ix_trials_ran_at", "ran_at", "id"),
)


@dataclass(frozen=True, slots=True)
class TrialRepository:
    """Trials; the table refuses changes and deletions."""

    connection: AsyncConnection

    async def add(self, trial: Trial) -> None:
        await self.connection.execute(
            trials.insert(), {column.name: getattr(trial, column.name) for column in trials.columns}
        )

    async def add_once(self, trial: Trial) -> None:
        """Adds the trial unless one with its id exists."""
        values = {column.name: getattr(trial, column.name) for column in trials.columns}
        statement = insert(self.connection, trials).on_conflict_do_nothing()
        await self.connection.execute(statement, values)

    async def find(self, trial_id: str) -> Trial | None:
        """Returns the trial with exactly this id; None without one."""
        found = await self.connection.execute(select(trials).where(trials.c.id == trial_id))
        row = found.first()
        return None if row is None else _trial(row)

    async def all(self) -> tuple[Trial, ...]:
        """Returns all trials, the oldest first."""
        rows = await self.connection.execute(select(trials).order_by(trials.c.ran_at, trials.c.id))
        return tuple(_trial(row) for row in rows)

    async def get(self, trial_id: str) -> Trial:
        """Returns the trial whose id begins with `trial_id`.

        Raises NotFoundError for none or several.
        """
        found = [one for one in await self.all() if one.id.startswith(trial_id)]
        if len(found) != 1:
            count = "no trial" if not found else f"{len(found)} trials"
            raise NotFoundError(Code.NOT_FOUND, f"{count} with an id that begins so")
        return found[0]


def _trial(row: Row[Any]) -> Trial:
    return Trial(**dict(zip(trials.columns.keys(), row, strict=True)))
