"""Saving 3000 scores on PostgreSQL, beside the server's own COPY of the same rows from a file.

The board has 600 symbols with a composite, four families each and the factor readings. Both writes
end with a commit and are timed by the wall clock. Prints one table, asserts nothing.
"""

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random  # noqa: TID251  # the same scores in every run
from statistics import median
from uuid import UUID

import asyncpg
from rich.console import Console
from rich.table import Table

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.factors import FACTORS
from app.scoring.storage.runs import ScoringRepository
from benchmarks import result_table
from tests.support import postgres

SYMBOLS, ROUNDS = 600, 15
NAME = "saving"
TABLES = ("symbol_scores", "scoring_run_details")


def board() -> Board:
    dice = Random(7)  # noqa: S311  # nothing secret
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Board(
        run_id="", algorithm="cross_sectional", algorithm_version=1, configuration_version=1,
        as_of=at, calculated_at=at, duration_ms=100.0, data_source=DataSource.SANDBOX,
        input_hash="bench", universe_size=SYMBOLS, coverage={},
        cards=tuple(card(dice, rank + 1) for rank in range(SYMBOLS)),
    )  # fmt: skip


def card(dice: Random, rank: int) -> Card:
    return Card(
        symbol=f"C{rank:03}USDT", status=CardStatus.SCORED, reason=None,
        families={family: dice.random() for family in Family}, composite=dice.random(),
        z=dice.gauss(0.0, 1.0), confidence=Confidence(1.0, dice.random(), 1.0, dice.random()),
        rank=rank, volatility=dice.random(), factors=tuple(
            FactorReading(
                one.name, one.family, dice.gauss(0.0, 1.0), one.unit, dice.gauss(0.0, 1.0),
                one.weight, dice.gauss(0.0, 0.1), None,
            )
            for one in FACTORS
        ),
    )  # fmt: skip


async def measure(server: postgres.Server) -> tuple[list[float], list[float]]:
    """Milliseconds of each round: the service, and COPY."""
    plain = {"host": str(server.room), "user": "postgres"}
    admin = await asyncpg.connect(**plain, database="postgres")
    await admin.execute(f"DROP DATABASE IF EXISTS {NAME}")
    await admin.execute(f"CREATE DATABASE {NAME}")
    await admin.close()
    url = server.url(NAME)
    await migrations.upgrade(url)
    database = Database(
        DatabaseOptions(url), time.monotonic, lambda: 0.5, encode_event, lambda _: None
    )
    await database.open()
    peer = await asyncpg.connect(**plain, database=NAME)
    room = server.room
    made, ours, theirs = board(), [], []
    try:
        for number in range(ROUNDS):
            one = replace(
                made,
                run_id=str(UUID(int=number + 1)),
                calculated_at=made.calculated_at + timedelta(minutes=number),
            )
            begun = time.perf_counter()
            async with database.write() as unit:
                await unit.get(ScoringRepository).save(one, None)
            ours.append((time.perf_counter() - begun) * 1e3)
            copies = []
            for table in TABLES:
                file = room / f"{table}.copy"
                rows = f"SELECT * FROM {table} WHERE run_id = '{one.run_id}'"  # noqa: S608
                await peer.copy_from_query(rows, output=file)
                file.chmod(0o644)
                await peer.execute(rows.replace("SELECT *", "DELETE"))
                copies.append(f"COPY {table} FROM '{file}'")
            begun = time.perf_counter()
            async with peer.transaction():
                for copy in copies:
                    await peer.execute(copy)
            theirs.append((time.perf_counter() - begun) * 1e3)
    finally:
        await peer.close()
        await database.close()
        for table in TABLES:
            (room / f"{table}.copy").unlink(missing_ok=True)
    return ours, theirs


def main() -> None:
    """Measures both writes, round by round."""
    server = postgres.server(f"bench-{os.getpid()}")
    try:
        ours, theirs = asyncio.run(measure(server))
    finally:
        server.link.close()
    table = Table("what", "median ms", "fastest ms", "ratio", "goal", title="saving 3000 scores")
    peer, mine = median(theirs), median(ours)
    table.add_row("COPY from a file, by the server", f"{peer:.1f}", f"{min(theirs):.1f}", "", "")
    ratio = f"{mine / peer:.1f} x"
    table.add_row("ours, with the run", f"{mine:.1f}", f"{min(ours):.1f}", ratio, "<= 3 x")
    Console().print(table)
    what = "saving 3000 scores, beside COPY by the server"
    result_table.note(
        result_table.Row(
            what, f"{mine:.1f} ms", f"{peer:.1f} ms", ratio, "<= 3 x", mine <= 3 * peer
        )
    )


if __name__ == "__main__":
    main()
