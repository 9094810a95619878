"""Sends the heartbeats of this process and watches the other processes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from app.foundation.errors import UnavailableError
from app.foundation.metrics import Metrics
from app.foundation.processes import ProcessRegistry
from app.workers.supervisor import Heartbeat

_log = structlog.get_logger("processes")


@dataclass(frozen=True, slots=True)
class ProcessHeartbeat:
    """Heartbeat loop at a fixed pace, also during an outage: a longer pause looks like a death."""

    registry: ProcessRegistry
    metrics: Metrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, beat: Heartbeat) -> None:
        while True:
            try:
                taken_over = await self.registry.send_heartbeat()
            except UnavailableError as error:
                _log.warning("heartbeat_missed", cause=str(error.code))
            else:
                self.metrics.job_executor_takeovers.inc(len(taken_over))
                beat()
            await self.sleep(self.registry.interval_s)
