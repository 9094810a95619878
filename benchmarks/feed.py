"""Cost of a streamed market: beside a peer, at a fixed rate, and in a burst.

A process of its own sends the frames and serves the REST interface. The service's part is the
stream, from the socket to the market that answers are made of. The peer is `websockets` and `json`
with the newest record of each symbol. The age of a message runs from its stamp until the market
shows it or a newer one of the same contract.
"""

import asyncio
import gc
import json
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from benchmarks.feed_ends import Far, far_end, our_end, until
from benchmarks.feed_sender import Script, prices_of
from benchmarks.result_table import Row, note

AT_ONCE, PEER_AT_ONCE = 200_000, 100_000
PACE, PACE_S = 10_000, 20.0
FLOOD, FLOOD_S = 20_000, 60.0
GOALS = {"times": 4.0, "age_ms": 100.0, "core": 0.25, "lag_ms": 20.0, "growth_mib": 64.0}
_MIB: Final = 1 << 20
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


async def peer(far: Far) -> float:
    """Processor seconds a message of `websockets` and `json`, newest record per symbol."""
    newest: dict[str, Any] = {}
    url = f"ws://127.0.0.1:{far.port}/"
    async with connect(url, compression=None) as connection, asyncio.TaskGroup() as group:
        await connection.recv()  # the welcome
        group.create_task(far.go(count=PEER_AT_ONCE))
        text, used = await connection.recv(), time.process_time()
        for _ in range(PEER_AT_ONCE - 1):
            record = json.loads(text)
            newest[record["topic"]] = record["data"]
            text = await connection.recv()
        return (time.process_time() - used) / PEER_AT_ONCE


async def at_once(far: Far, room: Path) -> float:
    """Processor seconds a message of the service, up to the market."""
    async with our_end(far, room, is_watched=False) as ours, asyncio.TaskGroup() as group:
        before = ours.came()
        sending = group.create_task(far.go(count=AT_ONCE))
        await until(lambda: ours.came() > before, 0.001)
        used, first = time.process_time(), ours.came()
        await until(sending.done)
        last = before + sending.result()["given"]
        await until(lambda: ours.came() == last)
        return (time.process_time() - used) / (last - first)


@dataclass(frozen=True, slots=True)
class Paced:
    """Result of one rate: ages, share of a core, p99 of the loop lag, growth of memory."""

    ages: np.ndarray[Any, Any]  # ms; none where it was not noted
    core: float
    lag_ms: float
    growth_mib: float
    dropped: dict[str, int]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


async def lags(into: list[float]) -> None:
    """Delay of the event loop's timers."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        into.append(time.perf_counter() - begun - 0.005)


async def paced(far: Far, room: Path, per_second: int, seconds: float, *, is_noting: bool) -> Paced:
    """Notes of ages take memory: a run that measures growth makes none."""
    kept = room / f"stamps-{per_second}.npy"
    async with our_end(far, room, is_watched=True) as ours:
        said = await far.go(per_second=per_second, seconds=3.0)  # until all has grown once
        await until(lambda: ours.came() >= said["given"])
        ours.is_noting, late = is_noting, list[float]()
        gc.collect()
        memory, used, begun = resident(), time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(lags(late))
            before = ours.came()
            said = await far.go(per_second=per_second, seconds=seconds, stamps=str(kept))
            looking.cancel()
        core = (time.process_time() - used) / (time.perf_counter() - begun)
        await until(lambda: ours.came() >= before + said["given"])
        await asyncio.sleep(0.5)  # and is shown
        growth = (resident() - memory) / _MIB
        dropped = dict(ours.stream.facts().dropped)
        shown, heard = ours.shown, {topic.code for topic in ours.stream.live()}
    script = Script(await prices_of(far.exchange_url))
    quotes = [(script.quoted(number), at) for number, at in enumerate(np.load(kept).tolist())]
    quotes = [(code, at) for code, at in quotes if code in heard]
    ages = ages_ms(shown, quotes) if is_noting else np.zeros(0)
    lag_ms = 1e3 * float(np.quantile(late, 0.99))
    return Paced(ages, core, lag_ms, growth, dropped)


def ages_ms(
    shown: list[tuple[int, list[tuple[str, int]]]], quotes: list[tuple[str | None, int]]
) -> np.ndarray[Any, Any]:
    """Milliseconds from each quote's stamp until it or a newer one of its contract was visible."""
    seen: dict[str | None, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for at_ns, told in shown:
        for code, stamped_ms in told:
            seen[code][0].append(stamped_ms)
            seen[code][1].append(at_ns)
    sent: dict[str | None, list[int]] = defaultdict(list)
    for code, stamp_ns in quotes:
        sent[code].append(stamp_ns)
    found = []
    for code, stamps in sent.items():
        stamped, at = (np.array(one) for one in seen[code])
        first = np.searchsorted(stamped, np.array(stamps) // 1_000_000)
        # Fails where the newest word was never shown.
        found.append((at[first] - np.array(stamps)) / 1e6)
    return np.concatenate(found)


async def bench() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        async with far_end() as far:
            theirs = [await peer(far)]
            our = min([await at_once(far, room), await at_once(far, room)])
            theirs.append(await peer(far))
            pace = await paced(far, room, PACE, PACE_S, is_noting=True)
            flood = await paced(far, room, FLOOD, FLOOD_S, is_noting=False)
    times = min(theirs) / our
    load = os.getloadavg()[0]
    table = Table("", "measured", "goal", title=f"the feed, load {load:.1f}")
    table.add_row("websockets and json, us a message", f"{1e6 * min(theirs):.2f}", "")
    table.add_row("ours, socket to market, us a message", f"{1e6 * our:.2f}", "")
    table.add_row("so many times less processor", f"{times:.1f}", f">= {GOALS['times']:.0f}")
    for per_second, one in ((PACE, pace), (FLOOD, flood)):
        table.add_section()
        if len(one.ages):
            oldest, limit = np.quantile(one.ages, 0.99), f"< {GOALS['age_ms']:.0f}"
            table.add_row(f"at {per_second} a second: age p99, ms", f"{oldest:.0f}", limit)
            table.add_row("the oldest, ms", f"{one.ages.max():.0f}", "")
        limit = f"< {GOALS['core']:.0%}" if per_second == PACE else ""
        table.add_row(f"at {per_second} a second: share of a core", f"{one.core:.0%}", limit)
        table.add_row("lag of the loop p99, ms", f"{one.lag_ms:.1f}", f"< {GOALS['lag_ms']:.0f}")
        limit = f"< {GOALS['growth_mib']:.0f}" if per_second == FLOOD else ""
        table.add_row("memory grew by, MiB", f"{one.growth_mib:.1f}", limit)
        table.add_row("messages dropped, all counted", str(one.dropped), "")
    Console(width=120).print(table)
    noted(min(theirs), our, pace, flood)


def noted(theirs: float, our: float, pace: Paced, flood: Paced) -> None:
    """Adds the goals to the table of all benchmarks."""
    times, goal = theirs / our, GOALS["times"]
    note(
        Row(
            "the feed, socket to market, a message", f"{1e6 * our:.2f} us",
            f"{1e6 * theirs:.2f} us", f"{times:.1f} x", f">= {goal:g} x", times >= goal,
        )
    )  # fmt: skip
    for what, figure, limit, unit in (
        (f"the feed, {PACE}/s: age p99", float(np.quantile(pace.ages, 0.99)), "age_ms", "ms"),
        (f"the feed, {PACE}/s: share of a core", pace.core, "core", ""),
        (f"the feed, {PACE}/s: lag of the loop p99", pace.lag_ms, "lag_ms", "ms"),
        (f"the feed, {FLOOD}/s: lag of the loop p99", flood.lag_ms, "lag_ms", "ms"),
        (f"the feed, {FLOOD}/s: growth of memory", flood.growth_mib, "growth_mib", "MiB"),
    ):
        at_most = GOALS[limit]
        note(Row(what, f"{figure:.2f} {unit}", goal=f"< {at_most:g} {unit}", met=figure < at_most))


if __name__ == "__main__":
    asyncio.run(bench())
