"""What a process that was killed has left, and what another makes of it."""

import asyncio
import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text

from app.foundation.events import EventTopic
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.services.backfill import first_fill
from app.operations.services.event_stream import EventStream
from tests.alerts.services.test_notifications import Office, Receiver
from tests.conftest import MakeDatabase
from tests.processes.fill_worker import CONTRACTS, fill, rotate
from tests.processes.worker_processes import proven, worker
from tests.support import child_processes
from tests.support.followed_market import followed
from tests.support.live_market import open_market
from tests.support.trading_desk import NOW, SYMBOLS, Desk

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("processes")]
HOUR_MS = 3_600_000
SWAP = {"do": "replace", "symbol": SYMBOLS[1], "by": SYMBOLS[9], "key": "k", "request": "swap"}


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_K10_what_a_killed_process_committed_is_told_later_and_once_to_each(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url)
    await database.open()
    await Desk(database).filled(4)
    first, second = Receiver(), Receiver()
    async with first.listening() as one, second.listening() as other:
        office = Office(database)
        await office.channel("desk", one)
        await office.channel("risk", other)
        await office.work()
        told = len(first.ids)
        last = (await _changes(database))[-1][0]
        async with worker(database_url, failpoint="committed:UPDATE portfolio SET") as dying:
            await dying.died(SWAP)
        # Nobody has told of it: who committed it is dead.
        assert (len(first.ids), len(second.ids)) == (told, told)
        missed = [entry for entry in await _changes(database) if entry[0] > last]
        assert [kind for _, kind in missed] == ["REPLACE"]  # with the weights of the version
        dispatchers = [office.another() for _ in range(3)]
        await asyncio.gather(*(office.work(each) for each in dispatchers))
        await office.work()
    for receiver in (first, second):
        bodies = [json.loads(body) for _, body in receiver.got[told:]]
        assert [one["sequence"] for one in bodies] == [number for number, _ in missed]
        assert len(set(receiver.ids)) == len(receiver.ids)
    await database.close()


async def test_K17_ten_deaths_in_a_row_have_one_effect(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url)
    await database.open()
    await Desk(database).filled(4)
    before = (await proven(database))[0]
    await database.close()
    deaths = [
        "commit:1", "commit:1", "before:FROM portfolio ",
        "after:INSERT INTO portfolio_history", "after:UPDATE portfolio SET",
        "after:UPDATE portfolio_members SET status", "after:INSERT INTO portfolio_members",
        "before:UPDATE idempotency_keys", "commit:1", "published",
    ]  # fmt: skip
    for minute, failpoint in enumerate(deaths):  # each finds the lock of the one before expired
        async with worker(database_url, minutes=minute, failpoint=failpoint) as dying:
            await dying.died(SWAP)
    async with worker(database_url, minutes=len(deaths)) as alive:
        (done,) = await alive.do(SWAP)
    await database.open()
    state, _ = await proven(database)
    await database.close()
    # The last of them had committed: who asks again hears what was done.
    assert (done["is_replay"], state.version) == (True, before.version + 1)
    assert state.member(SYMBOLS[9]) is not None


async def _changes(database: Database) -> list[tuple[int, str]]:
    """What a reader of the stream who resumes is given: number and kind of each change."""
    stream = EventStream(database, lambda: NOW, Metrics(), lambda _: None)
    await stream.open()
    stored = await stream.stored(0, frozenset({EventTopic.PORTFOLIO_CHANGE}))
    return [(one.record.seq, one.record.data["type"]) for one in stored.entries]


@pytest.mark.parametrize(("place", "after"), [("before", 1), ("after", 2), ("commit", 2)])
async def test_K14_killed_while_it_wrote_candles_the_next_fill_brings_each_once(
    database_url: str, make_database: MakeDatabase, tmp_path: Path, place: str, after: int
) -> None:
    process, link = await asyncio.to_thread(child_processes.born, fill, database_url, place, after)
    with link:
        await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "it was over before it could be killed"
    database = make_database(database_url)
    await database.open()
    held = await _candles(database)
    async with open_market(database, CONTRACTS) as live:
        await first_fill(live.market())
        whole = await _candles(database)
        assert set(held) < set(whole), "it was killed in the midst of it"
        # All that the exchange has, and nothing twice, whatever was there before.
        assert len({row[:3] for row in whole}) == len(whole)
        for (contract, interval), times in _by_series(whole).items():
            steps = {later - former for former, later in pairwise(times)}
            assert len(steps) == 1, (contract, interval, "a hole")
    await database.close()


async def test_K14_killed_while_a_connection_was_replaced_the_next_one_misses_no_candle(
    database_url: str, make_database: MakeDatabase
) -> None:
    process, link = await asyncio.to_thread(child_processes.born, rotate, database_url)
    with link:
        await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "no connection was ever replaced"
    database = make_database(database_url)
    await database.open()
    held = _by_series(await _candles(database))
    async with followed(database, later_s=2 * HOUR_MS / 1_000) as here:
        await here.until(lambda: {one.phase for one in here.stream.facts().connections} == {"live"})
        hourly, rows = 0, await _candles(database)
        assert len({row[:3] for row in rows}) == len(rows), "no candle twice"
        for (contract, interval), times in _by_series(rows).items():
            steps = {later - former for former, later in pairwise(times)}
            assert len(steps) == 1, (contract, interval, "a hole")
            hourly += steps == {HOUR_MS}
            closed = [one for one in times if one > held[contract, interval][-1]]
            assert len(closed) == (2 if steps == {HOUR_MS} else 0), "what closed in between"
        assert hourly > 0, "there are such bars at all"
    await database.close()


async def _candles(database: Database) -> list[tuple[object, ...]]:
    async with database.read() as unit:
        rows = await unit.connection.execute(text("SELECT * FROM candles ORDER BY 1, 2, 3"))
        return [tuple(row) for row in rows]


def _by_series(rows: list[tuple[object, ...]]) -> dict[tuple[object, object], list[int]]:
    found: dict[tuple[object, object], list[int]] = {}
    for contract, interval, opened, *_ in rows:
        found.setdefault((contract, interval), []).append(int(str(opened)))
    return found
