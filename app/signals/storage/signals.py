"""Signals and their votes: taken in once, judged from the queue, listed, counted, forgotten."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.statements import insert
from app.signals.domain.consensus import Vote
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import PENDING, Signal, SignalState
from app.signals.storage.outcomes import SignalOutcomeRepository
from app.signals.storage.signal_effects import SignalEffectRepository
from app.signals.storage.signal_outcome_tables import signal_outcomes
from app.signals.storage.signal_rows import judged_of, row_of, signal_of, vote_of, vote_row_of
from app.signals.storage.tables import signal_votes, signals

_WAITS: Final = [state.value for state in PENDING]
_FORGETTABLE: Final = [
    state.value for state in (SignalState.REJECTED, SignalState.EXPIRED, SignalState.FAILED)
]
_NOTHING: Final = dict.fromkeys(signals.c.keys())  # what is written together has all columns
Name = tuple[str, str]  # a source and what it calls its signal
Position = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class SignalRepository:
    """The table is the queue: who judges locks what it takes, and others pass that over."""

    connection: AsyncConnection

    async def add(self, judged: Sequence[Judged]) -> frozenset[str]:
        """The ids of those that are new, all at once.

        Nothing is written where its source has sent one of that name already: two of one name
        among them, or another process at the same time, leave one.
        """
        if not judged:
            return frozenset()
        added = await self.connection.execute(
            insert(self.connection, signals)
            .on_conflict_do_nothing(index_elements=["source", "source_id"])
            .returning(signals.c.signal_id),
            [_NOTHING | row_of(one) for one in judged],
        )
        new = frozenset(row.signal_id for row in added)
        await self._cast([one for one in judged if one.signal.signal_id in new])
        return new

    async def named(self, source: str, source_id: str) -> Judged:
        """The one that has this name at its source. Raises NotFoundError."""
        return _only([*(await self.all_named([(source, source_id)])).values()])

    async def all_named(self, names: Iterable[Name]) -> dict[Name, Judged]:
        """Those that have these names at their sources; a name that nobody gave is left out."""
        wanted = [*names]
        if not wanted:
            return {}
        named = tuple_(signals.c.source, signals.c.source_id).in_(wanted)
        return {
            (one.signal.claim.source, one.signal.claim.source_id or ""): one
            for one in await self._some(named, len(wanted))
        }

    async def one(self, signal_id: str) -> Judged:
        """Raises NotFoundError."""
        return _only(await self._some(signals.c.signal_id == signal_id))

    async def pending_count(self) -> int:
        wanted = select(func.count()).select_from(signals).where(signals.c.state.in_(_WAITS))
        return int((await self.connection.execute(wanted)).scalar_one())

    async def take(self, limit: int) -> tuple[Signal, ...]:
        """The oldest that wait, locked up to the end of the transaction."""
        wanted = (
            select(signals)
            .where(signals.c.state.in_(_WAITS))
            .order_by(signals.c.received_at, signals.c.signal_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return tuple(map(signal_of, await self.connection.execute(wanted)))

    async def failed(self, most_attempts: int, limit: int) -> tuple[Signal, ...]:
        """Those that nobody could judge, tried fewer times than that; locked, the oldest first."""
        wanted = (
            select(signals)
            .where(signals.c.state == SignalState.FAILED.value)
            .where(signals.c.attempts < most_attempts)
            .order_by(signals.c.received_at, signals.c.signal_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return tuple(map(signal_of, await self.connection.execute(wanted)))

    async def overdue(self, now: datetime, limit: int = 1_000) -> tuple[Signal, ...]:
        """Those not approved whose time is over; locked."""
        waits = [*_WAITS, SignalState.FAILED.value]
        wanted = (
            select(signals)
            .where(signals.c.expires_at <= now, signals.c.state.in_(waits))
            .order_by(signals.c.expires_at, signals.c.signal_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return tuple(map(signal_of, await self.connection.execute(wanted)))

    async def save(self, judged: Iterable[Judged]) -> None:
        """New states; with a verdict, its votes in the place of earlier ones. All at once."""
        with_verdict: list[Judged] = []
        without: list[Judged] = []
        for one in judged:
            (without if one.verdict is None else with_verdict).append(one)
        for some in (without, with_verdict):
            rows = [row_of(one) for one in some]
            if rows:
                new: dict[str, Any] = {
                    name: bindparam(f"new_{name}") for name in rows[0] if name != "signal_id"
                }
                statement = signals.update().where(
                    signals.c.signal_id == bindparam("new_signal_id")
                )
                given = [{f"new_{name}": value for name, value in row.items()} for row in rows]
                await self.connection.execute(statement.values(new), given)
        if with_verdict:
            theirs = [one.signal.signal_id for one in with_verdict]
            await self.connection.execute(
                delete(signal_votes).where(signal_votes.c.signal_id.in_(theirs))
            )
            await self._cast(with_verdict)

    async def _cast(self, judged: Sequence[Judged]) -> None:
        """Votes, and the outcomes that they will be held to."""
        votes = [
            vote_row_of(one.signal.signal_id, vote)
            for one in judged
            if one.verdict is not None
            for vote in one.verdict.votes
        ]
        if votes:
            await self.connection.execute(signal_votes.insert(), votes)
        await SignalOutcomeRepository(self.connection).open(judged)

    async def forecasts(self, signal_ids: Sequence[str]) -> tuple[tuple[str, str, float], ...]:
        """(signal, agent, probability) of all agents that voted, in the order of the ids."""
        wanted = (
            select(signal_votes.c.signal_id, signal_votes.c.agent, signal_votes.c.probability)
            .where(signal_votes.c.signal_id.in_(signal_ids))
            .where(signal_votes.c.probability.is_not(None), signal_votes.c.is_source.is_(False))
            .order_by(signal_votes.c.signal_id, signal_votes.c.agent)
        )
        rows = await self.connection.execute(wanted)
        return tuple((row.signal_id, row.agent, row.probability) for row in rows)

    async def pending(self, limit: int, after: Position | None = None) -> tuple[Signal, ...]:
        """What waits, the oldest first."""
        wanted = select(signals).where(signals.c.state.in_(_WAITS))
        if after is not None:
            at, signal_id = after
            same = (signals.c.received_at == at) & (signals.c.signal_id > signal_id)
            wanted = wanted.where((signals.c.received_at > at) | same)
        wanted = wanted.order_by(signals.c.received_at, signals.c.signal_id).limit(limit)
        return tuple(map(signal_of, await self.connection.execute(wanted)))

    async def processed(
        self, since: datetime, limit: int, before: Position | None = None
    ) -> tuple[Judged, ...]:
        """What has left the queue since then, the last first, with its votes."""
        wanted = signals.c.settled_at >= since
        if before is not None:
            at, signal_id = before
            same = (signals.c.settled_at == at) & (signals.c.signal_id < signal_id)
            wanted &= (signals.c.settled_at < at) | same
        return await self._some(wanted, limit)

    async def forget(self, before: datetime) -> int:
        """Drops what was rejected, expired or failed before; how many.

        What was approved stays, for effects rest on it; so does what its outcome is open of, or
        only happy ones would be counted.
        """
        open_ones = select(signal_outcomes.c.signal_id).where(
            (signal_outcomes.c.booked_at.is_(None)) | (signal_outcomes.c.ends_at >= before)
        )
        old = (signals.c.settled_at < before) & signals.c.state.in_(_FORGETTABLE)
        old &= signals.c.signal_id.not_in(open_ones)
        theirs = select(signals.c.signal_id).where(old)
        for table in (signal_votes, signal_outcomes):
            await self.connection.execute(delete(table).where(table.c.signal_id.in_(theirs)))
        return (await self.connection.execute(delete(signals).where(old))).rowcount

    async def _some(self, condition: Any, limit: int = 1) -> tuple[Judged, ...]:
        order = (signals.c.settled_at.desc(), signals.c.signal_id.desc())
        wanted = select(signals).where(condition).order_by(*order).limit(limit)
        rows = (await self.connection.execute(wanted)).all()
        if not rows:
            return ()
        votes: dict[str, list[Vote]] = {row.signal_id: [] for row in rows}
        cast = select(signal_votes).where(signal_votes.c.signal_id.in_(votes))
        for vote in await self.connection.execute(cast.order_by(signal_votes.c.agent)):
            votes[vote.signal_id].append(vote_of(vote))
        effects = await SignalEffectRepository(self.connection).of(votes)
        outcomes = await SignalOutcomeRepository(self.connection).of(votes)
        return tuple(
            replace(
                judged_of(row, votes[row.signal_id]),
                effect=effects.get(row.signal_id),
                outcome=outcomes.get(row.signal_id),
            )
            for row in rows
        )


def _only(found: Sequence[Judged]) -> Judged:
    if not found:
        raise NotFoundError(Code.NOT_FOUND, "There is no signal with this id.")
    return found[0]
