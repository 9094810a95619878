"""Signals and their votes: taken in once, judged from the queue, listed, counted, forgotten."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.domain.sections import AutomationMode
from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.statements import insert
from app.signals.domain.consensus import Evaluation, Recommendation, Verdict, Vote
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import (
    PENDING,
    Claim,
    Direction,
    Effect,
    Move,
    Signal,
    SignalState,
    Step,
)
from app.signals.storage.outcomes import SignalOutcomeRepository
from app.signals.storage.tables import signal_effects as table
from app.signals.storage.tables import signal_outcomes, signal_votes, signals


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

    async def board_ids(self, since: datetime) -> frozenset[str]:
        """Boards of signals that led to a proposal or a change since then."""
        acted = table.c.proposal_id.is_not(None) | table.c.version.is_not(None)
        wanted = (
            select(signals.c.board_id)
            .join(table, table.c.signal_id == signals.c.signal_id)
            .where(acted, table.c.at >= since, signals.c.board_id.is_not(None))
        )
        return frozenset(await self.connection.scalars(wanted))

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
        policy=AutomationMode(row.policy),
        step=step,
        note=row.note,
        at=row.at,
        proposal_id=row.proposal_id,
        version=row.version,
    )


_FIGURES: Final = (
    "agent", "weight", "probability", "confidence", "reason", "is_veto", "is_dissent", "is_source",
)  # fmt: skip


def row_of(judged: Judged) -> dict[str, Any]:
    signal, claim, verdict = judged.signal, judged.signal.claim, judged.verdict
    row = {
        "signal_id": signal.signal_id,
        "source": claim.source,
        "source_id": claim.source_id,
        "type": claim.type,
        "symbol": claim.symbol,
        "direction": claim.direction.value,
        "strength": claim.strength,
        "confidence": claim.confidence,
        "data": None if claim.data is None else dict(claim.data),
        "said_at": claim.said_at,
        "claimed_end": claim.expires_at,
        "received_at": signal.received_at,
        "expires_at": signal.expires_at,
        "state": signal.state.value,
        "attempts": signal.attempts,
        "settled_at": signal.settled_at,
        "reason": signal.reason,
    }
    if verdict is None:
        return row
    evaluation = verdict.evaluation
    return row | {
        "evaluation": None if evaluation is None else evaluation.value,
        "score": verdict.score,
        "approvals": verdict.approvals,
        "voted": verdict.voted,
        "verdict_reason": verdict.reason,
        "by_skill": verdict.is_weighed_by_skill,
        "board_id": judged.board_id,
        "configuration_version": judged.configuration_version,
    }


def vote_row_of(signal_id: str, vote: Vote) -> dict[str, Any]:
    advice = vote.recommendation
    return {name: getattr(vote, name) for name in _FIGURES} | {
        "signal_id": signal_id,
        "recommendation": None if advice is None else advice.value,
        "figures": dict(vote.figures),
    }


def signal_of(row: Row[Any]) -> Signal:
    claim = Claim(
        source=row.source,
        type=row.type,
        strength=row.strength,
        confidence=row.confidence,
        symbol=row.symbol,
        direction=Direction(row.direction),
        data=row.data,
        source_id=row.source_id,
        said_at=row.said_at,
        expires_at=row.claimed_end,
    )
    return Signal(
        signal_id=row.signal_id,
        claim=claim,
        state=SignalState(row.state),
        received_at=row.received_at,
        expires_at=row.expires_at,
        attempts=row.attempts,
        settled_at=row.settled_at,
        reason=row.reason,
    )


def judged_of(row: Row[Any], votes: Sequence[Vote]) -> Judged:
    if row.verdict_reason is None:
        return Judged(signal_of(row))
    verdict = Verdict(
        evaluation=None if row.evaluation is None else Evaluation(row.evaluation),
        score=row.score,
        approvals=row.approvals,
        voted=row.voted,
        votes=tuple(votes),
        reason=row.verdict_reason,
        is_weighed_by_skill=row.by_skill,
    )
    return Judged(signal_of(row), verdict, row.board_id, row.configuration_version)


def vote_of(row: Row[Any]) -> Vote:
    advice = row.recommendation
    return Vote(
        **{name: getattr(row, name) for name in _FIGURES},
        recommendation=None if advice is None else Recommendation(advice),
        figures=row.figures,
    )


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
        for part in (signal_votes, signal_outcomes):
            await self.connection.execute(delete(part).where(part.c.signal_id.in_(theirs)))
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
