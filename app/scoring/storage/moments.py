"""Stores mean and standard deviation of earlier universes by day, and those that a run used."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import upsert
from app.scoring.domain.historical_moments import MAX_DAYS, DayMoments, HistoricMoments
from app.scoring.storage.tables import scoring_moments

_TABLE: Final = scoring_moments
_Row = list[Any]


@dataclass(frozen=True, slots=True)
class MomentRepository:
    """Moments by algorithm and version, because sums of other weights have other moments."""

    connection: AsyncConnection

    async def days(self, algorithm: str, version: int) -> dict[date, dict[str, DayMoments]]:
        """Moments of the newest stored days, by UTC day and name."""
        rows = await self.connection.execute(
            select(_TABLE.c.day, _TABLE.c.moments)
            .where(_TABLE.c.algorithm == algorithm, _TABLE.c.algorithm_version == version)
            .order_by(_TABLE.c.day.desc())
            .limit(MAX_DAYS)
        )
        return {
            date.fromisoformat(row.day): {
                name: DayMoments(*values) for name, values in row.moments.items()
            }
            for row in rows
        }

    async def save_day(
        self, algorithm: str, version: int, day: date, moments: Mapping[str, DayMoments]
    ) -> None:
        """Stores the moments of a day, replacing those of the same names earlier that day.

        Deletes moments of other versions and of days beyond the pooled ones.
        """
        stored = await self.days(algorithm, version)
        merged = {**stored.get(day, {}), **moments}
        row = {
            "algorithm": algorithm,
            "algorithm_version": version,
            "day": day.isoformat(),
            "moments": {name: [one.mean, one.sd, one.symbols] for name, one in merged.items()},
        }
        await self.connection.execute(upsert(self.connection, _TABLE), row)
        if day in stored:
            return
        retained = sorted({*stored, day})[-MAX_DAYS:]
        former = _TABLE.c.algorithm_version != version
        early = _TABLE.c.day < retained[0].isoformat()
        await self.connection.execute(
            _TABLE.delete().where(and_(_TABLE.c.algorithm == algorithm, or_(former, early)))
        )


def moments_to_json(moments: Mapping[str, HistoricMoments]) -> dict[str, _Row]:
    """Returns the moments that a run used as JSON."""
    return {
        name: [one.mean, one.sd, one.symbols, one.days, str(one.first), str(one.last)]
        for name, one in moments.items()
    }


def moments_from_json(row: Mapping[str, _Row] | None) -> dict[str, HistoricMoments]:
    """Returns the moments of a stored JSON value; empty for a run that used none."""
    return {
        name: HistoricMoments(
            mean, sd, symbols, days, date.fromisoformat(first), date.fromisoformat(last)
        )
        for name, (mean, sd, symbols, days, first, last) in (row or {}).items()
    }
