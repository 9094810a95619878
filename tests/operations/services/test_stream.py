"""The stream follows every process's commits, by hint and without one, over lost connections."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.services.current import CurrentSettings
from app.foundation.errors import UnavailableError
from app.foundation.events import EventRecord, EventTopic
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.operations.services import event_stream as module
from app.operations.services.event_messages import notice
from app.operations.services.event_stream import EventStream, RecentEvents, StreamEntry
from app.portfolio.domain.events import PlanCreated
from tests.support.trading_desk import NOW

PLAN = PlanCreated("run", 1, 0, NOW)
PATIENCE_S = 60.0


async def announce(database: Database, *events: object) -> None:
    async with database.write() as unit:
        for event in events:
            unit.publish_after_commit(event)


def follower(database: Database, heard: list[EventRecord]) -> EventStream:
    return EventStream(database, lambda: NOW, Metrics(), heard.append)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def another(url: str, make_database: Callable[..., Database]) -> AsyncIterator[Database]:
    """A second process's connection to the same database."""
    opened = make_database(url)
    await opened.open()
    yield opened
    await opened.close()


def silence(beat: object = None) -> None:
    """Ignores conflated events."""


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
@pytest.mark.parametrize("by", ["hint", "poll"])
async def test_events_of_another_process_arrive(
    database: Database,
    database_url: str,
    make_database: Callable[..., Database],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05 if by == "poll" else 3_600.0)
    heard: list[EventRecord] = []
    stream = follower(database, heard)
    await stream.open()
    async with another(database_url, make_database) as other, asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream.follow(silence))]
        if by == "hint":
            tasks.append(group.create_task(database.listen(stream.wake, silence)))
        for number in range(5):
            await announce(other, replace(PLAN, run_id=str(number)))
            wanted = number + 1
            await until(lambda: len(heard) == wanted)  # noqa: B023  # awaited in this round
        for task in tasks:
            task.cancel()
    assert [(one.seq, one.data["run_id"]) for one in heard] == [
        (number + 1, str(number)) for number in range(5)
    ]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_a_listener_that_is_cut_off_says_so_and_hints_at_once_when_it_is_back(
    database: Database, database_url: str, make_database: Callable[..., Database]
) -> None:
    hints: list[int] = []
    beats: list[int] = []

    async def listen() -> None:
        await database.listen(lambda: hints.append(1), lambda: beats.append(1))

    async with another(database_url, make_database) as other:
        listening = asyncio.ensure_future(listen())
        await until(lambda: bool(beats))
        cut = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        async with other.write() as unit:
            await unit.connection.execute(cut)
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(PATIENCE_S):
                await listening
        before = len(hints)
        again = asyncio.ensure_future(listen())
        await until(lambda: len(hints) > before)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_one_process_needs_no_listener(database: Database) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await database.listen(lambda: None, silence)  # returns


async def test_settings_of_another_process_come_into_force(database: Database) -> None:
    in_force = CurrentSettings()
    stream = EventStream(database, lambda: NOW, Metrics(), in_force.on_record)
    await stream.open()
    newer = replace(Configuration(), version=3, max_portfolio_symbols=7)
    await announce(database, PLAN, ConfigurationChanged(newer, NOW))
    await stream.catch_up()
    assert in_force() == newer
    await announce(database, ConfigurationChanged(replace(newer, version=2), NOW))
    await stream.catch_up()
    assert in_force() == newer


async def test_events_dropped_before_they_were_read_leave_no_hole_in_memory(
    database: Database,
) -> None:
    heard: list[EventRecord] = []
    stream = follower(database, heard)
    await stream.open()
    await announce(database, PLAN)
    await stream.catch_up()
    await announce(database, *(replace(PLAN, run_id=str(number)) for number in range(5)))
    async with database.write() as unit:
        await unit.get(EventRepository).forget(NOW, most=2)
    with stream.reader("websocket") as reader:
        reader.subscribe({EventTopic.REBALANCE}, frozenset())
        await stream.catch_up()
        frames = await reader.next()
        while frames[-1].sequence != 6:
            frames += await reader.next()
    assert [(one.kind, one.sequence) for one in frames] == [
        ("gap", 4),  # the two replayed events are not missing
        ("rebalance", 5),
        ("rebalance", 6),
    ]
    assert [one.seq for one in heard] == [1, 5, 6]


async def lost_after(database: Database, seq: int) -> None:
    """The database as it was when `seq` was the newest event: a failover lost what came then."""
    async with database.write() as unit:
        for lost in ("DELETE FROM events WHERE seq > :seq", "UPDATE event_head SET seq = :seq"):
            await unit.connection.execute(text(lost), {"seq": seq})


async def test_B12_a_database_that_lost_its_last_commits_is_a_gap_and_nothing_after_it_is_lost(
    database: Database,
) -> None:
    again = 0

    async def reread() -> None:
        nonlocal again
        again += 1

    heard: list[EventRecord] = []
    stream = replace(follower(database, heard), reread=reread)
    await stream.open()
    with stream.reader("websocket") as reader, stream.reader("websocket") as other:
        for one in (reader, other):
            one.subscribe({EventTopic.REBALANCE}, frozenset())
        await announce(database, *(replace(PLAN, run_id=str(number)) for number in range(3)))
        await stream.catch_up()
        assert [one.sequence for one in await reader.next()] == [1, 2, 3]

        await lost_after(database, 1)
        await stream.catch_up()
        (gap,) = await reader.next()
        assert json.loads(gap.text) == {
            "type": "gap",
            "sequence": 1,
            "resume_from": 3,
            "reason": "sequence_went_back",
            "oldest": 1,
        }
        assert [one.kind for one in await other.next()] == ["gap"]  # it had read none of them
        await announce(database, replace(PLAN, run_id="new"))
        await stream.catch_up()
        for one in (reader, other):
            (frame,) = await one.next()
            assert (frame.sequence, "new" in frame.text) == (2, True)
        assert [one.seq for one in heard] == [1, 2, 3, 2]
        assert again == 1


async def test_B12_the_loss_is_noticed_also_where_other_events_have_taken_the_numbers(
    database: Database,
) -> None:
    stream = follower(database, [])
    await stream.open()
    with stream.reader("websocket") as reader:
        reader.subscribe({EventTopic.REBALANCE}, frozenset())
        following = asyncio.ensure_future(stream.follow(silence))
        await announce(database, PLAN, PLAN)
        assert [one.sequence for one in await reader.next()] == [1, 2]
        following.cancel()  # as with the connection that a failover cuts
        await asyncio.gather(following, return_exceptions=True)
        await lost_after(database, 0)
        await announce(database, *(replace(PLAN, run_id=str(number)) for number in range(3)))
        following = asyncio.ensure_future(stream.follow(silence))
        (gap,) = await reader.next()
        assert (gap.kind, gap.sequence) == ("gap", 3)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        following = asyncio.ensure_future(stream.follow(silence))
        await announce(database, replace(PLAN, run_id="after"))
        assert [one.sequence for one in await reader.next()] == [4], "told once"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize("has_read", [True, False])
async def test_B12_the_loss_is_noticed_although_no_connection_was_cut(
    database: Database, *, has_read: bool
) -> None:
    await announce(database, PLAN)
    stream = follower(database, [])
    await stream.open()
    with stream.reader("websocket") as reader:
        reader.subscribe({EventTopic.REBALANCE}, frozenset())
        if has_read:
            await announce(database, PLAN)
            await stream.catch_up()
            assert [one.sequence for one in await reader.next()] == [2]
        await lost_after(database, 0)
        await announce(database, *(replace(PLAN, run_id=str(number)) for number in range(3)))
        await stream.catch_up()
        (gap,) = await reader.next()
        assert (gap.kind, gap.sequence) == ("gap", 3)
        await stream.catch_up()
        await announce(database, replace(PLAN, run_id="after"))
        await stream.catch_up()
        assert [one.sequence for one in await reader.next()] == [4], "told once"
        # And once more, right after it has begun anew.
        await lost_after(database, 0)
        await announce(database, *(replace(PLAN, run_id="third") for _ in range(5)))
        await stream.catch_up()
        assert [(one.kind, one.sequence) for one in await reader.next()] == [("gap", 5)]


def _entries(first: int, last: int) -> list[StreamEntry]:
    return [
        StreamEntry(EventRecord(EventTopic.REBALANCE, "plan_created", None, {}, NOW, seq))
        for seq in range(first, last + 1)
    ]


def test_X1_the_buffer_in_memory_is_bounded() -> None:
    recent = RecentEvents(10)
    for number in range(0, 1_000, 5):
        recent.extend(_entries(number + 1, number + 5))
        assert len(recent._entries) <= 20
        window = recent.after(max(0, recent.head - 10), 100)
        assert window is not None
        assert [one.record.seq for one in window] == list(
            range(max(1, recent.head - 9), recent.head + 1)
        )
    assert recent.after(900, 100) is None
    assert recent.after(recent.head, 100) == []


async def test_only_the_newest_quote_waits_for_a_reader(database: Database) -> None:
    stream = follower(database, [])
    await stream.open()
    with stream.reader("websocket") as reader, stream.reader("sse") as other:
        reader.subscribe(frozenset(), {"A", "B"})
        other.subscribe(frozenset(), {"C"})
        assert stream.wanted_symbols() == {"A", "B", "C"}
        for number in range(500):
            stream.publish_quotes({"A": notice("ticker", None, number=number)})
        stream.publish_quotes({"B": notice("ticker", None, number=-1), "D": notice("ticker")})
        assert [one.text for one in await reader.next()] == [
            '{"type":"ticker","number":499}',
            '{"type":"ticker","number":-1}',
        ]
        other.subscribe(frozenset(), {"C", "A"})  # the present quote comes at once
        assert [one.text for one in await other.next()] == ['{"type":"ticker","number":499}']
        other.subscribe(frozenset(), {"C"})
        stream.publish_quotes({"A": notice("ticker", None, number=500)})
        assert other._new_quotes() == []
    assert stream.wanted_symbols() == frozenset()


async def test_an_unrelated_event_wakes_no_reader_and_none_is_missed(
    database: Database,
) -> None:
    stream = follower(database, [])
    await stream.open()
    with stream.reader("websocket") as idle, stream.reader("websocket") as wants:
        idle.subscribe({EventTopic.ALERT}, frozenset())
        wants.subscribe({EventTopic.REBALANCE}, frozenset())
        for one in (idle, wants):
            one._woken.clear()
        await announce(database, PLAN, PLAN)
        await stream.catch_up()
        assert (idle._woken.is_set(), idle.position) == (False, 2)
        assert (wants._woken.is_set(), wants.position) == (True, 0)
        idle.subscribe(
            {EventTopic.ALERT, EventTopic.REBALANCE}, frozenset()
        )  # from now on, not from before
        await announce(database, PLAN)
        await stream.catch_up()
        assert [frame.sequence for frame in await idle.next()] == [3]
        assert [frame.sequence for frame in await wants.next()] == [1, 2, 3]
