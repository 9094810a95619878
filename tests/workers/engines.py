"""Engines for tests: a real store, noticed quickly, closed whatever happens."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.foundation.jobs import Document, Job
from app.foundation.ports import StepJournal
from app.foundation.sql.job_store import create_job_store
from app.workers.durable import DurableRun, EngineOptions
from app.workers.engine import Engine

PATIENCE_S = 60.0
POLL_S = 0.05


@asynccontextmanager
async def engine_at(url: str, runs: Sequence[DurableRun], **options: Any) -> AsyncIterator[Engine]:
    """An engine beside the database at `url`; `options` as `EngineOptions` has, and `on_end`."""
    store = create_job_store(url)
    given = {"executor_id": "one", "poll_s": POLL_S, "drain_s": PATIENCE_S, **options}
    on_end = given.pop("on_end", lambda _kind, _outcome: None)
    engine = Engine(EngineOptions(store, **given), on_end)
    await engine.open(runs)
    try:
        yield engine
    finally:
        await engine.close()
        store.close()


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = PATIENCE_S) -> None:
    """Waits until it holds; fails when that takes too long."""
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.02)


async def ended(engine: Engine, run_id: str) -> Job:
    async with asyncio.timeout(PATIENCE_S):
        return await engine.wait_for_end(run_id)


class Notes:
    """A run of two steps that notes what it does, and can be held up in the second."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.loops: set[int] = set()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.failure: Exception | None = None

    async def work(self, journal: StepJournal, payload: Document) -> Document:
        async def first() -> Document:
            self.loops.add(id(asyncio.get_running_loop()))
            self.done.append("first")
            return {"first": payload.get("x")}

        async def second() -> Document:
            self.done.append("second")
            journal.share(1, 4)
            self.begun.set()
            await self.go_on.wait()
            if self.failure is not None:
                raise self.failure
            return {"second": True}

        return {**await journal.step("first", first), **await journal.step("second", second)}

    def run(self, kind: str = "noted", **options: Any) -> DurableRun:
        return DurableRun(kind, ("first", "second"), self.work, **options)
