"""Has the rebalance checked as soon as a board shows drift, not only with the next tick."""

from collections.abc import Awaitable, Callable
from typing import Final

from app.foundation.event_bus import Bus
from app.foundation.jobs import JobKind
from app.foundation.ports import Jobs
from app.scoring.domain.events import ScoresUpdated
from app.workers.alert_reactions import IDLE_S, heard
from app.workers.supervisor import Heartbeat, Work

DRIFT_REACTIONS: Final = "drift_reactions"


def drift_reactions(
    bus: Bus, has_drifted: Callable[[], Awaitable[bool]], jobs: Jobs, idle_s: float = IDLE_S
) -> Work:
    """A task that hears of boards; where one calls for it, the check is a run named after its time.

    However many processes hear of a board, and however often, it has one run; a check that is
    under way already stands for it. A member that moves much brings about a board of its own.
    """

    async def react(beat: Heartbeat) -> None:
        kind = JobKind.REBALANCE_CHECK.value
        with bus.subscribe() as events:
            while True:
                event = await heard(events, beat, idle_s)
                if isinstance(event, ScoresUpdated) and await has_drifted():
                    at = event.calculated_at
                    name = f"{kind}:{at:%Y-%m-%dT%H:%M:%S.%fZ}:drift"
                    payload = {"scheduled_at": at.isoformat()}
                    await jobs.enqueue(kind, payload, run_id=name, key=kind)
                beat()

    return react
