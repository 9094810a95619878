"""Hours of the demo: memory, open descriptors and tasks must not grow.

`python -m benchmarks.soak`, or `make soak SOAK_HOURS=3`. The demo runs in processes of its own,
with some reading requests and one reader of the stream. The first two hours (at most two thirds
of a shorter run) are warm-up. Ends with 1 if memory grows by more than 1 MiB an hour after it, or
if descriptors or tasks grow.
"""

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Final

import aiohttp
from rich.console import Console

HOURS: Final = float(os.environ.get("SOAK_HOURS") or "3")
PREFIX: Final = "/api/symbol-mgmt"
WARM_UP_S: Final = 2 * 3_600.0
START_S: Final = 600.0
MEMORY_MIB_PER_HOUR: Final = 1.0
STEADY: Final = 4.0  # descriptors or tasks more than before are growth
READ: Final = ("/portfolio", "/scoring/rankings?limit=100", "/symbols?limit=100", "/health")
_TASKS: Final = re.compile(r"^mysymbols_event_loop_tasks ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources of the service at one moment."""

    at_s: float
    memory_mib: float
    descriptors: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Growth after the warm-up: memory in MiB an hour; the others as numbers."""

    memory_mib_per_hour: float
    descriptors: float
    tasks: float

    @property
    def faults(self) -> list[str]:
        """Resources that grow by more than is allowed."""
        found = []
        if self.memory_mib_per_hour > MEMORY_MIB_PER_HOUR:
            found.append("memory")
        if self.descriptors > STEADY:
            found.append("descriptors")
        if self.tasks > STEADY:
            found.append("tasks")
        return found


def growth(samples: Sequence[Sample], warm_up_s: float = WARM_UP_S) -> Growth:
    """Slope of the memory by least squares, and medians of the last against the first quarter.

    Samples of the warm-up, at most two thirds of all the time, are left out. Raises ValueError
    for fewer than eight samples after it.
    """
    begin, end = samples[0].at_s, samples[-1].at_s
    warm = begin + min(warm_up_s, (end - begin) * 2 / 3)
    used = [sample for sample in samples if sample.at_s >= warm]
    if len(used) < 8:
        raise ValueError("too few samples after the warm-up")
    slope = linear_regression([one.at_s for one in used], [one.memory_mib for one in used]).slope
    first, last = used[: len(used) // 4], used[-(len(used) // 4) :]
    return Growth(
        slope * 3_600.0,
        median(one.descriptors for one in last) - median(one.descriptors for one in first),
        median(one.tasks for one in last) - median(one.tasks for one in first),
    )


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ProcessLookupError(pid)
    return int(found[1]) / 1024.0


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def processor_s(pid: int) -> float:
    """Processor time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _tasks(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(f"{url}/metrics") as answer:
        found = _TASKS.search(await answer.text())
    return 0 if found is None else int(float(found[1]))


async def _read(session: aiohttp.ClientSession, url: str) -> None:
    for path in READ:
        async with session.get(url + PREFIX + path) as answer:
            await answer.read()


async def _until_served(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the demo has its portfolio. Raises TimeoutError."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                async with session.get(f"{url}{PREFIX}/portfolio") as answer:
                    if answer.status == 200 and (await answer.json())["members"]:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(1.0)


async def _listen(session: aiohttp.ClientSession, url: str) -> None:
    """Read the stream of events for as long as the run lasts."""
    timeout = aiohttp.ClientTimeout(total=None)
    query = "topics=score_update,portfolio_change,alert"
    while True:
        try:
            async with session.get(f"{url}{PREFIX}/events?{query}", timeout=timeout) as answer:
                async for _ in answer.content:
                    pass
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(1.0)


async def run(hours: float, console: Console) -> int:
    """Run the demo for so long, print a line for each sample that stands out; exit code."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    every_s = max(1.0, min(30.0, hours * 3_600.0 / 120))
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as room:
        demo = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "demo", "--port", str(port),
            "--database", f"{room}/soak.sqlite3", stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
                await _until_served(session, url)
                listening = group.create_task(_listen(session, url))
                begun, used_s = time.monotonic(), processor_s(demo.pid)
                while (passed := time.monotonic() - begun) < hours * 3_600.0:
                    await _read(session, url)
                    samples.append(
                        Sample(
                            passed,
                            memory_mib(demo.pid),
                            descriptors(demo.pid),
                            await _tasks(session, url),
                        )
                    )
                    if len(samples) % 10 == 1:
                        console.print(_line(samples[-1]))
                    await asyncio.sleep(every_s)
                share = (processor_s(demo.pid) - used_s) / (time.monotonic() - begun)
                listening.cancel()
        finally:
            if demo.returncode is None:
                demo.send_signal(signal.SIGTERM)
            await demo.wait()
    console.print(_line(samples[-1]))
    found = growth(samples)
    console.print(
        f"{hours:g} h, {len(samples)} samples; after the warm-up: memory "
        f"{found.memory_mib_per_hour:+.2f} MiB/h, descriptors {found.descriptors:+.0f}, "
        f"tasks {found.tasks:+.0f}; processor {share:.1%} of a core; "
        + (f"GROWS: {', '.join(found.faults)}" if found.faults else "steady")
    )
    return int(bool(found.faults))


def _line(sample: Sample) -> str:
    return (
        f"{sample.at_s / 60:7.1f} min  {sample.memory_mib:7.1f} MiB  "
        f"{sample.descriptors:4} descriptors  {sample.tasks:4} tasks"
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(run(HOURS, Console(width=120, highlight=False))))
