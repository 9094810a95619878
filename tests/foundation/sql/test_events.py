"""Committed events: numbered without a gap in the order of the commits, kept for a while."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from app.foundation.events import EventRecord, EventTopic
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.events import CHANNEL, EventRepository
from app.foundation.sql.key_value import KeyValueRepository
from app.operations.domain.event_codec import decode_event
from app.portfolio.domain.events import PlanCreated
from app.scoring.domain.events import ScoreChanged, ScoresUpdated
from tests.support.stored_values import LATER, T0

PLAN = PlanCreated("run", 1, 0, T0)


async def told(database: Database, *events: object) -> None:
    async with database.write() as unit:
        for event in events:
            unit.publish_after_commit(event)


async def stored(database: Database, seq: int = 0, limit: int = 1_000) -> tuple[EventRecord, ...]:
    async with database.read() as unit:
        return await unit.get(EventRepository).after(seq, limit)


async def test_B1_events_are_stored_with_the_change_or_not_at_all(
    database: Database,
) -> None:
    async def change(unit: UnitOfWork) -> None:
        await unit.get(KeyValueRepository).put("a", 1)
        unit.publish_after_commit(PLAN)

    async def broken(unit: UnitOfWork) -> None:
        await change(unit)
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(broken)
    assert await stored(database) == ()
    await database.run(change)
    (only,) = await stored(database)
    assert (only.seq, only.topic, decode_event(only)) == (1, EventTopic.REBALANCE, PLAN)
    async with database.read() as unit:
        assert (
            await unit.get(EventRepository).head(),
            await unit.get(EventRepository).floor(),
        ) == (1, 0)


async def test_a_run_of_a_whole_market_is_stored_in_its_order(database: Database) -> None:
    names = [f"S{number:03}USDT" for number in range(600)]
    changes = tuple(ScoreChanged("run", name, None, 0.5, 1, T0) for name in names)
    await told(database, ScoresUpdated("run", T0, 600, 0, 0.1, T0, changes), "not ours", PLAN)
    records = await stored(database)
    assert [one.seq for one in records] == list(range(1, 603))
    assert [one.subject for one in records[:600]] == names
    assert [one.type for one in records[600:]] == ["scores_updated", "plan_created"]
    async with database.read() as unit:
        page = await unit.get(EventRepository).after(
            599, 10, [EventTopic.REBALANCE, EventTopic.SCORE_UPDATE]
        )
    assert [one.seq for one in page] == [600, 602]


async def test_C10_a_reader_beside_many_writers_sees_every_number_once_and_in_order(
    database_url: str, make_database: Callable[..., Database]
) -> None:
    patience = {"pool_wait_s": 60.0, "busy_timeout_s": 60.0, "lock_timeout_s": 60.0}
    writers = [make_database(database_url, **patience)]
    if not database_url.startswith("sqlite"):  # a file belongs to one process
        writers.append(make_database(database_url, **patience))
    for one in writers:
        await one.open()
    total, seen = 120, list[int]()

    async def write(number: int) -> None:
        with suppress(KeyError):
            async with writers[number % len(writers)].write() as unit:
                await unit.get(KeyValueRepository).put(f"fact-{number}", number)
                unit.publish_after_commit(replace(PLAN, run_id=str(number)))
                if number % 10 == 3:
                    await unit.store_events()
                    raise KeyError  # the number it had goes to the next

    async def read() -> None:
        while len(seen) < total * 9 // 10:
            seen.extend(one.seq for one in await stored(writers[0], seen[-1] if seen else 0, 7))
            await asyncio.sleep(0.005)

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        group.create_task(read())
        for number in range(total):
            group.create_task(write(number))
    assert seen == list(range(1, total * 9 // 10 + 1))
    for one in writers:
        await one.close()


async def test_old_events_go_from_the_old_end_only(database: Database) -> None:
    times = [T0, T0 + timedelta(minutes=1), LATER, T0, LATER, LATER]
    for number, at in enumerate(times):
        await told(database, replace(PLAN, run_id=str(number), occurred_at=at))
    async with database.write() as unit:
        assert await unit.get(EventRepository).forget(LATER, most=100) == 2
        assert await unit.get(EventRepository).forget(LATER, most=100) == 0
    assert [one.seq for one in await stored(database)] == [3, 4, 5, 6]
    async with database.write() as unit:
        assert await unit.get(EventRepository).floor() == 2
        assert await unit.get(EventRepository).forget(LATER, most=2) == 2
    assert [one.seq for one in await stored(database)] == [5, 6]
    async with database.write() as unit:
        assert await unit.get(EventRepository).forget(LATER + timedelta(days=1), most=100) == 2
        assert (
            await unit.get(EventRepository).floor(),
            await unit.get(EventRepository).head(),
        ) == (6, 6)
    await told(database, PLAN)
    assert [one.seq for one in await stored(database)] == [7]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_every_process_is_notified_of_a_commit_and_of_no_rollback(
    database: Database, database_url: str
) -> None:
    url = parse_database_url(database_url)
    listener = await asyncpg.connect(
        host=str(url.query["host"]), user=url.username, database=url.database
    )
    heard: asyncio.Queue[str] = asyncio.Queue()
    await listener.add_listener(CHANNEL, lambda *said: heard.put_nowait(str(said[2])))

    async def broken(unit: UnitOfWork) -> None:
        unit.publish_after_commit(PLAN)
        await unit.store_events()
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(broken)
    await told(database, "not ours")
    await told(database, PLAN)
    async with asyncio.timeout(30):
        assert await heard.get() == CHANNEL
    assert heard.empty()
    async with database.read() as unit:
        count = await unit.connection.execute(text("SELECT count(*) FROM events"))
        assert count.scalar() == 1
    await listener.close()
