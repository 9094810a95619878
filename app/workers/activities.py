"""Binds the activities of the schedule to use cases of the service."""

import gc
from collections.abc import Awaitable
from datetime import datetime
from typing import Final

import structlog

from app.alerts.services.monitor import AlertScheduler
from app.foundation.errors import Code, UnavailableError
from app.foundation.idempotency import Command
from app.foundation.jobs import Document
from app.foundation.ports import NewId
from app.market.services.backfill import first_fill
from app.my_symbols import MySymbolsServiceV2
from app.workers.schedule import Tasks
from app.workers.supervisor import Heartbeat

ACTOR: Final = "schedule"
# Data is too old or missing: a later run succeeds without an operator.
_STALE: Final = frozenset({Code.MARKET_DATA_STALE, Code.NO_BOARD_YET, Code.CLOCK_UNSAFE})
_log = structlog.get_logger("schedule")


async def skip_if_stale(action: Awaitable[object]) -> Document:
    """Runs an action; returns an empty record, or the reason for which it was skipped."""
    try:
        await action
    except UnavailableError as refused:
        if refused.code not in _STALE:
            raise
        _log.warning("automatic_action_skipped", code=refused.code.value, detail=refused.detail)
        return {"skipped": refused.code.value, "detail": refused.detail}
    return {}


def activities(service: MySymbolsServiceV2, watch: AlertScheduler, new_id: NewId) -> Tasks:
    """Returns the use case of each scheduled activity."""

    async def rebalance_check(scheduled_at: datetime) -> Document:
        command = Command(actor=ACTOR, request_id=new_id())
        return await skip_if_stale(service.rebalancing.check(command, scheduled_at))

    async def replacement_check() -> Document:
        command = Command(actor=ACTOR, request_id=new_id())
        return await skip_if_stale(service.replacement.execute(command, unattended=True))

    async def forced_replacement() -> Document:
        command = Command(actor=ACTOR, request_id=new_id())
        return await skip_if_stale(
            service.replacement.execute(command, unattended=True, forced_only=True)
        )

    async def fill(beat: Heartbeat) -> None:
        await first_fill(service.market, lambda *_: beat())
        if not service.scoring.has_complete_board():
            await service.scoring.calculate()
        # The market of 600 contracts is some 900,000 objects, nearly all of them permanent.
        # Without freeze, each full collection blocks the event loop for a quarter of a second.
        gc.collect()
        gc.freeze()

    async def books() -> None:
        try:
            first = await service.controls.first_symbols()
        except UnavailableError:
            first = ()  # without the database the rotation continues
        first = (*first, *service.scoring.best(service.market.configuration().feed.candidates))
        step_s = service.market.configuration().intervals.order_book_check_s
        await service.market.refresh_books(step_s, first)

    async def signals() -> None:
        await service.signals.process_queue()
        await skip_if_stale(service.signal_actions.apply_approved())

    async def signal_sources() -> None:
        await service.signal_sources.poll()

    return Tasks(
        first_fill=fill,
        scorable=service.market.scorable.wait,
        filled=service.market.filled.wait,
        scored=service.scoring.complete_board_ready.wait,
        market=service.market.refresh_market,
        candles=service.market.refresh_candles,
        books=books,
        funding=service.market.refresh_funding,
        scoring=service.scoring.calculate,
        is_provisional=service.scoring.is_provisional,
        rebalance_check=rebalance_check,
        replacement_check=replacement_check,
        forced_replacement=forced_replacement,
        alerts=watch.evaluate,
        signals=signals,
        signal_sources=signal_sources,
    )
