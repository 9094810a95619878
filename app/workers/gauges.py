"""Process gauges: event-loop lag, stacks of a blocked loop, connections and tasks."""

import asyncio
import faulthandler
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, Protocol

import structlog

from app.foundation.event_bus import Bus
from app.foundation.health import Mode
from app.foundation.metrics import Metrics
from app.foundation.ports import Monotonic
from app.market.domain.models import ExchangeLink, LinkState
from app.workers.supervisor import Heartbeat, Supervisor

CHECK_S: Final = 1.0  # each check starts a thread
LIMIT_S: Final = 2.0
_STDERR: Final = 2


async def dump_stack_when_blocked(
    file: IO[str] | int = _STDERR, check_s: float = CHECK_S, limit_s: float = LIMIT_S
) -> None:
    """Writes the stacks of all threads to `file` (stderr) once the loop is blocked for `limit_s`.

    The timer runs in C beside the interpreter, so it also sees a loop that holds the GIL. The dump
    holds files, lines and functions, no values. A process has only one such timer.
    """
    try:
        while True:
            faulthandler.dump_traceback_later(limit_s, file=file)
            await asyncio.sleep(check_s)
    finally:
        faulthandler.cancel_dump_traceback_later()


_log = structlog.get_logger("loop")
STEP_S: Final = 0.5
CHECK_INTERVAL_S: Final = 5.0


class ConnectionUsage(Protocol):
    @property
    def checked_out(self) -> int: ...


class LinkSource(Protocol):
    def link(self) -> ExchangeLink: ...


@dataclass(frozen=True, slots=True)
class Gauges:
    """Measures event-loop lag as the oversleep of a fixed sleep, and samples process levels."""

    metrics: Metrics
    monotonic: Monotonic
    database: ConnectionUsage
    exchange: LinkSource
    bus: Bus
    supervisor: Supervisor
    mode: Callable[[], Mode]
    observe: Callable[[], Awaitable[object]]  # samples health, which pings the database

    def watch_mode(self) -> None:
        """Computes the mode at each scrape, so that it equals the mode in responses."""
        for mode in Mode:
            self.metrics.service_mode.labels(mode.value).set_function(partial(self._is, mode))

    def _is(self, mode: Mode) -> float:
        return float(self.mode() is mode)

    async def run(self, beat: Heartbeat) -> None:
        observed_at: float | None = None
        while True:
            started_at = self.monotonic()
            if observed_at is None or started_at - observed_at >= CHECK_INTERVAL_S:
                observed_at = started_at
                await self.observe()
                started_at = self.monotonic()
            await asyncio.sleep(STEP_S)
            lag_s = max(0.0, self.monotonic() - started_at - STEP_S)
            self.metrics.event_loop_lag_seconds.observe(lag_s)
            if lag_s >= LIMIT_S:
                self.metrics.event_loop_stalls.inc()
                _log.error("event_loop_blocked", lag_s=round(lag_s, 3))
            beat()

    def set_levels(self) -> None:
        metrics = self.metrics
        metrics.database_connections_in_use.set(self.database.checked_out)
        metrics.exchange_link_up.set(self.exchange.link().state is LinkState.UP)
        metrics.bus_dropped_events.set(self.bus.dropped)
        metrics.event_loop_tasks.set(len(asyncio.all_tasks()))
        for task in self.supervisor.facts():
            if task.last_success_at is not None:
                gauge = metrics.task_last_success_timestamp_seconds.labels(task.name)
                gauge.set(task.last_success_at.timestamp())
