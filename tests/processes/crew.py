"""Worker processes for tests: started, told what to do, killed."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.history import PortfolioEvent, chain_faults, fold
from app.domain.portfolio import Portfolio, faults
from app.domain.rebalance_run import Run
from app.storage.audit import inspect
from app.storage.database import Database

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
Acts = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Worker:
    process: asyncio.subprocess.Process

    async def do(self, *acts: dict[str, Any]) -> list[Any]:
        """The endings of acts that begin at the same time."""
        self.tell(*acts)
        return await self.heard()

    def tell(self, *acts: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(acts).encode() + b"\n")

    async def heard(self) -> list[Any]:
        line = await self._line()
        assert line, "the worker died"
        endings = json.loads(line)
        assert isinstance(endings, list)
        return endings

    async def ready(self) -> None:
        assert await self._line() == b"ready\n"

    async def died(self, *acts: dict[str, Any]) -> None:
        """Does `acts` and must die of it."""
        self.tell(*acts)
        assert await self._line() == b""
        assert await self.process.wait() == -9

    async def paused(self) -> None:
        """Until it has stopped at its failpoint."""
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(_is_stopped, self.process.pid):
                await asyncio.sleep(0.02)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def _line(self) -> bytes:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.stdout.readline()


def _is_stopped(pid: int) -> bool:
    """By the state letter, which follows the name in brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@asynccontextmanager
async def worker(url: str, *, minutes: float = 0, failpoint: str = "") -> AsyncIterator[Worker]:
    """One process on the database at `url`, whose clock is `minutes` after the start."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.processes.worker", url, str(minutes), failpoint),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        one = Worker(process)
        await one.ready()
        yield one
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


@asynccontextmanager
async def crew(url: str, size: int, *, minutes: float = 0) -> AsyncIterator[list[Worker]]:
    """Several processes on one database."""
    async with AsyncExitStack() as stack:
        entering = (stack.enter_async_context(worker(url, minutes=minutes)) for _ in range(size))
        yield list(await asyncio.gather(*entering))


async def together(workers: Sequence[Worker], acts: Sequence[Acts]) -> list[Any]:
    """Every worker does its acts, all at the same time; all endings."""
    for one, its in zip(workers, acts, strict=True):
        one.tell(*its)
    heard = await asyncio.gather(*(one.heard() for one in workers))
    return [ending for endings in heard for ending in endings]


async def runs_of(database: Database) -> tuple[Run, ...]:
    """Every rebalance run, oldest first."""
    async with database.read() as unit:
        return (await unit.rebalance_runs.page(None, 500))[::-1]


async def proven(database: Database) -> tuple[Portfolio, tuple[PortfolioEvent, ...]]:
    """What is committed, whole: P1-P4, H2-H4, and the audit finds nothing."""
    async with database.read() as unit:
        state, events = await unit.portfolio.load(), await unit.history.all()
        settings = await unit.configuration.current()
    assert faults(state, settings.max_portfolio_symbols) == ()
    assert fold(events) == state
    assert chain_faults(events, None) == []
    assert (await inspect(database.options.url)).ok
    return state, events
