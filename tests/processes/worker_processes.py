"""Worker processes for tests: started, told what to do, killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.hash_chain import find_chain_faults
from app.foundation.sql.database import Database
from app.operations.storage.audit import verify_history
from app.portfolio.domain.event_log import PortfolioEvent, fold_events
from app.portfolio.domain.models import Portfolio, faults
from app.portfolio.domain.rebalance_run import RebalanceRun
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from tests.processes.worker import work
from tests.support import child_processes

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
Acts = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Worker:
    process: ForkServerProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def do(self, *acts: dict[str, Any]) -> list[Any]:
        """The endings of acts that begin at the same time."""
        self.tell(*acts)
        return await self.heard()

    def tell(self, *acts: dict[str, Any]) -> None:
        self.writer.write(json.dumps(acts).encode() + b"\n")

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
        await asyncio.to_thread(self.process.join)
        assert self.process.exitcode == -signal.SIGKILL

    async def paused(self) -> None:
        """Until it has stopped at its failpoint."""
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(_is_stopped, self.pid):
                await asyncio.sleep(0.02)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    async def _line(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.readline()
            except ConnectionResetError:  # it died with something unread
                return b""


def _is_stopped(pid: int) -> bool:
    """By the state letter, which follows the name in brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@asynccontextmanager
async def worker(url: str, *, minutes: float = 0, failpoint: str = "") -> AsyncIterator[Worker]:
    """One process on the database at `url`, whose clock is `minutes` after the start."""
    process, pipe = await asyncio.to_thread(child_processes.born, work, url, minutes, failpoint)
    reader, writer = await asyncio.open_connection(sock=pipe, limit=1 << 24)
    try:
        one = Worker(process, reader, writer)
        await one.ready()
        yield one
    finally:
        process.kill()
        await asyncio.to_thread(process.join)
        process.close()
        writer.close()


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


async def runs_of(database: Database) -> tuple[RebalanceRun, ...]:
    """Every rebalance run, oldest first."""
    async with database.read() as unit:
        return (await unit.get(RebalanceRunRepository).page(None, 500))[::-1]


async def proven(database: Database) -> tuple[Portfolio, tuple[PortfolioEvent, ...]]:
    """What is committed, whole: P1-P4, H2-H4, and the audit finds nothing."""
    async with database.read() as unit:
        state, events = (
            await unit.get(PortfolioRepository).load(),
            await unit.get(HistoryRepository).all(),
        )
        settings = await unit.get(ConfigurationRepository).current()
    assert faults(state, settings.max_portfolio_symbols) == ()
    assert fold_events(events) == state
    assert find_chain_faults(events, None) == []
    assert (await verify_history(database.options.url)).ok
    return state, events
