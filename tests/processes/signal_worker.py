"""A process that takes signals in, judges those that wait and books what came of them."""

import asyncio
import os
from dataclasses import replace
from random import Random
from uuid import UUID

from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from tests.processes.worker import _arm, die
from tests.support.outcome_fixtures import pass_on
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk

SENT = 12  # the second half of them without a board to judge them on


def name_of(number: int) -> str:
    return f"signal-{number}"


def _say(word: str) -> None:
    print(word, flush=True)  # noqa: T201  # the pipe is how it answers


async def _run(url: str, failpoint: str, at_once: int) -> None:
    on_publish = die if failpoint == "published" else lambda _: None
    loop = asyncio.get_running_loop()
    database = Database(
        DatabaseOptions(url=url), loop.time, Random(os.getpid()).random, encode_event, on_publish
    )
    await database.open()
    desk = await Desk(database).open()
    ids = iter(range(os.getpid() << 32, (os.getpid() + 1) << 32))
    desk.signals = replace(desk.signals, new_id=lambda: str(UUID(int=next(ids))))
    informed(desk)
    board = desk.boards.board
    _arm(database, failpoint)

    async def send(number: int) -> None:
        await desk.signals.submit(claim(SYMBOLS[number], source_id=name_of(number)), WHO)
        _say(name_of(number))

    for first in range(0, SENT, at_once):
        desk.boards.board = board if first < SENT // 2 else None
        await asyncio.gather(*(send(number) for number in range(first, first + at_once)))
    desk.boards.board = board
    await desk.signals.process_queue()
    _say("judged")
    pass_on(desk, hours=25)
    await desk.signal_outcomes.book()
    _say("booked")
    await database.close()


def run(url: str, failpoint: str, at_once: int) -> None:
    asyncio.run(_run(url, failpoint, at_once))
