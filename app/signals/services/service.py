"""Signal use cases: intake in one transaction, evaluation, lists, retries and clean-up."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.decision_log import DecisionLog
from app.foundation.errors import Code, ConflictError, RateLimitedError, UnavailableError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import NewId
from app.foundation.sql.database import BULK_STATEMENT_S, CommitMark, Database, UnitOfWork
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.scoring.domain.board import Board
from app.security.domain.audit import SecurityEventKind
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Signal, SignalClaim, receive_signal
from app.signals.domain.track_record import ForecastRecord, SignalCounts, SourceKey
from app.signals.services.evaluation import (
    ExternalVotes,
    ForecastSkills,
    SignalEvaluator,
    publish_signals,
    usable_board,
)
from app.signals.services.verdict_replay import record_verdicts
from app.signals.storage.outcomes import OutcomeCounts, SignalOutcomeRepository
from app.signals.storage.signals import Name, SignalRepository
from app.signals.storage.statistics import SignalCountRepository, SignalRecordRepository

CONCURRENCY: Final = 4  # transactions at a time; signals that wait hold no connection
MAX_WAITING: Final = 500  # requests waiting for their answer
MAX_ENDED: Final = 100_000  # stored; a flood of rejected signals must not fill the disk
DELETED_AT_ONCE: Final = 1_000
_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """Signal after its intake; `is_new` is false for a repeated delivery."""

    evaluated: EvaluatedSignal
    is_new: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """Signal of one caller; without `render` no response is stored for the idempotency key."""

    claim: SignalClaim
    command: Command
    render: Render[IntakeResult] | None
    is_propose_only: bool = False


@dataclass(slots=True)
class SignalIntake:
    """Stores each signal in its own transaction, with a limit on concurrent transactions."""

    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    new_id: NewId
    evaluator: SignalEvaluator
    decisions: DecisionLog
    concurrency: int = CONCURRENCY
    max_waiting: int = MAX_WAITING
    _waiting: int = field(default=0, init=False)
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)

    async def submit(self, submission: Submission) -> CommandResult[IntakeResult]:
        """Stores a signal; raises its own error, or RateLimitedError when too many wait."""
        if self._waiting >= self.max_waiting:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self._waiting} signals are waiting to be stored.",
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
            claim = _with_standard_symbol(submission.claim, context)
            return await self._admit(unit, submission, claim, context)

        try:
            return await self.idempotency.run(submission.command, change, submission.render)
        except UnavailableError as error:
            if error.code is Code.OVERLOADED:
                # All connections are in use: overload, not an outage.
                raise RateLimitedError(
                    Code.RATE_LIMITED, error.detail, retry_after_s=error.retry_after_s
                ) from error
            raise

    async def _admit(
        self,
        unit: UnitOfWork,
        submission: Submission,
        claim: SignalClaim,
        context: DecisionContext,
    ) -> IntakeResult:
        signals, name = unit.get(SignalRepository), _name(claim)
        if name is not None and name in (known := await signals.by_source_ids([name])):
            return _existing_signal(claim, known[name])
        skills = await self.evaluator.skills(unit, context.configuration.signals, [claim])
        gate = _Admission(context, self.evaluator, skills, await signals.pending_count())
        evaluated = gate.admit(self.new_id, submission, claim)
        if not await signals.add([evaluated]):
            # A concurrent transaction has stored a signal with this source id.
            return _existing_signal(
                claim, await signals.by_source_id(claim.source, claim.source_id or "")
            )
        await record_verdicts(unit, self.decisions, [evaluated], context.at)
        publish_signals(unit, [evaluated], context.at)
        return IntakeResult(evaluated, is_new=True)


@dataclass(slots=True)
class _Admission:
    """Admission of a new signal: queue limit, thresholds and immediate evaluation."""

    context: DecisionContext
    evaluator: SignalEvaluator
    skills: ForecastSkills
    waiting: int

    def admit(self, new_id: NewId, submission: Submission, claim: SignalClaim) -> EvaluatedSignal:
        """Returns the stored form of a claim. Raises RateLimitedError or RefusedError."""
        rules = self.context.configuration.signals
        if self.waiting >= rules.max_pending:
            raise RateLimitedError(
                Code.RATE_LIMITED,
                f"{self.waiting} signals are waiting to be evaluated.",
                retry_after_s=_RETRY_S,
            )
        received = receive_signal(
            new_id(),
            claim,
            self.context.at,
            rules,
            is_propose_only=submission.is_propose_only,
        )
        signal = replace(received, posted_by=submission.command.actor)
        board = usable_board(self.context)
        may_wait = self.waiting or self.evaluator.needs_external_votes
        if signal.is_pending and board is not None and not may_wait:
            return self.evaluator.evaluate(signal, self.context, board, self.skills)
        self.waiting += signal.is_pending
        return EvaluatedSignal(signal)


def _name(claim: SignalClaim) -> Name | None:
    return None if claim.source_id is None else (claim.source, claim.source_id)


def _with_standard_symbol(claim: SignalClaim, context: DecisionContext) -> SignalClaim:
    """Returns the claim with the standard spelling of its symbol. Raises RefusedError."""
    if claim.symbol is None:
        return claim
    return replace(claim, symbol=context.resolve(claim.symbol).symbol)


def _existing_signal(claim: SignalClaim, stored: EvaluatedSignal) -> IntakeResult:
    """Returns the stored signal with this source id. Raises ConflictError for other content."""
    if stored.signal.claim.has_same_content(claim):
        return IntakeResult(stored, is_new=False)
    raise ConflictError(
        Code.SIGNAL_CONFLICT,
        "The source has already sent another signal with this id.",
        facts={"signal_id": stored.signal.signal_id},
    )


BATCH: Final = 100
Position = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class RequeueResult:
    """Numbers of requeued and of expired signals."""

    queued: int
    expired: int


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """Numbers of expired and of deleted signals."""

    expired: int
    removed: int


@dataclass(frozen=True, slots=True)
class SignalStatistics:
    """Counts and records; `weights` are the current ones, None while all agents weigh equally."""

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
    evaluator: SignalEvaluator = field(default_factory=SignalEvaluator)
    batch: int = BATCH  # evaluations per transaction
    max_waiting: int = MAX_WAITING  # submissions that wait for their transaction
    max_ended: int = MAX_ENDED  # rejected, expired and failed signals after a sweep
    deleted_at_once: int = DELETED_AT_ONCE  # of these, per transaction
    decisions: DecisionLog = DecisionLog()  # noqa: RUF009  # the default is frozen
    _intake: SignalIntake = field(init=False)
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    def __post_init__(self) -> None:
        intake = SignalIntake(
            self.contexts,
            self.idempotency,
            self.new_id,
            self.evaluator,
            self.decisions,
            max_waiting=self.max_waiting,
        )
        object.__setattr__(self, "_intake", intake)

    async def submit(
        self,
        claim: SignalClaim,
        command: Command,
        render: Render[IntakeResult] | None = None,
        *,
        is_propose_only: bool = False,
    ) -> CommandResult[IntakeResult]:
        """Stores a signal and evaluates it at once if no earlier one waits.

        One of a sender that may only propose never changes the portfolio without an approval.
        A repeated delivery returns the existing signal. Raises RefusedError
        (validation_failed, signal_expired, symbol_unknown, symbol_ambiguous), ConflictError
        (signal_conflict) and RateLimitedError.
        """
        return await self._intake.submit(Submission(claim, command, render, is_propose_only))

    async def evaluate_pending(self, limit: int | None = None) -> int:
        """Evaluates the oldest waiting signals; returns the number that left the queue.

        Without a usable board they keep waiting until they expire.
        """
        max_signals = self.batch if limit is None else limit
        external = ExternalVotes()
        if self.evaluator.needs_external_votes:
            external = await self._external_votes(max_signals)

        async def change(unit: UnitOfWork) -> int:
            context = self.contexts(await unit.get(ConfigurationRepository).current())
            pending = await unit.get(SignalRepository).take(max_signals)
            claims = [signal.claim for signal in pending]
            skills = await self.evaluator.skills(unit, context.configuration.signals, claims)
            done = list(
                self._evaluate_all(pending, context, usable_board(context), skills, external)
            )
            await unit.get(SignalRepository).save(done)
            await record_verdicts(unit, self.decisions, done, context.at)
            publish_signals(unit, done, context.at)
            return len(done)

        return await self.database.run(change)

    async def _external_votes(self, limit: int) -> ExternalVotes:
        """Requests votes of external agents on the oldest waiting signals; holds no lock."""
        async with self.database.read() as unit:
            waiting = await unit.get(SignalRepository).pending(limit)
            context = self.contexts(await unit.get(ConfigurationRepository).current())
        board = usable_board(context)
        return (
            ExternalVotes()
            if board is None
            else await self.evaluator.request_votes(waiting, context, board)
        )

    async def process_queue(self) -> int:
        """Evaluates all waiting signals that can be; returns the number that left the queue.

        Without waiting signals nothing is written.
        """
        done = 0
        while not self._mark.is_newest(self.database):
            commits = self.database.commits
            async with self.database.read() as unit:
                if not await unit.get(SignalRepository).pending_count():
                    self._mark.move(commits)
                    return done
            evaluated = await self.evaluate_pending()
            done += evaluated
            if evaluated < self.batch:
                break
        return done

    async def get(self, signal_id: str) -> EvaluatedSignal:
        """Returns a signal by id. Raises NotFoundError."""
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).one(signal_id)

    async def pending(self, limit: int, after: Position | None = None) -> tuple[Signal, ...]:
        """Returns waiting signals, oldest first, after (received_at, signal_id) of a signal."""
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).pending(limit, after)

    async def processed(
        self, hours: int, limit: int, before: Position | None = None
    ) -> tuple[EvaluatedSignal, ...]:
        """Returns signals that left the queue within the last `hours`, newest first."""
        since = self.contexts.clock() - timedelta(hours=hours)
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).processed(since, limit, before)

    async def statistics(self, days: int) -> SignalStatistics:
        """Returns counts of the signals received within the last `days`, and all-time records."""
        since = self.contexts.clock() - timedelta(days=days)
        async with self.database.read() as unit:
            rules = (await unit.get(ConfigurationRepository).current()).signals
            agents, sources = await unit.get(SignalRecordRepository).load(None)
            return SignalStatistics(
                counts=await unit.get(SignalCountRepository).since(since),
                outcomes=await unit.get(SignalOutcomeRepository).counts(since),
                agents=agents,
                sources=sources,
                weights=self.evaluator.weights(agents, rules),
            )

    async def reprocess_failed(
        self, max_retries: int, command: Command, render: Render[RequeueResult] | None = None
    ) -> CommandResult[RequeueResult]:
        """Requeues failed signals with up to `max_retries` retries."""

        async def change(unit: UnitOfWork) -> RequeueResult:
            now = self.contexts.clock()
            failed = await unit.get(SignalRepository).failed(max_retries + 1, BATCH)
            checked = [signal.expire_if_due(self._now_after(signal)) for signal in failed]
            pairs = zip(checked, failed, strict=True)
            signals = [new.requeue() if new is old else new for new, old in pairs]
            changed = [EvaluatedSignal(signal) for signal in signals]
            await unit.get(SignalRepository).save(changed)
            publish_signals(unit, changed, now)
            queued = sum(signal.is_pending for signal in signals)
            return RequeueResult(queued, len(signals) - queued)

        audited = command.audited(
            SecurityEventKind.SIGNALS_CHANGED,
            "requeued",
            "signals",
            lambda done: {"queued": done.queued, "expired": done.expired},
        )
        return await self.idempotency.run(audited, change, render)

    async def cleanup(
        self, older_than: timedelta, command: Command, render: Render[CleanupResult] | None = None
    ) -> CommandResult[CleanupResult]:
        """Expires overdue signals (up to 1000); deletes older rejected, expired or failed ones.

        Approved signals stay, because effects refer to them.
        """

        async def change(unit: UnitOfWork) -> CleanupResult:
            return await self._clean_up(unit, older_than)

        audited = command.audited(
            SecurityEventKind.SIGNALS_CHANGED,
            "cleaned",
            "signals",
            lambda done: {"removed": done.removed, "expired": done.expired},
        )
        return await self.idempotency.run(audited, change, render)

    async def delete_old(self, older_than: timedelta) -> int:
        """Scheduled cleanup by age, then beyond `max_ended`; returns the number of deletions."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            number = (await self._clean_up(unit, older_than)).removed
            surplus = await unit.get(SignalRepository).ended_count() - self.max_ended
        while surplus > 0:  # each batch of its own, so that submissions do not wait for all
            async with self.database.write(BULK_STATEMENT_S) as unit:
                limit = min(surplus, self.deleted_at_once)
                deleted = await unit.get(SignalRepository).delete_oldest(limit)
            if deleted == 0:  # effects or outcomes rest on all others
                break
            number += deleted
            surplus -= deleted
        return number

    async def _clean_up(self, unit: UnitOfWork, older_than: timedelta) -> CleanupResult:
        now = self.contexts.clock()
        overdue = await unit.get(SignalRepository).overdue(now)
        checked = [(signal, signal.expire_if_due(self._now_after(signal))) for signal in overdue]
        expired = [EvaluatedSignal(after) for before, after in checked if after is not before]
        await unit.get(SignalRepository).save(expired)
        publish_signals(unit, expired, now)
        deleted = await unit.get(SignalRepository).delete_old(now - older_than)
        return CleanupResult(len(expired), deleted)

    def _now_after(self, signal: Signal) -> datetime:
        """Returns the receipt of a signal plus the proven time since; a clock step ends none."""
        received_at = signal.received_at
        return received_at + self.contexts.elapsed(received_at, self.contexts.clock())

    def _evaluate_all(
        self,
        pending: Iterable[Signal],
        context: DecisionContext,
        board: Board | None,
        skills: ForecastSkills,
        external: ExternalVotes,
    ) -> Iterable[EvaluatedSignal]:
        for signal in pending:
            checked = signal.expire_if_due(context.now_after(signal.received_at))
            if checked is not signal:
                yield EvaluatedSignal(checked)
            elif board is not None and self.evaluator.has_all_votes(signal, board, external):
                yield self.evaluator.evaluate(signal, context, board, skills, external)
