"""The engine without its PostgreSQL: callers get an error at once, and work resumes later."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.foundation.errors import Code, UnavailableError
from app.foundation.jobs import JobState
from tests.support import database_outage, postgres
from tests.workers.engines import Notes, ended, engine_at, until

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
Switch = Callable[[bool], Awaitable[None]]


@pytest.fixture
def reachable(database_url: str, postgres_server: postgres.Server) -> Switch:
    """Lets connections to the database be made, or cuts them and makes none."""

    async def switch(on: bool) -> None:
        await database_outage.reachable(postgres_server.room, database_url, on=on)

    return switch


async def test_B01_without_its_database_it_says_so_and_goes_on_when_that_is_back(
    database_url: str, reachable: Switch
) -> None:
    notes, other = Notes(), Notes()
    notes.go_on.clear()
    async with engine_at(database_url, [notes.run(), other.run("other")], answer_s=2.0) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        await asyncio.wait_for(notes.begun.wait(), 60)
        await reachable(False)
        try:
            for question in (
                engine.jobs(),
                engine.job("r-1"),
                engine.cancel("r-1"),
                engine.enqueue("other", {}, run_id="r-2"),
                engine.executors(),
            ):
                with pytest.raises(UnavailableError) as caught:
                    await question
                assert caught.value.code is Code.DATABASE_UNAVAILABLE
            notes.go_on.set()  # the step ends while nothing can be recorded
        finally:
            await reachable(True)

        async def done() -> bool:
            try:
                # What was asked for in vain may have been begun or not: the same id tells.
                await engine.enqueue("other", {}, run_id="r-2")
                jobs = [await engine.job(run_id) for run_id in ("r-1", "r-2")]
            except UnavailableError:
                return False
            return all(job.state is JobState.DONE for job in jobs)

        # The engine waits longer and longer between its tries, up to a minute.
        await until(done, within_s=240.0)
    assert notes.done == ["first", "second"], "what was done is recorded, not done again"
    assert other.done == ["first", "second"]


async def test_B01_it_closes_in_time_while_its_database_is_away(
    database_url: str, reachable: Switch
) -> None:
    notes = Notes()
    notes.go_on.clear()
    async with engine_at(database_url, [notes.run()], drain_s=0.2) as engine:
        await engine.enqueue("noted", {}, run_id="r-1", key="k")
        await asyncio.wait_for(notes.begun.wait(), 60)
        await reachable(False)
    await reachable(True)
    notes.go_on.set()
    async with engine_at(database_url, [notes.run()]) as engine:
        assert (await ended(engine, "r-1")).state is JobState.DONE


async def test_B01_without_its_database_it_does_not_open(
    database_url: str, reachable: Switch
) -> None:
    await reachable(False)
    try:
        with pytest.raises(UnavailableError) as caught:
            async with engine_at(database_url, [Notes().run()]):
                pass
        assert caught.value.code is Code.DATABASE_UNAVAILABLE
    finally:
        await reachable(True)
    async with engine_at(database_url, [Notes().run()]) as engine:
        assert await engine.jobs() == ()
