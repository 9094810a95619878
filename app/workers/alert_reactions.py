"""Looks at the alerts as soon as something was decided, not only with the next tick."""

from datetime import datetime
from typing import Final

from app.domain.events import ConfigurationChanged, PortfolioChanged, ScoresUpdated
from app.services.bus import Bus
from app.services.ports import Clock
from app.workers.schedule import UseCase
from app.workers.supervisor import Beat, Work

ALERT_REACTIONS: Final = "alert_reactions"


def alert_reactions(bus: Bus, clock: Clock, look: UseCase) -> Work:
    """A task that hears of scores, members and settings; one look answers all that came before."""

    async def react(beat: Beat) -> None:
        looked: datetime | None = None
        with bus.subscribe() as events:
            async for event in events:
                happened = _time(event)
                if happened is None or (looked is not None and happened < looked):
                    continue
                looked = clock()
                await look()
                beat()

    return react


def _time(event: object) -> datetime | None:
    match event:
        case ScoresUpdated():
            return event.calculated_at
        case PortfolioChanged() | ConfigurationChanged():
            return event.occurred_at
        case _:
            return None
