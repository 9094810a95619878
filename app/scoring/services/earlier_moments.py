"""What earlier boards of the same algorithm looked like, for universes too small to rank."""

from datetime import date

from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.scoring.domain.board import BoardDraft
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.historical_moments import HistoricMoments, historic
from app.scoring.services.algorithm_versions import AlgorithmFacts, in_force


async def earlier(database: Database, spec: AlgorithmSpec) -> dict[str, HistoricMoments]:
    """By factor, family and `composite`; who never had enough values is left out.

    Of the version in force alone: a change of weights makes other sums.
    """
    async with database.read() as unit:
        facts = await in_force(unit, spec)
        return historic(await unit.moments.days(facts.name, facts.version))


async def keep_seen(
    unit: UnitOfWork, draft: BoardDraft, made_by: AlgorithmFacts, day: date
) -> None:
    """A board of too few symbols leaves what is known as it is. `day` is its UTC day."""
    if draft.seen:
        await unit.moments.keep(made_by.name, made_by.version, day, draft.seen)
