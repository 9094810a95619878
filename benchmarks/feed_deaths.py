"""Decisions while the feed dies, on a simulated clock: `python -m benchmarks.feed_deaths`.

Prints a line for each change of the mode or of the refusals: stream dead, REST dead, both, and one
topic dead. The fault lasts from second 10 to second 130. Fails where a decision used quotes older
than their limit, or was refused while they were younger.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog
from rich.console import Console

from app.foundation.health import Mode
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.operations.storage import startup_check
from tests.support.stepped_service import FAULTS, Walk, heal, walking

BEGUN_S, LIMIT_S, HEALED_S, END_S = 10, 30, 130, 150
REFUSED_FROM_S = {"both dead": BEGUN_S + LIMIT_S}


def lines(fault: str, walk: Walk) -> list[str]:
    """Time line of modes and refusals."""
    shown = []
    for one in walk.changes():
        refused = "nothing" if one.refused is None else one.refused.value
        may = "yes" if one.may_trade else "no"
        shown.append(
            f"{fault:<15} {one.at_s:>4} s  {one.mode:<9} a member may be traded: {may:<4}"
            f" rebalance refused: {refused}"
        )
    return shown


def is_well(fault: str, walk: Walk) -> bool:
    """True if decisions were refused exactly while the market was too old."""
    first = REFUSED_FROM_S.get(fault)
    frozen = [one.at_s for one in walk.seconds if one.mode is Mode.FROZEN]
    refused = [one.at_s for one in walk.seconds if one.refused is not None]
    begins = None if first is None else first + 1
    last = walk.seconds[-1]
    return (
        frozen == refused
        and (frozen[0] if frozen else None) == begins
        and (not frozen or frozen[-1] - frozen[0] + 1 == len(frozen))
        and last.may_trade
        and last.refused is None
    )


async def died(fault: str) -> tuple[list[str], bool]:
    """One fault over a portfolio of its own."""
    room = Path(tempfile.mkdtemp(prefix="my-symbols-death-"))
    try:
        url = f"sqlite+aiosqlite:///{room}/death.sqlite3"
        database = Database(DatabaseOptions(url), time.monotonic, lambda: 0.5, encode_event)
        await database.open()
        await startup_check.prepare(url)
        async with walking(database) as walk:
            await walk.until(BEGUN_S)
            await FAULTS[fault](walk)
            await walk.until(HEALED_S)
            await heal(walk)
            await walk.until(END_S)
        await database.close()
        return lines(fault, walk), is_well(fault, walk)
    finally:
        shutil.rmtree(room)


async def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console, failed = Console(width=120, highlight=False), 0
    for fault in FAULTS:
        told, well = await died(fault)
        for line in told:
            console.print(line)
        failed += not well
        if not well:
            console.print(f"{fault}: FAILED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
