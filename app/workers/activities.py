"""What runs by itself, as use cases of the service."""

from datetime import datetime

from app.domain.errors import UnavailableError
from app.services.alert_watch import AlertWatch
from app.services.backfill import first_fill
from app.services.my_symbols import MySymbolsServiceV2
from app.services.once import Command
from app.services.ports import NewId
from app.workers.schedule import Activities
from app.workers.supervisor import Beat

ACTOR = "schedule"


def activities(service: MySymbolsServiceV2, watch: AlertWatch, new_id: NewId) -> Activities:
    """Each activity of the schedule, bound to the use case that does it."""

    async def rebalance_check(scheduled_at: datetime) -> None:
        command = Command(actor=ACTOR, request_id=new_id())
        await service.rebalancing.check(command, scheduled_at)

    async def replacement_check() -> None:
        command = Command(actor=ACTOR, request_id=new_id())
        await service.replacement.execute(command, unattended=True)

    async def forced_replacement() -> None:
        command = Command(actor=ACTOR, request_id=new_id())
        await service.replacement.execute(command, unattended=True, forced_only=True)

    async def fill(beat: Beat) -> None:
        await first_fill(service.market, lambda *_: beat())
        if not service.scoring.is_whole():
            await service.scoring.calculate()

    async def books() -> None:
        try:
            first = await service.controls.first_symbols()
        except UnavailableError:
            first = ()  # without the database the rotation goes on
        step_s = service.market.configuration().cadences.books_tick
        await service.market.refresh_books(step_s, first)

    async def signals() -> None:
        await service.signals.clear_queue()
        await service.signal_actions.act()

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
