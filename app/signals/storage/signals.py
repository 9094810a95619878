"""SQL of signals and votes: intake, queue, states, lists and deletion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, delete, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.domain.sections import AutomationMode
from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.statements import insert
from app.portfolio.domain.proposals import MembershipMove
from app.signals.domain.consensus import Consensus, Recommendation, SignalEvaluation, Vote
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import (
    PENDING,
    Direction,
    MembershipStep,
    Signal,
    SignalClaim,
    SignalEffect,
    SignalState,
)
from app.signals.storage.outcomes import SignalOutcomeRepository
from app.signals.storage.tables import signal_effects as table
from app.signals.storage.tables import signal_outcomes, signal_votes, signals


@dataclass(frozen=True, slots=True)
class SignalEffectRepository:
    """Effects, written only under the portfolio's lock, so that each signal acts once."""

    connection: AsyncConnection

    async def waiting(self, now: datetime, limit: int) -> tuple[str, ...]:
        """Approved, unexpired signals without a decision, by id."""
        known = select(table.c.signal_id).where(table.c.signal_id == signals.c.signal_id)
        wanted = (
            select(signals.c.signal_id)
            .where(signals.c.state == SignalState.APPROVED.value, signals.c.expires_at > now)
            .where(~known.exists())
            .order_by(signals.c.completed_at, signals.c.signal_id)
            .limit(limit)
        )
        return tuple(row.signal_id for row in await self.connection.execute(wanted))

    async def load(self, signal_ids: Iterable[str]) -> dict[str, SignalEffect]:
        """Effects by signal; signals without one are left out."""
        wanted = select(table).where(table.c.signal_id.in_([*signal_ids]))
        return {row.signal_id: _effect(row) for row in await self.connection.execute(wanted)}

    async def board_ids(self, since: datetime) -> frozenset[str]:
        """Boards of signals with a proposal or a change of the portfolio since `since`."""
        acted = table.c.proposal_id.is_not(None) | table.c.version.is_not(None)
        wanted = (
            select(signals.c.board_id)
            .join(table, table.c.signal_id == signals.c.signal_id)
            .where(acted, table.c.at >= since, signals.c.board_id.is_not(None))
        )
        return frozenset(await self.connection.scalars(wanted))

    async def add(self, effect: SignalEffect) -> None:
        step = effect.step
        row = {
            "signal_id": effect.signal_id,
            "automation": effect.automation.value,
            "move": None if step is None else step.move.value,
            "symbol": None if step is None else step.symbol,
            "old_symbol": None if step is None else step.old_symbol,
            "note": effect.note,
            "at": effect.at,
            "proposal_id": effect.proposal_id,
            "version": effect.version,
        }
        await self.connection.execute(table.insert(), row)

    async def set_version(self, signal_id: str, version: int) -> None:
        """Stores the portfolio version of an approved proposal."""
        await self.connection.execute(
            table.update().where(table.c.signal_id == signal_id).values(version=version)
        )


def _effect(row: Row[Any]) -> SignalEffect:
    step = (
        None
        if row.move is None
        else MembershipStep(MembershipMove(row.move), row.symbol, row.old_symbol)
    )
    return SignalEffect(
        signal_id=row.signal_id,
        automation=AutomationMode(row.automation),
        step=step,
        note=row.note,
        at=row.at,
        proposal_id=row.proposal_id,
        version=row.version,
    )


_FIGURES: Final = (
    "agent", "weight", "probability", "confidence", "reason", "is_veto", "is_dissent", "is_source",
)  # fmt: skip


def signal_to_row(evaluated: EvaluatedSignal) -> dict[str, Any]:
    signal, claim, verdict = evaluated.signal, evaluated.signal.claim, evaluated.verdict
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
        "claimed_at": claim.claimed_at,
        "claimed_expires_at": claim.expires_at,
        "received_at": signal.received_at,
        "expires_at": signal.expires_at,
        "state": signal.state.value,
        "attempts": signal.attempts,
        "completed_at": signal.completed_at,
        "reason": signal.reason,
        "posted_by": signal.posted_by,
        "is_propose_only": signal.is_propose_only,
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
        "is_skill_weighted": verdict.is_skill_weighted,
        "board_id": evaluated.board_id,
        "configuration_version": evaluated.configuration_version,
    }


def vote_to_row(signal_id: str, vote: Vote) -> dict[str, Any]:
    recommendation = vote.recommendation
    return {name: getattr(vote, name) for name in _FIGURES} | {
        "signal_id": signal_id,
        "recommendation": None if recommendation is None else recommendation.value,
        "figures": dict(vote.figures),
    }


def signal_from_row(row: Row[Any]) -> Signal:
    claim = SignalClaim(
        source=row.source,
        type=row.type,
        strength=row.strength,
        confidence=row.confidence,
        symbol=row.symbol,
        direction=Direction(row.direction),
        data=row.data,
        source_id=row.source_id,
        claimed_at=row.claimed_at,
        expires_at=row.claimed_expires_at,
    )
    return Signal(
        signal_id=row.signal_id,
        claim=claim,
        state=SignalState(row.state),
        received_at=row.received_at,
        expires_at=row.expires_at,
        attempts=row.attempts,
        completed_at=row.completed_at,
        reason=row.reason,
        posted_by=row.posted_by,
        is_propose_only=row.is_propose_only is not False,
    )


def evaluated_signal_from_row(row: Row[Any], votes: Sequence[Vote]) -> EvaluatedSignal:
    if row.verdict_reason is None:
        return EvaluatedSignal(signal_from_row(row))
    verdict = Consensus(
        evaluation=None if row.evaluation is None else SignalEvaluation(row.evaluation),
        score=row.score,
        approvals=row.approvals,
        voted=row.voted,
        votes=tuple(votes),
        reason=row.verdict_reason,
        is_skill_weighted=row.is_skill_weighted,
    )
    return EvaluatedSignal(signal_from_row(row), verdict, row.board_id, row.configuration_version)


def vote_from_row(row: Row[Any]) -> Vote:
    recommendation = row.recommendation
    return Vote(
        **{name: getattr(row, name) for name in _FIGURES},
        recommendation=None if recommendation is None else Recommendation(recommendation),
        figures=row.figures,
    )


_WAITS: Final = [state.value for state in PENDING]
_DELETABLE: Final = [
    state.value for state in (SignalState.REJECTED, SignalState.EXPIRED, SignalState.FAILED)
]
_NULL_ROW: Final = dict.fromkeys(signals.c.keys())  # rows of one statement have all columns
Name = tuple[str, str]  # source and its id of the signal
Position = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class SignalRepository:
    """The table is the queue: a worker locks its rows, and others skip them."""

    connection: AsyncConnection

    async def add(self, evaluated: Sequence[EvaluatedSignal]) -> frozenset[str]:
        """Inserts signals at once; returns the ids of the new ones.

        Each source id of a source is stored once, within the call and across processes.
        """
        if not evaluated:
            return frozenset()
        added = await self.connection.execute(
            insert(self.connection, signals)
            .on_conflict_do_nothing(index_elements=["source", "source_id"])
            .returning(signals.c.signal_id),
            [_NULL_ROW | signal_to_row(one) for one in evaluated],
        )
        new = frozenset(row.signal_id for row in added)
        await self._insert_votes([one for one in evaluated if one.signal.signal_id in new])
        return new

    async def by_source_id(self, source: str, source_id: str) -> EvaluatedSignal:
        """Signal by source and source id. Raises NotFoundError."""
        return _require_one([*(await self.by_source_ids([(source, source_id)])).values()])

    async def by_source_ids(self, names: Iterable[Name]) -> dict[Name, EvaluatedSignal]:
        """Signals by source and source id; unknown ids are left out."""
        wanted = [*names]
        if not wanted:
            return {}
        named = tuple_(signals.c.source, signals.c.source_id).in_(wanted)
        return {
            (one.signal.claim.source, one.signal.claim.source_id or ""): one
            for one in await self._load(named, len(wanted))
        }

    async def one(self, signal_id: str) -> EvaluatedSignal:
        """Signal by id; raises NotFoundError."""
        return _require_one(await self._load(signals.c.signal_id == signal_id))

    async def pending_count(self) -> int:
        wanted = select(func.count()).select_from(signals).where(signals.c.state.in_(_WAITS))
        return int((await self.connection.execute(wanted)).scalar_one())

    async def take(self, limit: int) -> tuple[Signal, ...]:
        """Oldest waiting signals, locked until the end of the transaction."""
        wanted = (
            select(signals)
            .where(signals.c.state.in_(_WAITS))
            .order_by(signals.c.received_at, signals.c.signal_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return tuple(map(signal_from_row, await self.connection.execute(wanted)))

    async def failed(self, most_attempts: int, limit: int) -> tuple[Signal, ...]:
        """Failed signals below a number of attempts; locked, oldest first."""
        wanted = (
            select(signals)
            .where(signals.c.state == SignalState.FAILED.value)
            .where(signals.c.attempts < most_attempts)
            .order_by(signals.c.received_at, signals.c.signal_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return tuple(map(signal_from_row, await self.connection.execute(wanted)))

    async def overdue(self, now: datetime, limit: int = 1_000) -> tuple[Signal, ...]:
        """Signals without approval past their expiry; locked."""
        waits = [*_WAITS, SignalState.FAILED.value]
        wanted = (
            select(signals)
            .where(signals.c.expires_at <= now, signals.c.state.in_(waits))
            .order_by(signals.c.expires_at, signals.c.signal_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return tuple(map(signal_from_row, await self.connection.execute(wanted)))

    async def save(self, evaluated: Iterable[EvaluatedSignal]) -> None:
        """Stores new states at once; a consensus replaces earlier votes."""
        with_verdict: list[EvaluatedSignal] = []
        without: list[EvaluatedSignal] = []
        for one in evaluated:
            (without if one.verdict is None else with_verdict).append(one)
        for batch in (without, with_verdict):
            rows = [signal_to_row(one) for one in batch]
            if rows:
                new: dict[str, Any] = {
                    name: bindparam(f"new_{name}") for name in rows[0] if name != "signal_id"
                }
                statement = signals.update().where(
                    signals.c.signal_id == bindparam("new_signal_id")
                )
                values = [{f"new_{name}": value for name, value in row.items()} for row in rows]
                await self.connection.execute(statement.values(new), values)
        if with_verdict:
            signal_ids = [one.signal.signal_id for one in with_verdict]
            await self.connection.execute(
                delete(signal_votes).where(signal_votes.c.signal_id.in_(signal_ids))
            )
            await self._insert_votes(with_verdict)

    async def _insert_votes(self, evaluated: Sequence[EvaluatedSignal]) -> None:
        """Inserts votes and open outcomes."""
        votes = [
            vote_to_row(one.signal.signal_id, vote)
            for one in evaluated
            if one.verdict is not None
            for vote in one.verdict.votes
        ]
        if votes:
            await self.connection.execute(signal_votes.insert(), votes)
        await SignalOutcomeRepository(self.connection).insert_open(evaluated)

    async def forecasts(self, signal_ids: Sequence[str]) -> tuple[tuple[str, str, float], ...]:
        """(signal, agent, probability) of all votes, ordered by id."""
        wanted = (
            select(signal_votes.c.signal_id, signal_votes.c.agent, signal_votes.c.probability)
            .where(signal_votes.c.signal_id.in_(signal_ids))
            .where(signal_votes.c.probability.is_not(None), signal_votes.c.is_source.is_(False))
            .order_by(signal_votes.c.signal_id, signal_votes.c.agent)
        )
        rows = await self.connection.execute(wanted)
        return tuple((row.signal_id, row.agent, row.probability) for row in rows)

    async def pending(self, limit: int, after: Position | None = None) -> tuple[Signal, ...]:
        """Waiting signals, oldest first."""
        wanted = select(signals).where(signals.c.state.in_(_WAITS))
        if after is not None:
            at, signal_id = after
            same = (signals.c.received_at == at) & (signals.c.signal_id > signal_id)
            wanted = wanted.where((signals.c.received_at > at) | same)
        wanted = wanted.order_by(signals.c.received_at, signals.c.signal_id).limit(limit)
        return tuple(map(signal_from_row, await self.connection.execute(wanted)))

    async def processed(
        self, since: datetime, limit: int, before: Position | None = None
    ) -> tuple[EvaluatedSignal, ...]:
        """Signals that left the queue since `since`, newest first, with their votes."""
        wanted = signals.c.completed_at >= since
        if before is not None:
            at, signal_id = before
            same = (signals.c.completed_at == at) & (signals.c.signal_id < signal_id)
            wanted &= (signals.c.completed_at < at) | same
        return await self._load(wanted, limit)

    async def delete_old(self, before: datetime) -> int:
        """Deletes older rejected, expired or failed signals; returns their number.

        Approved signals stay, because effects refer to them. Signals with an open outcome
        stay too: otherwise only good outcomes would count.
        """
        undecided = select(signal_outcomes.c.signal_id).where(
            (signal_outcomes.c.booked_at.is_(None)) | (signal_outcomes.c.ends_at >= before)
        )
        old = (signals.c.completed_at < before) & signals.c.state.in_(_DELETABLE)
        old &= signals.c.signal_id.not_in(undecided)
        signal_ids = select(signals.c.signal_id).where(old)
        await self._delete_dependents(signal_ids)
        return (await self.connection.execute(delete(signals).where(old))).rowcount

    async def ended_count(self) -> int:
        """Number of rejected, expired and failed signals."""
        wanted = select(func.count()).select_from(signals).where(signals.c.state.in_(_DELETABLE))
        return int((await self.connection.execute(wanted)).scalar_one())

    async def delete_oldest(self, limit: int) -> int:
        """Deletes up to `limit` ended signals; returns their number.

        The oldest rejected ones go first, then the oldest expired or failed ones. Signals with an
        effect, an open outcome or a counted one stay.
        """
        outcome = signal_outcomes.c
        counted = or_(
            outcome.booked_at.is_(None), outcome.counts_for_agents, outcome.counts_for_source
        )
        signal_ids: list[str] = []
        for states in ([SignalState.REJECTED.value], _DELETABLE):
            wanted = (
                select(signals.c.signal_id)
                .where(signals.c.state.in_(states), signals.c.signal_id.not_in(signal_ids))
                .where(signals.c.signal_id.not_in(select(outcome.signal_id).where(counted)))
                .where(signals.c.signal_id.not_in(select(table.c.signal_id)))
                .order_by(signals.c.completed_at, signals.c.signal_id)
                .limit(limit - len(signal_ids))
                .with_for_update(skip_locked=True)
            )
            signal_ids += await self.connection.scalars(wanted)
        await self._delete_dependents(signal_ids)
        chosen = signals.c.signal_id.in_(signal_ids)
        return (await self.connection.execute(delete(signals).where(chosen))).rowcount

    async def _delete_dependents(self, signal_ids: Select[tuple[str]] | Sequence[str]) -> None:
        for dependent in (signal_votes, signal_outcomes):
            await self.connection.execute(
                delete(dependent).where(dependent.c.signal_id.in_(signal_ids))
            )

    async def _load(self, condition: Any, limit: int = 1) -> tuple[EvaluatedSignal, ...]:
        order = (signals.c.completed_at.desc(), signals.c.signal_id.desc())
        wanted = select(signals).where(condition).order_by(*order).limit(limit)
        rows = (await self.connection.execute(wanted)).all()
        if not rows:
            return ()
        votes: dict[str, list[Vote]] = {row.signal_id: [] for row in rows}
        cast = select(signal_votes).where(signal_votes.c.signal_id.in_(votes))
        for vote in await self.connection.execute(cast.order_by(signal_votes.c.agent)):
            votes[vote.signal_id].append(vote_from_row(vote))
        effects = await SignalEffectRepository(self.connection).load(votes)
        outcomes = await SignalOutcomeRepository(self.connection).load(votes)
        return tuple(
            replace(
                evaluated_signal_from_row(row, votes[row.signal_id]),
                effect=effects.get(row.signal_id),
                outcome=outcomes.get(row.signal_id),
            )
            for row in rows
        )


def _require_one(signals: Sequence[EvaluatedSignal]) -> EvaluatedSignal:
    if not signals:
        raise NotFoundError(Code.NOT_FOUND, "There is no signal with this id.")
    return signals[0]
