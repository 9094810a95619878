"""Stored rebalance runs: one active claim at a time, closed once, listed."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.statements import insert
from app.portfolio.domain.rebalance_plan import Trigger, WeightChange
from app.portfolio.domain.rebalance_run import (
    ACTIVE,
    RebalanceOutcome,
    RebalanceRun,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunFailure,
    RunState,
)
from app.portfolio.storage.tables import PORTFOLIO_ID
from app.portfolio.storage.tables import rebalance_run_steps as steps_table
from app.portfolio.storage.tables import rebalance_runs as table

_TRIES: Final = 5  # one fails only if another run ended at the same moment
_ACTIVE: Final = tuple(sorted(ACTIVE))
_IN_VAIN: Final = (
    RunState.FAILED,
    RunState.ABORTED_STALE,
    RunState.ABORTED_KILLED,
    RunState.ABORTED_EXPIRED,
)
# Columns written only when the run is claimed.
_GIVEN: Final = (
    "run_id", "reason", "method", "scheduled_at", "actor", "request_id", "key", "owner",
    "requested_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RebalanceRunRepository:
    """Stores the runs of the portfolio."""

    connection: AsyncConnection

    async def claim(self, run: RebalanceRun, now: datetime) -> RebalanceRun:
        """Make `run` the active one and return it, else the active run or that of the same tick.

        An active run with an expired lease is closed first. Call it in a separate transaction, so
        that other processes see the claim.
        """
        for _ in range(_TRIES):
            new = insert(self.connection, table).on_conflict_do_nothing()
            if (await self.connection.execute(new, _row(run))).rowcount == 1:
                return run
            present = await self.active()
            if present is not None and present.has_lapsed(now):
                await self.close(present.expired(now), ())
            elif present is not None:
                return present
            elif (same := await self._of_tick(run.scheduled_at)) is not None:
                return same
        raise UnavailableError(
            Code.DATABASE_CONTENTION, "the database is busy with other changes", retry_after_s=1
        )

    async def active(self) -> RebalanceRun | None:
        wanted = _select().where(table.c.state.in_(_ACTIVE))
        return await self._one(wanted)

    async def take_over(self, run: RebalanceRun) -> bool:
        """Store the new owner of `run`; False if it has advanced or ended meanwhile."""
        taken = await self.connection.execute(
            table.update()
            .where(table.c.run_id == run.run_id, table.c.state == RunState.PLANNED.value)
            .values(owner=run.owner, lease_until=run.lease_until)
        )
        return taken.rowcount == 1

    async def start(self, run: RebalanceRun) -> bool:
        """Mark the claimed `run` as running; False if another process took over."""
        return await self._move(run, (RunState.PLANNED,))

    async def close(self, run: RebalanceRun, steps: Iterable[RebalanceStep]) -> bool:
        """Store the end of `run` and its steps; False without a write if it had ended."""
        if not await self._move(run, _ACTIVE):
            return False
        rows = [
            {
                "run_id": run.run_id,
                "position": position,
                "name": step.name.value,
                "state": step.state.value,
                "started_at": step.started_at,
                "finished_at": step.finished_at,
                "detail": dict(step.detail),
            }
            for position, step in enumerate(steps, start=1)
        ]
        if rows:
            await self.connection.execute(steps_table.insert(), rows)
        return True

    async def withdraw(self, run: RebalanceRun) -> None:
        """Drop a run that has not ended; it has no steps yet."""
        gone = table.delete().where(table.c.run_id == run.run_id, table.c.state.in_(_ACTIVE))
        await self.connection.execute(gone)

    async def one(self, run_id: str) -> RebalanceRun | None:
        return await self._one(_select().where(table.c.run_id == run_id))

    async def board_ids(self, since: datetime) -> frozenset[str]:
        """Boards loaded by runs since then; see `Rebalancing.execute`."""
        details = await self.connection.scalars(
            select(steps_table.c.detail).where(steps_table.c.started_at >= since)
        )
        return frozenset(detail["board"] for detail in details if "board" in detail)

    async def steps(self, run_id: str) -> tuple[RebalanceStep, ...]:
        wanted = select(steps_table).where(steps_table.c.run_id == run_id)
        rows = await self.connection.execute(wanted.order_by(steps_table.c.position))
        return tuple(
            RebalanceStep(
                RebalanceStepName(row.name),
                RebalanceStepState(row.state),
                row.started_at,
                row.finished_at,
                row.detail,
            )
            for row in rows
        )

    async def page(
        self, before: tuple[datetime, str] | None, limit: int, state: RunState | None = None
    ) -> tuple[RebalanceRun, ...]:
        """Up to `limit` runs; `before` is (requested_at, run_id) of the last of the page before."""
        wanted = _select().order_by(table.c.requested_at.desc(), table.c.run_id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(tuple_(table.c.requested_at, table.c.run_id) < before)
        if state is not None:
            wanted = wanted.where(table.c.state == state.value)
        return tuple(_run(row) for row in await self.connection.execute(wanted))

    async def has_found_nothing(self, since: datetime, until: datetime) -> bool:
        """True if a run by the configured method found no trigger and no waiting drift.

        Runs requested after `until` have the timestamp of a wrong clock and do not count.
        """
        wanted = select(table.c.details).where(
            table.c.portfolio_id == PORTFOLIO_ID,
            table.c.state == RunState.UNCHANGED.value,
            table.c.method.is_(None),
            table.c.requested_at >= since,
            table.c.requested_at <= until,
        )
        found = await self.connection.execute(wanted.order_by(table.c.requested_at))
        return any(one is not None and one.get("waits_until") is None for one in found.scalars())

    async def delete_old(self, before: datetime) -> int:
        """Delete runs that ended before, with their steps, and return their number."""
        old = table.c.finished_at < before
        gone = select(table.c.run_id).where(old)
        await self.connection.execute(steps_table.delete().where(steps_table.c.run_id.in_(gone)))
        return (await self.connection.execute(table.delete().where(old))).rowcount

    async def _of_tick(self, scheduled_at: datetime | None) -> RebalanceRun | None:
        if scheduled_at is None:
            return None
        wanted = _select().where(
            table.c.scheduled_at == scheduled_at,
            table.c.state.not_in([state.value for state in _IN_VAIN]),
        )
        return await self._one(wanted)

    async def _one(self, wanted: Select[Any]) -> RebalanceRun | None:
        row = (await self.connection.execute(wanted)).first()
        return None if row is None else _run(row)

    async def _move(self, run: RebalanceRun, from_states: Iterable[RunState]) -> bool:
        """Store the new state if the stored one is in `from_states` (compare and set)."""
        row = {name: value for name, value in _row(run).items() if name not in _GIVEN}
        moved = await self.connection.execute(
            table.update()
            .where(table.c.run_id == run.run_id)
            .where(table.c.state.in_([state.value for state in from_states]))
            .values(**row)
        )
        return moved.rowcount == 1


def _select() -> Select[Any]:
    return select(table).where(table.c.portfolio_id == PORTFOLIO_ID)


def _row(run: RebalanceRun) -> dict[str, Any]:
    outcome, failure = run.outcome, run.failure
    return {
        **{name: getattr(run, name) for name in _GIVEN},
        "portfolio_id": PORTFOLIO_ID,
        "state": run.state.value,
        "lease_until": run.lease_until,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "version_before": None if outcome is None else outcome.version_before,
        "version_after": None if outcome is None else outcome.version_after,
        "triggers": None if outcome is None else [one.value for one in outcome.triggers],
        "changes": None if outcome is None else [asdict(change) for change in outcome.changes],
        "turnover_u": None if outcome is None else outcome.turnover_u,
        "cost": None if outcome is None else outcome.cost,
        "details": None if outcome is None else dict(outcome.details),
        "error_code": None if failure is None else failure.code,
        "error_detail": None if failure is None else failure.detail,
    }


def _run(row: Row[Any]) -> RebalanceRun:
    return RebalanceRun(
        **{name: getattr(row, name) for name in _GIVEN},
        state=RunState(row.state),
        lease_until=row.lease_until,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=_outcome(row),
        failure=None if row.error_code is None else RunFailure(row.error_code, row.error_detail),
    )


def _outcome(row: Row[Any]) -> RebalanceOutcome | None:
    if row.version_before is None:
        return None
    changes: list[Mapping[str, Any]] = row.changes
    return RebalanceOutcome(
        version_before=row.version_before,
        version_after=row.version_after,
        triggers=tuple(Trigger(name) for name in row.triggers),
        changes=tuple(WeightChange(**change) for change in changes),
        turnover_u=row.turnover_u,
        cost=row.cost,
        details=row.details,
    )
