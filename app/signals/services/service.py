"""Signals: taken in once, judged at once or from the queue, listed, tried again, cleared away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.scoring.domain.board import Board
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import Claim, Signal
from app.signals.domain.track_record import Record, SignalCounts, SourceKey
from app.signals.services.evaluation import Judges, Skills, board_of
from app.signals.services.external_agents import Asked
from app.signals.services.intake import MAX_WAITING, SignalIntake, Submission, Taken
from app.signals.services.signal_news import tell
from app.signals.storage.outcomes import OutcomeCounts, SignalOutcomeRepository
from app.signals.storage.signals import SignalRepository
from app.signals.storage.statistics import SignalCountRepository, SignalRecordRepository

BATCH: Final = 100
Position = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of those that had failed."""

    queued: int
    expired: int


@dataclass(frozen=True, slots=True)
class Cleared:
    expired: int
    removed: int


@dataclass(frozen=True, slots=True)
class SignalStatistics:
    """`weights` are those of now, None while all agents weigh the same."""

    counts: SignalCounts
    outcomes: OutcomeCounts
    agents: Mapping[str, Record]
    sources: Mapping[SourceKey, Record]
    weights: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Signals:
    """Signal submission, evaluation and listing; a signal and its verdict are stored together."""

    database: Database
    grounds: GroundsNow
    idempotency: IdempotentExecutor
    new_id: NewId
    judges: Judges = field(default_factory=Judges)
    batch: int = BATCH  # as many are judged in one transaction
    max_waiting: int = MAX_WAITING  # submissions that wait for their transaction
    _intake: SignalIntake = field(init=False)

    def __post_init__(self) -> None:
        intake = SignalIntake(
            self.grounds,
            self.idempotency,
            self.new_id,
            self.judges,
            max_waiting=self.max_waiting,
        )
        object.__setattr__(self, "_intake", intake)

    async def submit(
        self, claim: Claim, command: Command, render: Render[Taken] | None = None
    ) -> CommandResult[Taken]:
        """The signal, judged at once where that can be and none waits before it.

        The same one of the same source again is the one that there is. Raises RefusedError
        (validation_failed, signal_expired, symbol_unknown, symbol_ambiguous), ConflictError
        (signal_conflict) and RateLimitedError.
        """
        return await self._intake.submit(Submission(claim, command, render))

    async def work_off(self, limit: int | None = None) -> int:
        """Judges the oldest that wait; how many have left the queue.

        Without a board to decide on they wait on, up to their end.
        """
        most = self.batch if limit is None else limit
        asked = await self._asked(most) if self.judges.asks_outside else Asked()

        async def change(unit: UnitOfWork) -> int:
            grounds = self.grounds(await unit.get(ConfigurationRepository).current())
            taken = await unit.get(SignalRepository).take(most)
            claims = [one.claim for one in taken]
            skills = await self.judges.skills(unit, grounds.configuration.signals, claims)
            done = list(self._settled(taken, grounds, board_of(grounds), skills, asked))
            await unit.get(SignalRepository).save(done)
            tell(unit, done, grounds.at)
            return len(done)

        return await self.database.run(change)

    async def _asked(self, limit: int) -> Asked:
        """What agents from outside say of the oldest that wait; nothing is locked meanwhile."""
        async with self.database.read() as unit:
            waiting = await unit.get(SignalRepository).pending(limit)
            grounds = self.grounds(await unit.get(ConfigurationRepository).current())
        board = board_of(grounds)
        return Asked() if board is None else await self.judges.ask(waiting, grounds, board)

    async def clear_queue(self) -> int:
        """Judges until nothing waits that can be; how many have left the queue.

        Where nothing waits nothing is written.
        """
        done = 0
        while True:
            async with self.database.read() as unit:
                if not await unit.get(SignalRepository).pending_count():
                    return done
            some = await self.work_off()
            done += some
            if some < self.batch:
                return done

    async def get(self, signal_id: str) -> Judged:
        """Raises NotFoundError."""
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).one(signal_id)

    async def pending(self, limit: int, after: Position | None = None) -> tuple[Signal, ...]:
        """What waits, the oldest first; `after` is (received_at, signal_id) of the last seen."""
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).pending(limit, after)

    async def processed(
        self, hours: int, limit: int, before: Position | None = None
    ) -> tuple[Judged, ...]:
        """What has left the queue within the last `hours`, the last first."""
        since = self.grounds.clock() - timedelta(hours=hours)
        async with self.database.read() as unit:
            return await unit.get(SignalRepository).processed(since, limit, before)

    async def statistics(self, days: int) -> SignalStatistics:
        """Counts of the signals that came in within the last `days`; records are of all time."""
        since = self.grounds.clock() - timedelta(days=days)
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
        self, max_retries: int, command: Command, render: Render[Requeued] | None = None
    ) -> CommandResult[Requeued]:
        """Those that nobody could judge, back in the queue unless tried again so often already."""

        async def change(unit: UnitOfWork) -> Requeued:
            now = self.grounds.clock()
            failed = await unit.get(SignalRepository).failed(max_retries + 1, BATCH)
            ended = [one.expired(now) for one in failed]
            pairs = zip(ended, failed, strict=True)
            after = [one.again() if one is old else one for one, old in pairs]
            moved = [Judged(one) for one in after]
            await unit.get(SignalRepository).save(moved)
            tell(unit, moved, now)
            queued = sum(one.is_pending for one in after)
            return Requeued(queued, len(after) - queued)

        return await self.idempotency.run(command, change, render)

    async def cleanup(
        self, older_than: timedelta, command: Command, render: Render[Cleared] | None = None
    ) -> CommandResult[Cleared]:
        """Ends what is over (up to 1000); drops what was rejected, expired or failed before.

        What was approved stays: effects rest on it.
        """

        async def change(unit: UnitOfWork) -> Cleared:
            return await self._cleared(unit, older_than)

        return await self.idempotency.run(command, change, render)

    async def forget_old(self, older_than: timedelta) -> int:
        """The same, unasked; how many were dropped."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return (await self._cleared(unit, older_than)).removed

    async def _cleared(self, unit: UnitOfWork, older_than: timedelta) -> Cleared:
        now = self.grounds.clock()
        over = [Judged(one.expired(now)) for one in await unit.get(SignalRepository).overdue(now)]
        await unit.get(SignalRepository).save(over)
        tell(unit, over, now)
        return Cleared(len(over), await unit.get(SignalRepository).forget(now - older_than))

    def _settled(
        self,
        taken: Iterable[Signal],
        grounds: Grounds,
        board: Board | None,
        skills: Skills,
        asked: Asked,
    ) -> Iterable[Judged]:
        for signal in taken:
            ended = signal.expired(grounds.at)
            if ended is not signal:
                yield Judged(ended)
            elif board is not None and self.judges.may_judge(signal, board, asked):
                yield self.judges.judged(signal, grounds, board, skills, asked)
