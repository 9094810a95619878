"""The loop behind the heartbeat of this process and the watch over the others."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from app.foundation.errors import UnavailableError
from app.foundation.metrics import Metrics
from app.foundation.replicas import Replicas
from app.workers.supervisor import Heartbeat

_log = structlog.get_logger("replicas")


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Beats at its own pace while the database is away; a longer pause would seem a death."""

    replicas: Replicas
    metrics: Metrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, beat: Heartbeat) -> None:
        while True:
            try:
                taken = await self.replicas.round()
            except UnavailableError as error:
                _log.warning("heartbeat_missed", cause=str(error.code))
            else:
                self.metrics.job_executors_buried.inc(len(taken))
                beat()
            await self.sleep(self.replicas.beat_s)
