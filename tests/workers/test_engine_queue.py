"""Properties of DBOS that the engine relies on: lost queue races and missing notifications."""

import logging
import re
from itertools import pairwise

import pytest
from dbos._dbos import _get_dbos_instance
from psycopg.errors import SerializationFailure
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.foundation.jobs import JobState
from app.foundation.sql.database import Database
from tests.workers.engines import POLL_S, Notes, ended, engine_at

pytestmark = [
    pytest.mark.long,
    pytest.mark.parametrize("backend", ["postgres"], indirect=True),
]
CONFLICTS = 4
_TELLING = (
    "SELECT DISTINCT event_object_table FROM information_schema.triggers"
    " WHERE trigger_schema = 'dbos'"
)


async def test_a_queue_that_loses_against_others_looks_less_often_and_loses_no_run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notes, lost = Notes(), 0
    async with engine_at(database_url, [notes.run()]) as engine:
        store = _get_dbos_instance()._sys_db
        take = store.start_queued_workflows

        def taken(*given: object, **named: object) -> object:
            nonlocal lost
            if lost < CONFLICTS and getattr(given[0], "name", "") == "jobs":
                lost += 1
                raise DBAPIError("UPDATE", {}, SerializationFailure("another took it"))
            return take(*given, **named)  # type: ignore[arg-type]  # handed on as it came

        monkeypatch.setattr(logging.getLogger("dbos"), "propagate", True)
        with caplog.at_level(logging.WARNING, logger="dbos"):
            monkeypatch.setattr(store, "start_queued_workflows", taken)
            await engine.enqueue("noted", {}, run_id="r-1")
            assert (await ended(engine, "r-1")).state is JobState.DONE
    assert notes.done == ["first", "second"]
    pauses = [
        float(one)
        for one in re.findall(r"for jobs\. Increasing polling interval to (\d+\.\d+)", caplog.text)
    ]
    assert len(pauses) == lost == CONFLICTS
    # Twice as long after each loss, less a tenth at each look: from two minutes on it would not
    # grow any more, and a healthy queue is back at its own pace by itself.
    assert pauses[0] == 2 * POLL_S
    for before, after in pairwise(pauses):
        assert after == pytest.approx(2 * 0.9 * before, abs=0.011)


async def test_database_notifications_are_only_hints_for_the_engine(
    database: Database, database_url: str
) -> None:
    """As behind a pooler that shares connections, where LISTEN hears nothing."""
    notes = Notes()
    async with engine_at(database_url, [notes.run()]) as engine:
        async with database.write() as unit:
            told = list((await unit.connection.execute(text(_TELLING))).scalars())
            assert told, "the engine tells by NOTIFY from its migrations on"
            for table in told:
                mute = text(f'ALTER TABLE dbos."{table}" DISABLE TRIGGER USER')
                await unit.connection.execute(mute)
        await engine.enqueue("noted", {}, run_id="r-1", key="k")
        done = await ended(engine, "r-1")
        assert done.state is JobState.DONE
        assert [step.name for step in done.steps] == ["first", "second"]
        # Cancelling is noticed without a notice as well.
        notes.go_on.clear()
        notes.begun.clear()
        await engine.enqueue("noted", {}, run_id="r-2", key="k")
        await notes.begun.wait()
        assert (await engine.cancel("r-2")).state is JobState.CANCELLED
        notes.go_on.set()
        assert (await ended(engine, "r-2")).state is JobState.CANCELLED
