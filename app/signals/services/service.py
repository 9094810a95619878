"""Signal use cases: submit, evaluate, list, retry and clean up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import NewId
from app.foundation.sql.database import BULK_STATEMENT_S, CommitMark, Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.scoring.domain.board import Board
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Signal, SignalClaim
from app.signals.domain.track_record import ForecastRecord, SignalCounts, SourceKey
from app.signals.services.evaluation import SignalEvaluator, Skills, usable_board
from app.signals.services.external_agents import ExternalVotes
from app.signals.services.intake import MAX_WAITING, IntakeResult, SignalIntake, Submission
from app.signals.services.signal_news import publish_signals
from app.signals.storage.outcomes import OutcomeCounts, SignalOutcomeRepository
from app.signals.storage.signals import SignalRepository
from app.signals.storage.statistics import SignalCountRepository, SignalRecordRepository

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
            ended = [one.expired(self._now_after(one)) for one in failed]
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
        overdue = await unit.get(SignalRepository).overdue(now)
        ended = [(one, one.expired(self._now_after(one))) for one in overdue]
        over = [EvaluatedSignal(after) for before, after in ended if after is not before]
        await unit.get(SignalRepository).save(over)
        publish_signals(unit, over, now)
        return CleanupResult(len(over), await unit.get(SignalRepository).forget(now - older_than))

    def _now_after(self, signal: Signal) -> datetime:
        """This moment by the proven time since a signal came; a step of the clock ends none."""
        came = signal.received_at
        return came + self.contexts.elapsed(came, self.contexts.clock())

    def _settled(
        self,
        taken: Iterable[Signal],
        context: DecisionContext,
        board: Board | None,
        skills: Skills,
        asked: ExternalVotes,
    ) -> Iterable[EvaluatedSignal]:
        for signal in taken:
            ended = signal.expired(context.now_after(signal.received_at))
            if ended is not signal:
                yield EvaluatedSignal(ended)
            elif board is not None and self.judges.has_all_votes(signal, board, asked):
                yield self.judges.evaluate(signal, context, board, skills, asked)
