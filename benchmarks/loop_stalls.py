"""Longest blocks of the event loop during scoring: refresh, score, save, publish on a whole market.

The service runs in this process, its local exchange in another. Each step of the loop is timed by
the wall clock and by the processor time of its thread; on a busy machine only the latter belongs to
the step. Prints the longest steps beside the goal, asserts nothing.
"""

import asyncio
import os
import tempfile
import time
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from app.cli.programs.sandbox import ExchangeOptions, run_exchange
from app.main import create_app, tune_interpreter
from app.settings import DatabaseVariables, KucoinVariables, LogVariables, Settings
from benchmarks.result_table import Row, note

CYCLES = int(os.environ.get("MYBENCH_CYCLES", "5"))
SECONDS = float(os.environ.get("MYBENCH_SECONDS", "10"))
START_S = 300.0
GOAL_MS = 50.0
SHOWN = 8


@dataclass(frozen=True, order=True)
class Hold:
    """One step of the loop, ms."""

    own: float  # processor time of the thread of the loop
    wall: float
    name: str


@dataclass
class Watch:
    """Collects the steps of the loop while `is_on`."""

    holds: list[Hold] = field(default_factory=list)
    is_on: bool = False

    @contextmanager
    def over_steps(self) -> Iterator[None]:
        """Times each callback of asyncio's loop, steps of tasks among them."""
        plain: Any = events.Handle._run  # noqa: SLF001  # asyncio has no hook per step

        def timed(handle: Any) -> Any:
            if not self.is_on:
                return plain(handle)
            # Before it runs: a task has another place by then, or none.
            callback: Any = handle._callback  # noqa: SLF001  # the same
            wall, own = time.perf_counter(), time.thread_time()
            try:
                return plain(handle)
            finally:
                spent = (time.thread_time() - own) * 1e3, (time.perf_counter() - wall) * 1e3
                self.holds.append(Hold(*spent, _named(callback)))

        setattr(events.Handle, "_run", timed)  # noqa: B010  # what is typed cannot be replaced
        try:
            yield
        finally:
            setattr(events.Handle, "_run", plain)  # noqa: B010  # as above


def _named(callback: Any) -> str:
    """Task or callback of the step."""
    owner: Any = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coroutine: Any = owner.get_coro()
        return f"{owner.get_name()}: {getattr(coroutine, '__qualname__', coroutine)}"
    return str(getattr(callback, "__qualname__", callback))


async def measure(app: FastAPI, watch: Watch, console: Console) -> None:
    async with app.router.lifespan_context(app) as state:
        service = (state or {})["my_symbols"]
        async with asyncio.timeout(START_S):
            # The feed fills itself: there is nothing here that could be waited for.
            while not service.scoring.market.is_filled():  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            await service.scoring.calculate()
        console.print(table("the feed alone", await watched(watch, _rest)))
        console.print(
            table(f"{CYCLES} scoring cycles", await watched(watch, service.scoring.calculate))
        )


async def _rest() -> None:
    await asyncio.sleep(SECONDS / CYCLES)


async def watched(watch: Watch, cycle: Callable[[], Any]) -> list[Hold]:
    """Steps during CYCLES calls of `cycle`, the longest first."""
    watch.holds, watch.is_on = [], True
    for _ in range(CYCLES):
        await cycle()
    watch.is_on = False
    return sorted(watch.holds, reverse=True)


def table(title: str, holds: list[Hold]) -> Table:
    longest = holds[0].own
    is_met = longest < GOAL_MS
    said = "met" if is_met else "NOT met"
    goal = f"< {GOAL_MS:.0f} ms"
    note(Row(f"longest hold of the loop, {title}", f"{longest:.1f} ms", goal=goal, met=is_met))
    made = Table(
        "processor ms", "clock ms", "step",
        title=f"{title}: longest hold {longest:.1f} ms, goal {GOAL_MS:.0f}: {said}",
    )  # fmt: skip
    for hold in holds[:SHOWN]:
        made.add_row(f"{hold.own:.1f}", f"{hold.wall:.1f}", hold.name)
    return made


def main() -> None:
    """Runs MYBENCH_CYCLES (5) scoring cycles on a market of about 550 contracts."""
    choice, watch = ExchangeOptions(7, 100_000, None, None, None), Watch()
    with tempfile.TemporaryDirectory() as room, run_exchange(choice) as exchange:
        settings = Settings(
            kucoin=KucoinVariables(base_url=exchange, source="sandbox"),
            database=DatabaseVariables(url=f"sqlite+aiosqlite:///{room}/bench.sqlite3"),
            log=LogVariables(level="error"),
        )
        tune_interpreter()  # as in every server
        with watch.over_steps(), asyncio.Runner() as runner:
            runner.run(measure(create_app(settings), watch, Console(width=120)))


if __name__ == "__main__":
    main()
