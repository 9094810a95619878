"""Size of the database after a year: measured sizes of boards and inputs times the retention.

Scores a universe of 600 contracts of which 250 pass the funnel, stores boards in an SQLite file and
measures bytes per board. Prints one table; asserts nothing.
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import RetentionSettings
from app.foundation.data_status import DataSource
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.board import Board
from app.scoring.domain.engine import score
from app.scoring.services.replay import pack_inputs
from app.scoring.storage.runs import ScoringRepository, pack_details
from tests.support.scoring_inputs import make_inputs

SCORED, EXCLUDED = 250, 350  # of a universe of 600
DAILY_BARS, HOURLY_BARS = 250, 500
BOARDS = 48
RUNS_A_DAY = 288
DECISIONS_A_DAY = 24  # boards that a stored decision rests on; one an hour is generous
GIB = 1024**3


def drafted() -> tuple[Board, bytes]:
    excluded = {f"X{at:03}USDT": "turnover_24h" for at in range(EXCLUDED)}
    inputs = make_inputs(SCORED, daily=DAILY_BARS, hourly=HOURLY_BARS, excluded=excluded)
    draft = score(inputs, build_algorithm(Configuration()))
    board = draft.to_board(
        run_id="", algorithm="cross_sectional", algorithm_version=1, configuration_version=1,
        calculated_at=datetime(2026, 1, 1, tzinfo=UTC), duration_ms=100.0,
        data_source=DataSource.SANDBOX, is_provisional=False,
    )  # fmt: skip
    return board, pack_inputs(inputs)


async def bytes_per_board(board: Board, inputs: bytes | None, room: Path, name: str) -> float:
    path = room / f"{name}.sqlite3"
    url = f"sqlite+aiosqlite:///{path}"
    await migrations.upgrade(url)
    database = Database(DatabaseOptions(url), lambda: 0.0, lambda: 0.0, encode_event)
    empty = path.stat().st_size
    await database.open()
    for number in range(BOARDS):
        one = replace(
            board,
            run_id=f"{number:036}",
            calculated_at=board.calculated_at + timedelta(minutes=5 * number),
        )
        async with database.write() as unit:
            await unit.get(ScoringRepository).save(one, inputs)
    await database.close()  # the last connection writes the log back into the file
    return (path.stat().st_size - empty) / BOARDS


def boards_after_a_year(rules: RetentionSettings, days: int = 365) -> Sequence[tuple[str, int]]:
    full, hourly = rules.boards_days, rules.hourly_boards_days
    return (
        (f"every board of {full} days", RUNS_A_DAY * full),
        (f"one an hour up to {hourly} days", 24 * (hourly - full)),
        (f"one a day up to {days} days", days - hourly),
    )


async def main() -> None:
    rules, (board, inputs) = RetentionSettings(), drafted()
    with tempfile.TemporaryDirectory() as room:
        scores = await bytes_per_board(board, None, Path(room), "scores")
        whole = await bytes_per_board(board, inputs, Path(room), "whole")
    packed = len(pack_details(card for card in board.cards if card.rank is not None))
    table = Table("what", "boards", "bytes each", "GiB")
    total = 0.0
    for what, count in boards_after_a_year(rules):
        total += count * scores
        table.add_row(what, f"{count}", f"{scores:.0f}", f"{count * scores / GIB:.2f}")
    for what, count, size in (
        ("inputs of recent boards", RUNS_A_DAY * rules.board_inputs_days, whole - scores),
        (f"{DECISIONS_A_DAY} decisions a day, whole", DECISIONS_A_DAY * 365, whole),
    ):
        total += count * size
        table.add_row(what, f"{count}", f"{size:.0f}", f"{count * size / GIB:.2f}")
    table.add_row("a year", "", "", f"{total / GIB:.2f} (goal: below 10)")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"supporting data of a board: {packed} bytes packed; inputs: {len(inputs)} bytes;"
        f" scores of a day: {RUNS_A_DAY * scores / 1024**2:.0f} MiB; {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    asyncio.run(main())
