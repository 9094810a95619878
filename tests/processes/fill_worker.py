"""A process that fills the market from an exchange of its own, and dies at it or as it follows."""

import asyncio
import os
import random
import signal
import time
from dataclasses import replace

from sqlalchemy import event

from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.market.services.backfill import first_fill
from app.operations.domain.event_codec import encode_event
from tests.support.followed_market import TERMS, followed
from tests.support.live_market import open_market

CONTRACTS = 10  # their market is the same in every process


def fill(url: str, place: str, after: int) -> None:
    """Killed at the `after`th statement that writes candles: `before` it, `after` it, or just
    before the `commit` of its transaction.
    """
    asyncio.run(_fill(url, place, after))


def rotate(url: str) -> None:
    """Killed while one connection to the stream takes the place of another."""
    asyncio.run(_rotate(url))


async def _rotate(url: str) -> None:
    database = Database(
        DatabaseOptions(url=url), time.monotonic, random.Random(1).random, encode_event
    )
    await database.open()
    # By the clock that is moved by hand; the overlap has no end.
    terms = replace(TERMS, rotate_s=(20.0, 20.0), overlap_s=1e6)
    async with followed(database, terms) as here:

        def die() -> bool:
            facts = here.stream.facts()
            if facts.reconnects_planned == 1 and [line.phase for line in facts.connections] == [
                "live",
                "live",
            ]:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        await here.until(die)


async def _fill(url: str, place: str, after: int) -> None:
    database = Database(
        DatabaseOptions(url=url), time.monotonic, random.Random(1).random, encode_event
    )
    await database.open()
    assert database._engines is not None
    engine, left = database._engines.writer.sync_engine, [after]

    def counted(_c: object, _cursor: object, sql: str, *_: object) -> None:
        if "INSERT INTO candles" in sql:
            left[0] -= 1
            if left[0] == 0 and place != "commit":
                os.kill(os.getpid(), signal.SIGKILL)

    def committing(_: object) -> None:
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    when = "after" if place == "commit" else place
    event.listen(engine, f"{when}_cursor_execute", counted)
    if place == "commit":
        event.listen(engine, "commit", committing)
    async with open_market(database, CONTRACTS) as live:
        await first_fill(live.market())
