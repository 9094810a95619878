"""Deletes boards and inputs that have outlived their retention."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.configuration.domain.sections import RetentionSettings
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.scoring.domain.board_retention import StoredRun, runs_to_delete
from app.scoring.storage.runs import ScoringRepository

# Ids of the runs, among those given, that a stored decision rests on.
FindDecided = Callable[[UnitOfWork, Sequence[StoredRun]], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class BoardRetention:
    """Thins out stored boards; a board that a decision rests on stays whole, with its inputs."""

    database: Database
    clock: Clock
    find_decided: FindDecided

    async def forget_old(self, rules: RetentionSettings) -> int:
        """Number of deleted boards, by the settings in force."""
        now = self.clock()
        full, inputs = timedelta(days=rules.boards_days), timedelta(days=rules.board_inputs_days)
        async with self.database.write(BULK_STATEMENT_S) as unit:
            repository = unit.get(ScoringRepository)
            runs = await repository.stored_runs(now - min(full, inputs))
            decided = await self.find_decided(unit, runs)
            gone = runs_to_delete(
                runs, now, full, timedelta(days=rules.hourly_boards_days), decided
            )
            await repository.delete_runs(gone)
            stay = {*gone, *decided}
            emptied = [run.run_id for run in runs if run.has_inputs and run.is_before(now - inputs)]
            await repository.drop_inputs([run_id for run_id in emptied if run_id not in stay])
        return len(gone)
