"""Durable runs as use cases of the service; publishes job events at start, progress and end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final

from app.foundation.errors import Code, ServiceError
from app.foundation.events import JobChange, JobChanged
from app.foundation.job_service import JobEventPublisher
from app.foundation.jobs import Document, JobKind, JobState
from app.foundation.ports import Clock, StepJournal
from app.market.services.backfill import STAGES, Progress, first_fill
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.retention import SWEEPS
from app.performance.services.report import Report
from app.workers.durable import DurableRun
from app.workers.schedule import Tasks

STEP_S: Final = 1.0
_MIN_CHANGE: Final = 0.01  # of the whole job: smaller progress is not published


def report_progress(
    run: DurableRun,
    events: JobEventPublisher,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> DurableRun:
    """Returns the run with its start, progress and end published.

    A run that another process resumes is published as started again. A run that stops with its
    process has not ended; a cancellation is published by its caller.
    """

    async def work(journal: StepJournal, payload: Document) -> Document:
        reporter = _ReportingJournal(journal, run, events, clock, sleep)
        await reporter.publish(JobChange.STARTED, JobState.RUNNING)
        try:
            result = await run.work(reporter, payload)
        except Exception as error:
            code = error.code if isinstance(error, ServiceError) else Code.INTERNAL_ERROR
            await reporter.publish(JobChange.ENDED, JobState.FAILED, code.value)
            raise
        reporter.share(1, 1)
        await reporter.publish(JobChange.ENDED, JobState.DONE)
        return result

    return replace(run, work=work)


@dataclass(slots=True)
class _ReportingJournal:
    """StepJournal whose progress is published while a step runs."""

    journal: StepJournal
    run: DurableRun
    events: JobEventPublisher
    clock: Clock
    sleep: Callable[[float], Awaitable[None]]
    _step: str | None = None
    _part: float = 0.0
    _published: float = field(default=0.0)

    @property
    def run_id(self) -> str:
        return self.journal.run_id

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        self._step, self._part = name, 0.0
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch())
                try:
                    return await self.journal.step(name, action)
                finally:
                    watching.cancel()
        except ExceptionGroup as group_error:
            # Only the step raises: the watch never fails.
            raise group_error.exceptions[0] from None

    def share(self, done: int, total: int) -> None:
        self._part = done / total if total else 0.0
        self.journal.share(done, total)

    async def publish(self, change: JobChange, state: JobState, error: str | None = None) -> None:
        self._published = self._whole()
        progress = 1.0 if state is JobState.DONE else round(min(self._published, 0.99), 4)
        job = (self.run_id, self.run.kind, change, state)
        await self.events.publish(JobChanged(*job, self._step, progress, error, self.clock()))

    def _whole(self) -> float:
        if self._step is None:
            return 0.0
        return (self.run.steps.index(self._step) + self._part) / len(self.run.steps)

    async def _watch(self) -> None:
        while True:
            await self.sleep(STEP_S)
            if self._whole() - self._published >= _MIN_CHANGE:
                await self.publish(JobChange.PROGRESS, JobState.RUNNING)


RenderReport = Callable[[Report], Document]


def create_runs(
    service: MySymbolsServiceV2, work: Tasks, render_report: RenderReport
) -> tuple[DurableRun, ...]:
    """Returns the runs of all job kinds; decisions wait for a complete board.

    `render_report` makes the document of a report.
    """
    does = _RunWork(service, work, render_report)
    every = (
        DurableRun(JobKind.REBALANCE_CHECK.value, ("check",), does.rebalance_check, work.scored),
        DurableRun(
            JobKind.REPLACEMENT_CHECK.value, ("check",), does.replacement_check, work.scored
        ),
        DurableRun(JobKind.CONTRACT_SYNC.value, ("contracts",), does.contract_sync),
        DurableRun(JobKind.SCORING.value, ("board",), does.scoring, work.scorable),
        DurableRun(JobKind.SAMPLE_DATA.value, ("fill", "board"), does.sample_data),
        DurableRun(JobKind.BACKFILL.value, ("contracts", "fill", "board"), does.backfill),
        DurableRun(JobKind.REPORT.value, ("report",), does.report),
        DurableRun(JobKind.PERFORMANCE_MARKS.value, ("mark",), does.performance_mark, work.scored),
        DurableRun(JobKind.SIGNAL_OUTCOMES.value, ("book",), does.signal_outcomes, work.scored),
        DurableRun(JobKind.RETENTION.value, tuple(SWEEPS), does.retention),
        DurableRun(JobKind.DAILY_DIGEST.value, ("send",), does.daily_digest),
        DurableRun(JobKind.SCORE_VALIDATION.value, ("measure",), does.score_validation),
        DurableRun(JobKind.BACKTEST.value, ("trial",), does.backtest),
    )
    return tuple(report_progress(run, service.jobs.events, service.jobs.clock) for run in every)


@dataclass(frozen=True, slots=True)
class _RunWork:
    """Work of each kind. Every step is repeatable: checks decide anew in one transaction, the
    others fetch what is missing and score what is there.
    """

    service: MySymbolsServiceV2
    work: Tasks
    render_report: RenderReport

    async def rebalance_check(self, journal: StepJournal, payload: Document) -> Document:
        scheduled_at = datetime.fromisoformat(str(payload["scheduled_at"]))

        async def check() -> Document:
            return await self.work.rebalance_check(scheduled_at)

        return await journal.step("check", check)

    async def replacement_check(self, journal: StepJournal, payload: Document) -> Document:
        del payload

        async def check() -> Document:
            return await self.work.replacement_check()

        return await journal.step("check", check)

    async def contract_sync(self, journal: StepJournal, payload: Document) -> Document:
        del payload

        async def contracts() -> Document:
            summary = await self.service.market.sync_contracts()
            return {
                "listed": summary.listed,
                "added": list(summary.added),
                "specification_changed": list(summary.specification_changed),
                "updated": list(summary.updated),
                "delisted": list(summary.delisted),
                "rejected": len(summary.rejections),
                "quarantined": summary.quarantined,
            }

        return await journal.step("contracts", contracts)

    async def scoring(self, journal: StepJournal, payload: Document) -> Document:
        del payload

        async def board() -> Document:
            board = await self.service.scoring.calculate()
            return {"run_id": board.run_id, "scores_calculated": board.universe_size}

        return await journal.step("board", board)

    async def backfill(self, journal: StepJournal, payload: Document) -> Document:
        """Fetches candles; a resumed run skips stored ones."""

        async def fill() -> Document:
            await first_fill(self.service.market, _stages(journal))
            facts = self.service.market.facts()
            return {"contracts": facts.contracts, "eligible": facts.eligible}

        listed = await self.contract_sync(journal, payload)
        filled = await journal.step("fill", fill)
        # Another process may have filled the market and died: this one has to load it first.
        await self.work.filled()
        return {"listed": listed["listed"], **filled, **await self.scoring(journal, payload)}

    async def report(self, journal: StepJournal, payload: Document) -> Document:
        begin, end = (_moment(payload.get(name)) for name in ("from", "to"))

        async def report() -> Document:
            return self.render_report(await self.service.reporting.report(begin, end))

        return await journal.step("report", report)

    async def performance_mark(self, journal: StepJournal, payload: Document) -> Document:
        slot = datetime.fromisoformat(str(payload["scheduled_at"]))

        async def mark() -> Document:
            snapshot = await self.service.performance_marks.record(slot)
            return {"version": None if snapshot is None else snapshot.version}

        return await journal.step("mark", mark)

    async def signal_outcomes(self, journal: StepJournal, payload: Document) -> Document:
        """Returns the numbers of booked outcomes; a resumed run continues with the rest."""
        del payload

        async def book() -> Document:
            booked = await self.service.signal_outcomes.book()
            return {"decided": booked.decided, "unknown": booked.unknown}

        return await journal.step("book", book)

    async def daily_digest(self, journal: StepJournal, payload: Document) -> Document:
        """Returns the number of channels; null if the digest is not due or was sent before."""
        del payload

        async def send() -> Document:
            return {"channels": await self.service.daily_digest.send()}

        return await journal.step("send", send)

    async def score_validation(self, journal: StepJournal, payload: Document) -> Document:
        """Measures the live scores once a day; returns the time and days of the evidence."""
        del payload

        async def measure() -> Document:
            found = await self.service.score_validation.validate()
            return {
                "measured_at": found.measured_at.isoformat(),
                "board_days": found.board_days,
                "scores": len(found.scores),
            }

        return await journal.step("measure", measure)

    async def backtest(self, journal: StepJournal, payload: Document) -> Document:
        """Logs the trial of this job; a resumed run does not log another one."""

        async def trial() -> Document:
            return await self.service.backtests.run(journal.run_id, payload, journal.share)

        return await journal.step("trial", trial)

    async def retention(self, journal: StepJournal, payload: Document) -> Document:
        """Returns the number of deleted rows of each kind."""
        del payload

        async def sweep(name: str) -> Document:
            return {name: await self.service.retention.sweep(name)}

        done: dict[str, object] = {}
        for name in SWEEPS:
            done |= await journal.step(name, partial(sweep, name))
        return done

    async def sample_data(self, journal: StepJournal, payload: Document) -> Document:
        del payload

        async def fill() -> Document:
            await self.service.sample_data.fill(_stages(journal))
            return {}

        async def board() -> Document:
            loaded = await self.service.sample_data.load()
            return {
                "symbols": len(loaded.symbols),
                "daily_candles": loaded.daily_candles,
                "run_id": loaded.run_id,
            }

        await journal.step("fill", fill)
        return await journal.step("board", board)


def _moment(text: object) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text))


def _stages(journal: StepJournal) -> Progress:
    """Reports the stages of a fill as progress of the journal."""

    def report_stage(stage: str, done: int, total: int) -> None:
        part = done / total if total else 0.0
        journal.share(round((STAGES.index(stage) + part) * 100), len(STAGES) * 100)

    return report_stage
