"""Several processes on one PostgreSQL: every tick once, and the runs of the dead go on."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.foundation.jobs import Document, Job, JobState
from app.foundation.ports import StepJournal
from app.workers.durable import DurableRun
from tests.processes.job_worker import HELD
from tests.processes.worker_processes import ROOT
from tests.workers.engines import engine_at

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("processes"),
    pytest.mark.parametrize("backend", ["postgres"], indirect=True),
]
PATIENCE_S = 90.0


@asynccontextmanager
async def worker(
    url: str, path: Path, name: str, role: str = "works"
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.processes.job_worker", url, str(path), name, role),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"ready\n"
        yield process
        if process.returncode is None:
            path.with_suffix(".stop").touch()
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def noted(path: Path) -> list[tuple[str, str, str]]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [line.split() for line in text.splitlines()]
    return [(run, step, name) for run, step, name in lines]


async def until(path: Path, wanted: str, count: int = 1) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while sum(step == wanted for _, step, _ in noted(path)) < count:
            await asyncio.sleep(0.1)


async def test_C15_each_slot_runs_once_over_two_processes(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    async with (
        worker(database_url, path, "one", "ticks"),
        worker(database_url, path, "two", "ticks late"),
    ):
        alone = len(noted(path))  # the second has just come
        await until(path, "check", alone + 5)
    slots = Counter(slot for slot, _, _ in noted(path))
    assert len(slots) >= alone + 5
    assert set(slots.values()) == {1}


async def _elsewhere(journal: StepJournal, payload: Document) -> Document:
    raise AssertionError("this process only asks")


async def ask(url: str) -> None:
    """Has a run begun from outside the workers."""
    run = DurableRun(HELD, ("first", "second", "third"), _elsewhere)
    async with engine_at(url, [run], executor_id="asks", works=False) as engine:
        await engine.enqueue(HELD, {"run": "r-1"}, run_id="r-1", key="k")


async def outcome(url: str) -> Job:
    run = DurableRun(HELD, ("first", "second", "third"), _elsewhere)
    async with engine_at(url, [run], executor_id="looks", works=False) as engine:
        return await engine.job("r-1")


async def test_K02_the_run_of_a_killed_process_goes_on_in_another(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    async with worker(database_url, path, "one") as first:
        await ask(database_url)
        await until(path, "second")
        async with worker(database_url, path, "two"):
            first.send_signal(signal.SIGKILL)
            await until(path, "second", 2)
            path.with_suffix(".go").touch()
            await until(path, "third")
    assert noted(path) == [
        ("r-1", "first", "one"),
        ("r-1", "second", "one"),
        ("r-1", "second", "two"),
        ("r-1", "third", "two"),
    ]
    assert (await outcome(database_url)).state is JobState.DONE


async def test_K16_a_stopped_process_that_goes_on_finds_its_run_taken(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    async with worker(database_url, path, "one") as first:
        await ask(database_url)
        await until(path, "second")
        async with worker(database_url, path, "two"):
            first.send_signal(signal.SIGSTOP)
            try:
                await until(path, "second", 2)
                path.with_suffix(".go").touch()
                await until(path, "third")
            finally:
                first.send_signal(signal.SIGCONT)
            # Both end by themselves; whoever was stopped has had its chance to go on by then.
    assert [(step, name) for _, step, name in noted(path)] == [
        ("first", "one"),
        ("second", "one"),
        ("second", "two"),
        ("third", "two"),
    ]
    assert (await outcome(database_url)).state is JobState.DONE
