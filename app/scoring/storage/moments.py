"""What earlier universes looked like: mean and spread by day, and which of them a run used."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import upsert
from app.scoring.domain.historical_moments import MOST_DAYS, DayMoments, HistoricMoments
from app.scoring.storage.tables import scoring_moments

_TABLE: Final = scoring_moments
_Row = list[Any]


@dataclass(frozen=True, slots=True)
class MomentRepository:
    """By algorithm and version: sums of other weights have other moments."""

    connection: AsyncConnection

    async def days(self, algorithm: str, version: int) -> dict[date, dict[str, DayMoments]]:
        """By UTC day and name, of the newest days that were kept."""
        found = await self.connection.execute(
            select(_TABLE.c.day, _TABLE.c.moments)
            .where(_TABLE.c.algorithm == algorithm, _TABLE.c.algorithm_version == version)
            .order_by(_TABLE.c.day.desc())
            .limit(MOST_DAYS)
        )
        return {
            date.fromisoformat(row.day): {
                name: DayMoments(*values) for name, values in row.moments.items()
            }
            for row in found
        }

    async def keep(
        self, algorithm: str, version: int, day: date, seen: Mapping[str, DayMoments]
    ) -> None:
        """In place of what was seen of the same names earlier that day.

        Forgets former versions, and days beyond those that are put together.
        """
        known = await self.days(algorithm, version)
        whole = {**known.get(day, {}), **seen}
        row = {
            "algorithm": algorithm,
            "algorithm_version": version,
            "day": day.isoformat(),
            "moments": {name: [one.mean, one.sd, one.symbols] for name, one in whole.items()},
        }
        await self.connection.execute(upsert(self.connection, _TABLE), row)
        if day in known:
            return
        kept = sorted({*known, day})[-MOST_DAYS:]
        former = _TABLE.c.algorithm_version != version
        early = _TABLE.c.day < kept[0].isoformat()
        await self.connection.execute(
            _TABLE.delete().where(and_(_TABLE.c.algorithm == algorithm, or_(former, early)))
        )


def historic_row(moments: Mapping[str, HistoricMoments]) -> dict[str, _Row]:
    """JSON of the moments that a run used."""
    return {
        name: [one.mean, one.sd, one.symbols, one.days, str(one.first), str(one.last)]
        for name, one in moments.items()
    }


def historic_moments(row: Mapping[str, _Row] | None) -> dict[str, HistoricMoments]:
    """The same back; empty for a run that used none."""
    return {
        name: HistoricMoments(
            mean, sd, symbols, days, date.fromisoformat(first), date.fromisoformat(last)
        )
        for name, (mean, sd, symbols, days, first, last) in (row or {}).items()
    }
