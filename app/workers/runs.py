"""Durable runs, as use cases of the service: what must happen once, or survive the process."""

import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog

from app.alerts.services.monitor import AlertWatch
from app.foundation.errors import Code, UnavailableError
from app.foundation.idempotency import Command
from app.foundation.jobs import Document, JobKind
from app.foundation.ports import Journal, NewId
from app.market.services.backfill import STAGES, Progress, first_fill
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.retention import SWEEPS
from app.performance.services.report import Report
from app.workers.durable import Run, telling
from app.workers.schedule import Activities
from app.workers.supervisor import Beat

Shown = Callable[[Report], Document]


def runs(service: MySymbolsServiceV2, work: Activities, shown: Shown) -> tuple[Run, ...]:
    """Every kind of job; the checks decide on a whole board, so they wait for one.

    `shown` makes the document of a report.
    """
    does = _Works(service, work, shown)
    every = (
        Run(JobKind.REBALANCE_CHECK.value, ("check",), does.rebalance_check, work.scored),
        Run(JobKind.REPLACEMENT_CHECK.value, ("check",), does.replacement_check, work.scored),
        Run(JobKind.CONTRACT_SYNC.value, ("contracts",), does.contract_sync),
        Run(JobKind.SCORING.value, ("board",), does.scoring, work.scorable),
        Run(JobKind.SAMPLE_DATA.value, ("fill", "board"), does.sample_data),
        Run(JobKind.BACKFILL.value, ("contracts", "fill", "board"), does.backfill),
        Run(JobKind.REPORT.value, ("report",), does.report),
        Run(JobKind.PERFORMANCE_MARKS.value, ("mark",), does.performance_mark, work.scored),
        Run(JobKind.SIGNAL_OUTCOMES.value, ("book",), does.signal_outcomes, work.scored),
        Run(JobKind.RETENTION.value, tuple(SWEEPS), does.retention),
    )
    return tuple(telling(run, service.jobs.news, service.jobs.clock) for run in every)


@dataclass(frozen=True, slots=True)
class _Works:
    """Every step may be begun again: a check is one transaction that decides anew, the others
    ask again for what is there and score what is there.
    """

    service: MySymbolsServiceV2
    work: Activities
    shown: Shown

    async def rebalance_check(self, journal: Journal, payload: Document) -> Document:
        scheduled_at = datetime.fromisoformat(str(payload["scheduled_at"]))

        async def check() -> Document:
            return await self.work.rebalance_check(scheduled_at)

        return await journal.step("check", check)

    async def replacement_check(self, journal: Journal, payload: Document) -> Document:
        del payload

        async def check() -> Document:
            return await self.work.replacement_check()

        return await journal.step("check", check)

    async def contract_sync(self, journal: Journal, payload: Document) -> Document:
        del payload

        async def contracts() -> Document:
            summary = await self.service.market.sync_contracts()
            return {
                "listed": summary.listed,
                "added": list(summary.added),
                "respecified": list(summary.respecified),
                "updated": list(summary.updated),
                "vanished": list(summary.vanished),
                "rejected": len(summary.rejections),
                "quarantined": summary.quarantined,
            }

        return await journal.step("contracts", contracts)

    async def scoring(self, journal: Journal, payload: Document) -> Document:
        del payload

        async def board() -> Document:
            board = await self.service.scoring.calculate()
            return {"run_id": board.run_id, "scores_calculated": board.universe_size}

        return await journal.step("board", board)

    async def backfill(self, journal: Journal, payload: Document) -> Document:
        """What is stored is not asked for again: begun again it goes on where it stopped."""

        async def fill() -> Document:
            await first_fill(self.service.market, _stages(journal))
            facts = self.service.market.facts()
            return {"contracts": facts.contracts, "eligible": facts.eligible}

        listed = await self.contract_sync(journal, payload)
        filled = await journal.step("fill", fill)
        # Another process may have filled, and died since: this one has its market to read first.
        await self.work.filled()
        return {"listed": listed["listed"], **filled, **await self.scoring(journal, payload)}

    async def report(self, journal: Journal, payload: Document) -> Document:
        begin, end = (_moment(payload.get(name)) for name in ("from", "to"))

        async def report() -> Document:
            return self.shown(await self.service.reporting.report(begin, end))

        return await journal.step("report", report)

    async def performance_mark(self, journal: Journal, payload: Document) -> Document:
        slot = datetime.fromisoformat(str(payload["scheduled_at"]))

        async def mark() -> Document:
            noted = await self.service.performance_marks.note(slot)
            return {"version": None if noted is None else noted.version}

        return await journal.step("mark", mark)

    async def signal_outcomes(self, journal: Journal, payload: Document) -> Document:
        """How many were booked; begun again it finds those that are left."""
        del payload

        async def book() -> Document:
            booked = await self.service.signal_outcomes.book()
            return {"decided": booked.decided, "unknown": booked.unknown}

        return await journal.step("book", book)

    async def retention(self, journal: Journal, payload: Document) -> Document:
        """How many of each were dropped."""
        del payload

        async def sweep(name: str) -> Document:
            return {name: await self.service.retention.sweep(name)}

        done: dict[str, object] = {}
        for name in SWEEPS:
            done |= await journal.step(name, partial(sweep, name))
        return done

    async def sample_data(self, journal: Journal, payload: Document) -> Document:
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


def _stages(journal: Journal) -> Progress:
    """Tells the journal how far the stages of a fill are."""

    def told(stage: str, done: int, total: int) -> None:
        part = done / total if total else 0.0
        journal.share(round((STAGES.index(stage) + part) * 100), len(STAGES) * 100)

    return told


ACTOR: Final = "schedule"
# Data is too old or too little to decide on: it will be there again by itself.
_STALE: Final = frozenset({Code.MARKET_DATA_STALE, Code.NO_BOARD_YET, Code.CLOCK_UNSAFE})
_log = structlog.get_logger("schedule")


async def unless_stale(action: Awaitable[object]) -> Document:
    """What is recorded of an action: nothing, or that it was skipped and why."""
    try:
        await action
    except UnavailableError as refused:
        if refused.code not in _STALE:
            raise
        _log.warning("automatic_action_skipped", code=refused.code.value, detail=refused.detail)
        return {"skipped": refused.code.value, "detail": refused.detail}
    return {}


def activities(service: MySymbolsServiceV2, watch: AlertWatch, new_id: NewId) -> Activities:
    """Each activity of the schedule, bound to the use case that does it."""

    async def rebalance_check(scheduled_at: datetime) -> Document:
        command = Command(actor=ACTOR, request_id=new_id())
        return await unless_stale(service.rebalancing.check(command, scheduled_at))

    async def replacement_check() -> Document:
        command = Command(actor=ACTOR, request_id=new_id())
        return await unless_stale(service.replacement.execute(command, unattended=True))

    async def forced_replacement() -> Document:
        command = Command(actor=ACTOR, request_id=new_id())
        return await unless_stale(
            service.replacement.execute(command, unattended=True, forced_only=True)
        )

    async def fill(beat: Beat) -> None:
        await first_fill(service.market, lambda *_: beat())
        if not service.scoring.is_whole():
            await service.scoring.calculate()
        # The market of 600 contracts is some 900,000 objects, nearly all of them permanent:
        # without this, each full collection holds the event loop for a quarter of a second.
        gc.collect()
        gc.freeze()

    async def books() -> None:
        try:
            first = await service.controls.first_symbols()
        except UnavailableError:
            first = ()  # without the database the rotation goes on
        first = (*first, *service.scoring.best(service.market.configuration().feed.candidates))
        step_s = service.market.configuration().intervals.order_book_check_s
        await service.market.refresh_books(step_s, first)

    async def signals() -> None:
        await service.signals.clear_queue()
        await unless_stale(service.signal_actions.act())

    async def signal_sources() -> None:
        await service.signal_sources.look()

    return Activities(
        first_fill=fill,
        scorable=service.market.scorable.wait,
        filled=service.market.filled.wait,
        scored=service.scoring.whole.wait,
        market=service.market.refresh_market,
        candles=service.market.refresh_candles,
        books=books,
        funding=service.market.refresh_funding,
        scoring=service.scoring.calculate,
        is_provisional=service.scoring.is_provisional,
        rebalance_check=rebalance_check,
        replacement_check=replacement_check,
        forced_replacement=forced_replacement,
        alerts=watch.look,
        signals=signals,
        signal_sources=signal_sources,
    )
