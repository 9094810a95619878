"""Process gauges: event-loop lag, stacks of a blocked loop, connections and tasks."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
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

CHECK_S: Final = 1.0
LIMIT_S: Final = 2.0


async def dump_stack_when_blocked(
    file: IO[str], check_s: float = CHECK_S, limit_s: float = LIMIT_S
) -> None:
    """Writes the stacks of all threads to `file` once the loop is blocked for `limit_s`.

    A thread of Python watches, so that the stacks stand still while it reads them: the timer of
    `faulthandler` reads them while they change, and can end the process. A call that holds the
    interpreter lock is seen when it gives the lock away. A block is dumped once, with files, lines
    and functions, and no values.
    """
    loop, over = asyncio.get_running_loop(), threading.Event()
    beat = loop.time()

    def watch() -> None:
        dumped: float | None = None
        while not over.wait(min(check_s, limit_s)):
            seen = beat
            if seen != dumped and loop.time() - seen > limit_s:
                dumped = seen
                with suppress(OSError, ValueError):  # the reader has gone
                    file.write(f"The event loop is blocked for {limit_s:g} s.\n{_stacks()}")
                    file.flush()

    watcher = threading.Thread(target=watch, name="loop-watch", daemon=True)
    watcher.start()
    try:
        while True:
            await asyncio.sleep(check_s)
            beat = loop.time()
    finally:
        over.set()


def _stacks() -> str:
    """Returns the stacks of all threads, the innermost call first."""
    names = {one.ident: one.name for one in threading.enumerate()}
    lines: list[str] = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  # documented, in spite of its name
        lines.append(f"Thread {names.get(ident, ident)} (most recent call first):")
        lines += [
            f'  File "{one.f_code.co_filename}", line {line} in {one.f_code.co_name}'
            for one, line in traceback.walk_stack(frame)
        ]
    return "\n".join(lines) + "\n"


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
