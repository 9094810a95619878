"""Deletes stored boards beyond their retention, but none that a decision used."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.configuration.domain.sections import RetentionSettings
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.scoring.domain.board_retention import StoredRun, runs_to_delete
from app.scoring.storage.runs import ScoringRepository

# Returns the ids of those given runs that a stored decision used.
FindDecided = Callable[[UnitOfWork, Sequence[StoredRun]], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class BoardRetention:
    """Deletes old boards; a board used by a decision stays complete, with its inputs."""

    database: Database
    clock: Clock
    find_decided: FindDecided

    async def delete_old(self, rules: RetentionSettings) -> int:
        """Deletes boards and inputs beyond `rules`; returns the number of deleted boards."""
        now = self.clock()
        full, inputs = timedelta(days=rules.boards_days), timedelta(days=rules.board_inputs_days)
        async with self.database.write(BULK_STATEMENT_S) as unit:
            repository = unit.get(ScoringRepository)
            runs = await repository.stored_runs(now - min(full, inputs))
            decided = await self.find_decided(unit, runs)
            expired = runs_to_delete(
                runs, now, full, timedelta(days=rules.hourly_boards_days), decided
            )
            await repository.delete_runs(expired)
            excluded = {*expired, *decided}
            old = [run.run_id for run in runs if run.has_inputs and run.is_before(now - inputs)]
            await repository.drop_inputs([run_id for run_id in old if run_id not in excluded])
        return len(expired)
