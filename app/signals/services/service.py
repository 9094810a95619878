"""Signal use cases: intake in one transaction, evaluation, lists, retries and clean-up."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import Code, ConflictError, RateLimitedError, UnavailableError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import NewId
from app.foundation.sql.database import BULK_STATEMENT_S, CommitMark, Database, UnitOfWork
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.scoring.domain.board import Board
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Signal, SignalClaim, receive_signal
from app.signals.domain.track_record import ForecastRecord, SignalCounts, SourceKey
from app.signals.services.evaluation import (
    ExternalVotes,
    SignalEvaluator,
    Skills,
    publish_signals,
    usable_board,
)
from app.signals.storage.outcomes import OutcomeCounts, SignalOutcomeRepository
from app.signals.storage.signals import Name, SignalRepository
from app.signals.storage.statistics import SignalCountRepository, SignalRecordRepository

CONCURRENCY: Final = 4  # transactions at a time; signals that wait hold no connection
MAX_WAITING: Final = 500  # requests waiting for their answer
_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """Signal after its intake; `is_new` is false for a repeated delivery."""

    judged: EvaluatedSignal
    is_new: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """Signal of one caller; without `render` no response is stored for the command's key."""

    claim: SignalClaim
    command: Command
    render: Render[IntakeResult] | None


@dataclass(slots=True)
class SignalIntake:
    """Stores each signal in a transaction of its own; a few at a time, the others wait."""

    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    new_id: NewId
    judges: SignalEvaluator
    concurrency: int = CONCURRENCY
    max_waiting: int = MAX_WAITING
    _waiting: int = field(default=0, init=False)
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)

    async def submit(self, submission: Submission) -> CommandResult[IntakeResult]:
        """Take in a signal; raises its own error, and RateLimitedError when too many wait."""
        if self._waiting >= self.max_waiting:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self._waiting} signals wait to be stored.",
                retry_after_s=_RETRY_S,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._store(submission)
        finally:
            self._slots.release()

    async def _store(self, submission: Submission) -> CommandResult[IntakeResult]:
        async def change(unit: UnitOfWork) -> IntakeResult:
            context = self.contexts(await unit.get(ConfigurationRepository).current())
            return await self._take_in(
                unit, _with_standard_symbol(submission.claim, context), context
            )

        try:
            return await self.idempotency.run(submission.command, change, submission.render)
        except UnavailableError as error:
            if error.code is Code.OVERLOADED:
                # All connections are in use: too much at once, not an outage.
                raise RateLimitedError(
                    Code.RATE_LIMITED, error.detail, retry_after_s=error.retry_after_s
                ) from error
            raise

    async def _take_in(
        self, unit: UnitOfWork, claim: SignalClaim, context: DecisionContext
    ) -> IntakeResult:
        signals, name = unit.get(SignalRepository), _name(claim)
        if name is not None and name in (known := await signals.all_named([name])):
            return _find_repeated(claim, known[name])
        skills = await self.judges.skills(unit, context.configuration.signals, [claim])
        gate = _Gate(context, self.judges, skills, await signals.pending_count())
        judged = gate.admit(self.new_id, claim)
        if not await signals.add([judged]):
            # A concurrent transaction has stored a signal of this name meanwhile.
            return _find_repeated(claim, await signals.named(claim.source, claim.source_id or ""))
        publish_signals(unit, [judged], context.at)
        return IntakeResult(judged, is_new=True)


@dataclass(slots=True)
class _Gate:
    """Checks of new signals: thresholds, queue and evaluator."""

    context: DecisionContext
    judges: SignalEvaluator
    skills: Skills
    waiting: int

    def admit(self, new_id: NewId, claim: SignalClaim) -> EvaluatedSignal:
        """Raises RateLimitedError and RefusedError."""
        rules = self.context.configuration.signals
        if self.waiting >= rules.max_pending:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self.waiting} signals wait to be judged.",
                retry_after_s=_RETRY_S,
            )
        signal = receive_signal(new_id(), claim, self.context.at, rules)
        board = usable_board(self.context)
        may_wait = self.waiting or self.judges.needs_external_votes
        if signal.is_pending and board is not None and not may_wait:
            return self.judges.evaluate(signal, self.context, board, self.skills)
        self.waiting += signal.is_pending
        return EvaluatedSignal(signal)


def _name(claim: SignalClaim) -> Name | None:
    return None if claim.source_id is None else (claim.source, claim.source_id)


def _with_standard_symbol(claim: SignalClaim, context: DecisionContext) -> SignalClaim:
    """The claim with the standard spelling of its symbol. Raises RefusedError."""
    if claim.symbol is None:
        return claim
    return replace(claim, symbol=context.resolve(claim.symbol).symbol)


def _find_repeated(claim: SignalClaim, found: EvaluatedSignal) -> IntakeResult:
    """The signal stored earlier under this name. Raises ConflictError unless it says the same."""
    if found.signal.claim.same_content(claim):
        return IntakeResult(found, is_new=False)
    raise ConflictError(
        Code.SIGNAL_CONFLICT,
        "Its source has sent another signal under this name.",
        facts={"signal_id": found.signal.signal_id},
    )


BATCH: Final = 100
Position = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class RequeueResult:
    """Numbers of requeued and expired signals."""

    queued: int
    expired: int


@dataclass(frozen=True, slots=True)
class CleanupResult:
    expired: int
    removed: int


@dataclass(frozen=True, slots=True)
class SignalStatistics:
    """Counts and records; `weights` are the current ones, None while all agents weigh the same."""

    counts: SignalCounts
    outcomes: OutcomeCounts
    agents: Mapping[str, ForecastRecord]
    sources: Mapping[SourceKey, ForecastRecord]
    weights: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class SignalService:
    """Signal submission, evaluation and listing; signal and consensus are stored together."""

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    new_id: NewId
    judges: SignalEvaluator = field(default_factory=SignalEvaluator)
    batch: int = BATCH  # evaluations per transaction
    max_waiting: int = MAX_WAITING  # submissions that wait for their transaction
    _intake: SignalIntake = field(init=False)
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    def __post_init__(self) -> None:
        intake = SignalIntake(
            self.contexts,
            self.idempotency,
            self.new_id,
            self.judges,
            max_waiting=self.max_waiting,
        )
        object.__setattr__(self, "_intake", intake)

    async def submit(
        self, claim: SignalClaim, command: Command, render: Render[IntakeResult] | None = None
    ) -> CommandResult[IntakeResult]:
        """Store a signal and evaluate it at once if no earlier one waits.

        A repeated delivery returns the existing signal. Raises RefusedError
        (validation_failed, signal_expired, symbol_unknown, symbol_ambiguous), ConflictError
        (signal_conflict) and RateLimitedError.
        """
        return await self._intake.submit(Submission(claim, command, render))

    async def evaluate_pending(self, limit: int | None = None) -> int:
        """Evaluate the oldest waiting signals; returns the number that left the queue.

        Without a usable board they keep waiting until they expire.
        """
        most = self.batch if limit is None else limit
        asked = await self._asked(most) if self.judges.needs_external_votes else ExternalVotes()

        async def change(unit: UnitOfWork) -> int:
            context = self.contexts(await unit.get(ConfigurationRepository).current())
            taken = await unit.get(SignalRepository).take(most)
            claims = [one.claim for one in taken]
            skills = await self.judges.skills(unit, context.configuration.signals, claims)
            done = list(self._settled(taken, context, usable_board(context), skills, asked))
            await unit.get(SignalRepository).save(done)
            publish_signals(unit, done, context.at)
            return len(done)

        return await self.database.run(change)

    async def _asked(self, limit: int) -> ExternalVotes:
        """Answers of external agents about the oldest waiting signals; holds no lock."""
        async with self.database.read() as unit:
            waiting = await unit.get(SignalRepository).pending(limit)
            context = self.contexts(await unit.get(ConfigurationRepository).current())
        board = usable_board(context)
        return ExternalVotes() if board is None else await self.judges.ask(waiting, context, board)

    async def clear_queue(self) -> int:
        """Evaluate all waiting signals that can be; returns the number that left the queue.

        Without waiting signals nothing is written.
        """
        done = 0
        while not self._mark.is_newest(self.database):
            commits = self.database.commits
            async with self.database.read() as unit:
                if not await unit.get(SignalRepository).pending_count():
                    self._mark.move(commits)
                    return done
            some = await self.evaluate_pending()
            done += some
            if some < self.batch:
                break
        return done

    async def get(self, signal_id: str) -> EvaluatedSignal:
        """Signal by id; raises NotFoundError."""
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).one(signal_id)

    async def pending(self, limit: int, after: Position | None = None) -> tuple[Signal, ...]:
        """Waiting signals, oldest first; `after` is (received_at, signal_id) of the last seen."""
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).pending(limit, after)

    async def processed(
        self, hours: int, limit: int, before: Position | None = None
    ) -> tuple[EvaluatedSignal, ...]:
        """Signals that left the queue within the last `hours`, newest first."""
        since = self.contexts.clock() - timedelta(hours=hours)
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).processed(since, limit, before)

    async def statistics(self, days: int) -> SignalStatistics:
        """Counts of the signals received within the last `days`; records are of all time."""
        since = self.contexts.clock() - timedelta(days=days)
        async with self.database.read() as unit:
            rules = (await unit.get(ConfigurationRepository).current()).signals
            agents, sources = await unit.get(SignalRecordRepository).of(None)
            return SignalStatistics(
                counts=await unit.get(SignalCountRepository).since(since),
                outcomes=await unit.get(SignalOutcomeRepository).counts(since),
                agents=agents,
                sources=sources,
                weights=self.judges.weights(agents, rules),
            )

    async def reprocess_failed(
        self, max_retries: int, command: Command, render: Render[RequeueResult] | None = None
    ) -> CommandResult[RequeueResult]:
        """Requeue signals that could not be evaluated, up to a number of attempts."""

        async def change(unit: UnitOfWork) -> RequeueResult:
            now = self.contexts.clock()
            failed = await unit.get(SignalRepository).failed(max_retries + 1, BATCH)
            ended = [one.expired(now) for one in failed]
            pairs = zip(ended, failed, strict=True)
            after = [one.again() if one is old else one for one, old in pairs]
            moved = [EvaluatedSignal(one) for one in after]
            await unit.get(SignalRepository).save(moved)
            publish_signals(unit, moved, now)
            queued = sum(one.is_pending for one in after)
            return RequeueResult(queued, len(after) - queued)

        return await self.idempotency.run(command, change, render)

    async def cleanup(
        self, older_than: timedelta, command: Command, render: Render[CleanupResult] | None = None
    ) -> CommandResult[CleanupResult]:
        """Expire overdue signals (up to 1000); delete older rejected, expired or failed ones.

        Approved signals stay: effects refer to them.
        """

        async def change(unit: UnitOfWork) -> CleanupResult:
            return await self._cleared(unit, older_than)

        return await self.idempotency.run(command, change, render)

    async def forget_old(self, older_than: timedelta) -> int:
        """Scheduled cleanup; returns the number of deleted signals."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return (await self._cleared(unit, older_than)).removed

    async def _cleared(self, unit: UnitOfWork, older_than: timedelta) -> CleanupResult:
        now = self.contexts.clock()
        over = [
            EvaluatedSignal(one.expired(now))
            for one in await unit.get(SignalRepository).overdue(now)
        ]
        await unit.get(SignalRepository).save(over)
        publish_signals(unit, over, now)
        return CleanupResult(len(over), await unit.get(SignalRepository).forget(now - older_than))

    def _settled(
        self,
        taken: Iterable[Signal],
        context: DecisionContext,
        board: Board | None,
        skills: Skills,
        asked: ExternalVotes,
    ) -> Iterable[EvaluatedSignal]:
        for signal in taken:
            ended = signal.expired(context.at)
            if ended is not signal:
                yield EvaluatedSignal(ended)
            elif board is not None and self.judges.has_all_votes(signal, board, asked):
                yield self.judges.evaluate(signal, context, board, skills, asked)
