"""A board that shows drift has the rebalance checked at once; one board is one run."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

from app.foundation.event_bus import Bus
from app.foundation.jobs import Document, Enqueued
from app.foundation.ports import Jobs
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.workers.reactions import drift_reactions

T0 = datetime(2026, 3, 4, 5, tzinfo=UTC)


class Asked:
    """The part of the port of jobs that is used: the requests, as they came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Document, str, str | None]] = []

    async def enqueue(
        self, kind: str, payload: Document, *, run_id: str, key: str | None = None
    ) -> Enqueued:
        self.requests.append((kind, payload, run_id, key))
        return Enqueued(run_id, is_new=True)


def board(minutes: int) -> ScoresUpdated:
    at = T0 + timedelta(minutes=minutes)
    return ScoresUpdated(f"board-{minutes}", at, 10, 0, 0.1, at)


async def test_a_board_that_shows_drift_has_the_rebalance_checked_and_others_do_not() -> None:
    bus, asked, beats = Bus(), Asked(), [0]
    drifts = iter([False, True, True])

    async def has_drifted() -> bool:
        return next(drifts)

    def beat() -> None:
        beats[0] += 1

    react = drift_reactions(bus, has_drifted, cast("Jobs", asked))
    task = asyncio.ensure_future(react(beat))
    await asyncio.sleep(0)
    bus.publish(PortfolioChanged(1, 1, "ADD", "BTCUSDT", T0))  # weights are no board
    bus.publish(board(0))
    bus.publish(board(5))
    bus.publish(board(5))  # heard of a second time: it is the same request
    async with asyncio.timeout(30):
        while beats[0] < 4:
            await asyncio.sleep(0)
    payload = {"scheduled_at": "2026-03-04T05:05:00+00:00"}
    name = "rebalance_check:2026-03-04T05:05:00.000000Z:drift"
    assert asked.requests == [("rebalance_check", payload, name, "rebalance_check")] * 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
