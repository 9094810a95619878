"""One process of several on one database: an engine, a heartbeat, and a tick every three seconds.

Run as `python -m tests.processes.job_worker URL FILE NAME ROLE`. Everything that a run does is one
line in FILE: the run, the step, the process. A run of kind "held" stays in its second step until
FILE.go exists; the kind of ticks is that of the rebalance check. ROLE is `works`, `ticks` (it
works and asks for a run each time) or `ticks late` (half of that after the others).
"""

import asyncio
import sys
import time
from pathlib import Path
from random import Random

from app.container.runtime_values import utc_now
from app.foundation.jobs import Document, JobKind
from app.foundation.ports import Journal
from app.foundation.replicas import Replicas
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.foundation.sql.job_store import job_store
from app.operations.domain.event_codec import drafts_of
from app.workers.durable import DurableRun, EngineOptions
from app.workers.engine import Engine
from app.workers.schedule import OncePerSlotTask

HELD = "held"
EVERY_S = 3.0
LATE_S = EVERY_S / 2
DEAD_S = 3.0  # a loaded machine may well forget a process for a second


class Notebook:
    """Lines of all processes in one file; each is written whole."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def note(self, run: str, step: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{run} {step} {self.name}\n")

    async def held(self, journal: Journal, payload: Document) -> Document:
        async def first() -> Document:
            self.note(str(payload["run"]), "first")
            return {}

        async def second() -> Document:
            self.note(str(payload["run"]), "second")
            while not self.path.with_suffix(".go").exists():
                await asyncio.sleep(0.05)
            return {}

        async def third() -> Document:
            self.note(str(payload["run"]), "third")
            return {}

        for name, action in (("first", first), ("second", second), ("third", third)):
            await journal.step(name, action)
        return {}

    async def ticked(self, journal: Journal, payload: Document) -> Document:
        async def check() -> Document:
            self.note(str(payload["scheduled_at"]), "check")
            return {}

        return await journal.step("check", check)


async def _work(url: str, path: Path, name: str, role: str) -> None:
    notes = Notebook(path, name)
    database = Database(DatabaseOptions(url=url), time.monotonic, Random(1).random, drafts_of)
    await database.open()
    store = job_store(url)
    engine = Engine(EngineOptions(store, name, poll_s=0.1))
    await engine.open(
        [
            DurableRun(HELD, ("first", "second", "third"), notes.held),
            DurableRun(JobKind.REBALANCE_CHECK.value, ("check",), notes.ticked),
        ]
    )
    replicas = Replicas(database, engine, name, time.monotonic, beat_s=0.3, dead_s=DEAD_S)
    tick = OncePerSlotTask(
        JobKind.REBALANCE_CHECK, lambda: EVERY_S, engine, utc_now, time.monotonic
    )
    print("ready", flush=True)  # noqa: T201  # the pipe is how it answers
    while not path.with_suffix(".stop").exists():
        await replicas.round()
        if role != "works" and tick.left_s() <= 0:
            # By then what the others have begun is done, and its key is free again.
            await asyncio.sleep(LATE_S if role == "ticks late" else 0.0)
            await tick.run()
        await asyncio.sleep(0.1)
    await engine.close()
    store.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
