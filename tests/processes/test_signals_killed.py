"""Processes killed while they take in, judge and book signals: nothing is lost or counts twice."""

import asyncio
import signal
from collections import Counter

import pytest

from app.foundation.events import EventTopic
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.operations.domain.event_codec import decode_event
from app.signals.domain.events import SignalChanged
from app.signals.domain.models import SignalState
from app.signals.storage.signals import SignalRepository
from app.signals.storage.statistics import SignalRecordRepository
from tests.processes.signal_worker import SENT, name_of, run
from tests.support import child_processes
from tests.support.outcome_fixtures import keep_board, moved
from tests.support.signal_fixtures import informed
from tests.support.trading_desk import NOW, SYMBOLS, Desk

pytestmark = [pytest.mark.long, pytest.mark.parametrize("backend", ["postgres"], indirect=True)]

PATIENCE_S = 120.0
UP = {symbol: 0.01 * (at % 5) for at, symbol in enumerate(SYMBOLS)}


def lived(url: str, failpoint: str, at_once: int) -> tuple[list[str], int | None]:
    """What it has said until its end, and how that was."""
    process, link = child_processes.born(run, url, failpoint, at_once)
    with link, link.makefile() as said:
        try:
            lines = said.read().split()
        except ConnectionResetError:
            lines = []
    process.join()
    return lines, process.exitcode


@pytest.mark.parametrize(
    ("failpoint", "accepted", "at_once"),
    [
        ("commit:4", 3, 1),  # before the fourth is committed
        ("published", 0, 1),  # committed, and nobody heard of it
        ("after:INSERT INTO signal_votes", 0, 1),
        ("commit:2", SENT // 2, 6),  # before the second commit of six requests at once
        ("published", 0, 6),
        ("after:UPDATE signals SET", SENT, 6),  # in the midst of a batch of the queue
        ("before:UPDATE signal_outcomes", SENT, 6),
        ("after:INSERT INTO signal_records", SENT, 1),
    ],
)
async def test_signals_of_a_killed_process_are_all_there_and_count_once(
    database: Database, database_url: str, failpoint: str, accepted: int, at_once: int
) -> None:
    desk = await Desk(database).open()
    informed(desk)
    await keep_board(desk)
    await moved(desk, NOW, UP)
    async with asyncio.timeout(PATIENCE_S):
        said, ended = await asyncio.to_thread(lived, database_url, failpoint, at_once)
        assert ended == -signal.SIGKILL
        heard = [line for line in said if line.startswith("signal-")]
        expected = [name_of(number) for number in range(accepted)]
        if at_once == 1:
            assert heard == expected
        else:  # transactions of concurrent requests end in any order
            assert len(heard) == len(set(heard))
            assert set(heard) <= {name_of(number) for number in range(SENT)}
            if accepted in {0, SENT}:
                assert set(heard) == set(expected)
        async with database.read() as unit:
            for line in heard:
                assert (
                    await unit.get(SignalRepository).by_source_id("desk", line)
                ).signal.signal_id
        said, ended = await asyncio.to_thread(lived, database_url, "", at_once)
    assert (said[-2:], ended) == (["judged", "booked"], 0)
    found = (await desk.signals.statistics(30)).counts
    assert found.total == SENT
    async with database.read() as unit:
        records = await unit.get(EventRepository).after(0, 1_000)
        names = [
            (await unit.get(SignalRepository).by_source_id("desk", name_of(at))).signal
            for at in range(SENT)
        ]
        agents, sources = await unit.get(SignalRecordRepository).load(None)
    assert {one.state for one in names} <= {SignalState.APPROVED, SignalState.REJECTED}
    events = [decode_event(one) for one in records if one.topic is EventTopic.SIGNAL]
    judged = [
        one.signal_id
        for one in events
        if isinstance(one, SignalChanged) and one.evaluation is not None
    ]
    assert Counter(judged) == Counter(one.signal_id for one in names), "each judged once"
    assert {one.outcomes for one in agents.values()} == {SENT}
    assert [one.outcomes for one in sources.values()] == [SENT]
