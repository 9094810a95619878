"""SQL counts of signals and votes, and forecast records."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import case, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import insert
from app.signals.domain.consensus import Recommendation
from app.signals.domain.models import PENDING, SignalState
from app.signals.domain.track_record import (
    AgentCounts,
    CalibrationBin,
    ForecastKind,
    ForecastRecord,
    SignalCounts,
    SignalQueue,
    SourceCounts,
    SourceKey,
)
from app.signals.storage.tables import signal_outcomes, signal_votes, signals
from app.signals.storage.tables import signal_records as table


@dataclass(frozen=True, slots=True)
class SignalCountRepository:
    """Read-only counts."""

    connection: AsyncConnection

    async def since(self, since: datetime) -> SignalCounts:
        """Counts of the signals received since `since`."""
        by_source: dict[str, dict[str, int]] = {}
        states = (
            select(signals.c.source, signals.c.state, func.count().label("number"))
            .where(signals.c.received_at >= since)
            .group_by(signals.c.source, signals.c.state)
            .order_by(signals.c.source, signals.c.state)
        )
        for row in await self.connection.execute(states):
            by_source.setdefault(row.source, {})[row.state] = row.number
        evaluations = (
            select(signals.c.evaluation, func.count().label("number"))
            .where(signals.c.received_at >= since, signals.c.evaluation.is_not(None))
            .group_by(signals.c.evaluation)
        )
        by_evaluation = {
            row.evaluation: row.number for row in await self.connection.execute(evaluations)
        }
        agents = await self._agents(since)
        sources = tuple(SourceCounts(source, states) for source, states in by_source.items())
        return SignalCounts(sources, by_evaluation, agents)

    async def queue(self) -> SignalQueue:
        """Number and age of waiting signals."""
        state = signals.c.state
        waits = state.in_([one.value for one in PENDING])
        wanted = select(
            func.count().filter(waits),
            func.min(signals.c.received_at).filter(waits),
            func.count().filter(state == SignalState.FAILED.value),
        ).where(waits | (state == SignalState.FAILED.value))
        waiting, oldest, failed = (await self.connection.execute(wanted)).one()
        still = select(func.count()).where(signal_outcomes.c.booked_at.is_(None))
        left = (await self.connection.execute(still)).scalar_one()
        return SignalQueue(waiting, oldest, failed, left)

    async def _agents(self, since: datetime) -> tuple[AgentCounts, ...]:
        votes = signal_votes.c

        def count(condition: Any) -> Any:
            return func.sum(case((condition, 1), else_=0))

        wanted = (
            select(
                votes.agent,
                count(votes.probability.is_not(None)).label("votes"),
                count(votes.probability.is_(None)).label("abstentions"),
                *(
                    count(votes.recommendation == one.value).label(one.value.lower())
                    for one in Recommendation
                ),
                count(votes.is_veto).label("vetoes"),
                count(votes.is_dissent).label("dissents"),
                func.avg(votes.probability).label("mean"),
            )
            .join(signals, signals.c.signal_id == votes.signal_id)
            .where(signals.c.received_at >= since, votes.is_source.is_(False))
            .group_by(votes.agent)
            .order_by(votes.agent)
        )
        return tuple(_agent_counts_from_row(row) for row in await self.connection.execute(wanted))


def _agent_counts_from_row(row: Any) -> AgentCounts:
    return AgentCounts(
        agent=row.agent,
        votes=int(row.votes),
        abstentions=int(row.abstentions),
        approvals=int(row.approve),
        rejections=int(row.reject),
        conditionals=int(row.conditional),
        vetoes=int(row.vetoes),
        dissents=int(row.dissents),
        mean_probability=None if row.mean is None else float(row.mean),
    )


_NONE: Final[Mapping[SourceKey, ForecastRecord]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SignalRecordRepository:
    connection: AsyncConnection

    async def load(
        self, sources: Collection[SourceKey] | None
    ) -> tuple[dict[str, ForecastRecord], dict[SourceKey, ForecastRecord]]:
        """Records of all agents, and of `sources` (None for all).

        An agent or source without an outcome is left out.
        """
        wanted = select(table)
        if sources is not None:
            named = tuple_(table.c.name, table.c.type).in_([*sources])
            wanted = wanted.where(or_(table.c.kind == ForecastKind.AGENT.value, named))
        bins_by_key: dict[tuple[str, str, str], list[CalibrationBin]] = {}
        order = (table.c.kind, table.c.name, table.c.type, table.c.bin)
        for row in await self.connection.execute(wanted.order_by(*order)):
            one = CalibrationBin(
                row.bin, row.outcomes, row.forecast_sum, row.occurrences, row.squared_error_sum
            )
            bins_by_key.setdefault((row.kind, row.name, row.type), []).append(one)
        agents: dict[str, ForecastRecord] = {}
        known: dict[SourceKey, ForecastRecord] = {}
        for (kind, name, type_), bins in bins_by_key.items():
            if kind == ForecastKind.AGENT.value:
                agents[name] = ForecastRecord(tuple(bins))
            else:
                known[name, type_] = ForecastRecord(tuple(bins))
        return agents, known

    async def add(
        self,
        agents: Mapping[str, ForecastRecord],
        sources: Mapping[SourceKey, ForecastRecord] = _NONE,
    ) -> None:
        """Adds new outcomes to the stored records."""
        records = [
            *((ForecastKind.AGENT, name, "", record) for name, record in sorted(agents.items())),
            *((ForecastKind.SOURCE, *key, record) for key, record in sorted(sources.items())),
        ]
        rows = [
            {
                "kind": kind.value,
                "name": name,
                "type": type_,
                "bin": one.number,
                "outcomes": one.outcomes,
                "forecast_sum": one.forecast_sum,
                "occurrences": one.occurrences,
                "squared_error_sum": one.squared_error_sum,
            }
            for kind, name, type_, record in records
            for one in record.bins
        ]
        if not rows:
            return
        new = insert(self.connection, table)
        sums = {
            name: table.c[name] + new.excluded[name]
            for name in ("outcomes", "forecast_sum", "occurrences", "squared_error_sum")
        }
        keys = ["kind", "name", "type", "bin"]
        await self.connection.execute(
            new.on_conflict_do_update(index_elements=keys, set_=sums), rows
        )
