"""The engine on both stores: what our port promises, and what we rely on in DBOS."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.jobs import Document, Job, JobError, JobState, StepState
from app.foundation.ports import StepJournal
from app.workers.durable import DurableRun
from app.workers.engine import Engine
from tests.workers.engines import Notes, ended, engine_at, until

pytestmark = pytest.mark.long

PAYLOAD = {"x": 3, "text": "ö", "list": [1, None, True]}


def shown(job: Job) -> list[tuple[str, StepState]]:
    return [(step.name, step.state) for step in job.steps]


async def running(engine: Engine, run_id: str) -> bool:
    return (await engine.job(run_id)).state is JobState.RUNNING


async def test_a_run_is_carried_out_on_our_loop_and_recorded_step_by_step(
    database_url: str,
) -> None:
    notes, outcomes = Notes(), []
    notes.go_on.clear()
    heard = lambda kind, outcome: outcomes.append((kind, outcome))  # noqa: E731  # a line of its own
    async with engine_at(database_url, [notes.run()], on_end=heard) as engine:
        begun = await engine.enqueue("noted", PAYLOAD, run_id="r-1")
        assert (begun.run_id, begun.is_new) == ("r-1", True)
        await asyncio.wait_for(notes.begun.wait(), 60)

        async def told() -> bool:
            return (await engine.job("r-1")).progress > 0.5

        await until(told)
        half = await engine.job("r-1")
        assert half.state is JobState.RUNNING
        assert shown(half) == [("first", StepState.DONE), ("second", StepState.RUNNING)]
        assert half.progress == pytest.approx((1 + 1 / 4) / 2)
        assert half.payload == PAYLOAD
        notes.go_on.set()
        whole = await ended(engine, "r-1")

    assert (whole.state, whole.progress, whole.error) == (JobState.DONE, 1.0, None)
    assert whole.result == {"first": 3, "second": True}
    assert shown(whole) == [("first", StepState.DONE), ("second", StepState.DONE)]
    assert all(step.started_at and step.finished_at for step in whole.steps)
    assert whole.finished_at is not None
    assert notes.done == ["first", "second"]
    assert notes.loops == {id(asyncio.get_running_loop())}
    assert outcomes == [("noted", "done")]


async def test_the_same_id_is_the_same_run_also_when_it_has_ended(database_url: str) -> None:
    notes = Notes()
    async with engine_at(database_url, [notes.run()]) as engine:
        many = [engine.enqueue("noted", {}, run_id="r-1") for _ in range(8)]
        begun = await asyncio.gather(*many)
        assert sorted(one.is_new for one in begun) == [False] * 7 + [True]
        await ended(engine, "r-1")
        again = await engine.enqueue("noted", {}, run_id="r-1")
        assert (again.run_id, again.is_new) == ("r-1", False)
        assert (await engine.job("r-1")).state is JobState.DONE
    assert notes.done == ["first", "second"]


async def test_a_key_is_taken_while_queued_and_running_and_free_afterwards(
    database_url: str,
) -> None:
    notes = Notes()
    notes.go_on.clear()
    async with engine_at(database_url, [notes.run()]) as engine:
        await engine.enqueue("noted", {}, run_id="r-1", key="k")
        at_once = await engine.enqueue("noted", {}, run_id="r-2", key="k")
        await asyncio.wait_for(notes.begun.wait(), 60)
        while_running = await engine.enqueue("noted", {}, run_id="r-3", key="k")
        assert [(one.run_id, one.is_new) for one in (at_once, while_running)] == [
            ("r-1", False)
        ] * 2
        with pytest.raises(NotFoundError):
            await engine.job("r-2")
        notes.go_on.set()
        await ended(engine, "r-1")
        after = await engine.enqueue("noted", {}, run_id="r-4", key="k")
        assert (after.run_id, after.is_new) == ("r-4", True)
        await ended(engine, "r-4")
    assert notes.done == ["first", "second"] * 2


async def test_a_domain_error_is_stored_with_code_and_text(database_url: str) -> None:
    notes, outcomes = Notes(), []
    notes.failure = UnavailableError(Code.MARKET_DATA_STALE, "The market is two hours old.")
    run = notes.run()
    heard = lambda _kind, outcome: outcomes.append(outcome)  # noqa: E731  # a line of its own
    async with engine_at(database_url, [run], on_end=heard) as engine:
        await engine.enqueue("noted", {}, run_id="r-1", key="k")
        job = await ended(engine, "r-1")
        stale = JobError("market_data_stale", "The market is two hours old.")
        assert (job.state, job.error, job.result) == (JobState.FAILED, stale, None)
        assert (job.steps[1].state, job.steps[1].error) == (StepState.FAILED, stale)
        assert (await engine.enqueue("noted", {}, run_id="r-2", key="k")).is_new
        await ended(engine, "r-2")
    assert outcomes == ["market_data_stale"] * 2


async def test_of_an_unforeseen_error_nothing_is_shown(database_url: str) -> None:
    notes, outcomes = Notes(), []
    notes.failure = ValueError("canary")
    heard = lambda _kind, outcome: outcomes.append(outcome)  # noqa: E731  # a line of its own
    async with engine_at(database_url, [notes.run()], on_end=heard) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        job = await ended(engine, "r-1")
    assert job.error is not None
    assert job.error.code == "internal_error"
    assert "canary" not in repr(job)
    assert outcomes == ["internal_error"]


async def test_cancelled_it_takes_no_further_step_and_gives_its_key_free(
    database_url: str,
) -> None:
    notes = Notes()
    notes.go_on.clear()
    async with engine_at(database_url, [notes.run()]) as engine:
        await engine.enqueue("noted", {}, run_id="r-1", key="k")
        await asyncio.wait_for(notes.begun.wait(), 60)
        job = await engine.cancel("r-1")
        assert (job.state, job.is_final) == (JobState.CANCELLED, True)

        async def gone() -> bool:
            return not engine._tasks

        await until(gone)
        assert (await engine.job("r-1")).state is JobState.CANCELLED
        assert (await engine.enqueue("noted", {}, run_id="r-2", key="k")).is_new
        notes.go_on.set()
        done = await ended(engine, "r-2")
        assert done.state is JobState.DONE
        assert (await engine.cancel("r-2")).state is JobState.DONE, "too late changes nothing"
        with pytest.raises(NotFoundError):
            await engine.cancel("r-3")


async def test_two_runs_of_a_kind_work_at_a_time_and_no_other_kind_waits_for_them(
    database_url: str,
) -> None:
    counts = {"reading": 0, "other": 0}
    most, go_on = dict(counts), asyncio.Event()

    def work(kind: str) -> DurableRun:
        async def run(journal: StepJournal, _: Document) -> Document:
            counts[kind] += 1
            most[kind] = max(most[kind], counts[kind])
            await journal.step("waits", wait)
            counts[kind] -= 1
            return {}

        return DurableRun(kind, ("waits",), run)

    async def wait() -> Document:
        await go_on.wait()
        return {}

    async with engine_at(database_url, [work("reading"), work("other")]) as engine:
        for number in range(6):
            await engine.enqueue("reading", {}, run_id=f"r-{number}")
        await engine.enqueue("other", {}, run_id="o-1")

        async def both() -> bool:
            states = [(await engine.job(f"r-{number}")).state for number in range(6)]
            begun = all(state is JobState.RUNNING for state in states)
            return begun and counts == {"reading": 2, "other": 1}

        await until(both)
        go_on.set()
        jobs = [await ended(engine, run) for run in ("o-1", *(f"r-{at}" for at in range(6)))]
    assert {job.state for job in jobs} == {JobState.DONE}
    assert most == {"reading": 2, "other": 1}


async def test_closing_waits_for_running_work(database_url: str) -> None:
    notes = Notes()
    notes.go_on.clear()
    async with engine_at(database_url, [notes.run()]) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        await asyncio.wait_for(notes.begun.wait(), 60)
        asyncio.get_running_loop().call_later(0.3, notes.go_on.set)
    async with engine_at(database_url, [notes.run()]) as engine:
        assert (await engine.job("r-1")).state is JobState.DONE
    assert notes.done == ["first", "second"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_K15_while_it_closes_no_run_is_begun_and_the_next_one_takes_it_up(
    database_url: str,
) -> None:
    notes, leave = Notes(), asyncio.Event()
    notes.go_on.clear()
    opened: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()

    async def first_process() -> None:
        async with engine_at(database_url, [notes.run()]) as engine:
            opened.set_result(engine)
            await leave.wait()

    process = asyncio.ensure_future(first_process())
    engine = await opened
    await engine.enqueue("noted", {}, run_id="r-1")
    await notes.begun.wait()
    leave.set()

    async def is_closing() -> bool:
        return engine._closing

    await until(is_closing)
    await engine.enqueue("noted", {}, run_id="r-2")
    await until(lambda: running(engine, "r-2"))
    notes.go_on.set()
    await process
    assert notes.done == ["first", "second"]
    async with engine_at(database_url, [notes.run()]) as engine:
        assert (await ended(engine, "r-2")).state is JobState.DONE
        assert (await engine.job("r-1")).state is JobState.DONE
    assert notes.done == ["first", "second"] * 2


async def test_an_unfinished_run_resumes_at_its_interrupted_step(
    database_url: str,
) -> None:
    notes = Notes()
    notes.go_on.clear()
    async with engine_at(database_url, [notes.run()], drain_s=0.05) as engine:
        await engine.enqueue("noted", {}, run_id="r-1", key="k")
        await asyncio.wait_for(notes.begun.wait(), 60)
    assert await asyncio.to_thread(lambda: "threads") == "threads", "the loop has threads again"
    notes.go_on.set()
    async with engine_at(database_url, [notes.run()]) as engine:
        job = await ended(engine, "r-1")
    assert job.state is JobState.DONE
    assert notes.done == ["first", "second", "second"], "only the step in flight is repeated"


async def test_a_run_waits_for_its_gate_and_closing_does_not_wait_for_that(
    database_url: str,
) -> None:
    notes, gate = Notes(), asyncio.Event()
    async with engine_at(database_url, [notes.run(gate=gate.wait)]) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")

        async def waiting() -> bool:
            return bool(engine._waiting)

        await until(waiting)
        assert await running(engine, "r-1")
    assert notes.done == []
    gate.set()
    async with engine_at(database_url, [notes.run(gate=gate.wait)]) as engine:
        assert (await ended(engine, "r-1")).state is JobState.DONE
    assert notes.done == ["first", "second"]


async def test_runs_of_another_version_are_left_alone_and_counted(database_url: str) -> None:
    notes, gate = Notes(), asyncio.Event()
    runs = [notes.run(gate=gate.wait)]
    async with engine_at(database_url, runs, version="jobs-0") as engine:
        await engine.enqueue("noted", {}, run_id="old")

        async def waiting() -> bool:
            return bool(engine._waiting)

        await until(waiting)
    gate.set()
    async with engine_at(database_url, runs) as engine:
        await engine.enqueue("noted", {}, run_id="new")
        await ended(engine, "new")
        assert await running(engine, "old")
        assert await engine.count_other_versions() == 1
    assert notes.done == ["first", "second"]
    async with engine_at(database_url, runs, version="jobs-0") as engine:
        assert (await ended(engine, "old")).state is JobState.DONE


async def test_runs_of_a_dead_executor_are_resumed_by_another(database_url: str) -> None:
    notes, gate = Notes(), asyncio.Event()
    runs = [notes.run(gate=gate.wait)]
    async with engine_at(database_url, runs, executor_id="dead") as engine:
        await engine.enqueue("noted", {}, run_id="r-1", key="k")

        async def waiting() -> bool:
            return bool(engine._waiting)

        await until(waiting)
    gate.set()
    async with engine_at(database_url, runs, executor_id="alive") as engine:
        assert await engine.executors() == {"dead"}
        assert not (await engine.enqueue("noted", {}, run_id="r-2", key="k")).is_new

        async def taken() -> bool:
            return await engine.take_over("dead")

        await until(taken)
        assert (await ended(engine, "r-1")).state is JobState.DONE
        assert await engine.executors() == frozenset()
        assert await engine.take_over("dead"), "once more does no harm"
    assert notes.done == ["first", "second"]


async def test_one_that_only_asks_leaves_the_work_to_others(database_url: str) -> None:
    notes = Notes()
    async with engine_at(database_url, [notes.run()], works=False) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        await asyncio.sleep(0.5)  # ten times as long as a worker needs to notice it
        assert (await engine.job("r-1")).state is JobState.QUEUED
    async with engine_at(database_url, [notes.run()]) as engine:
        assert (await ended(engine, "r-1")).state is JobState.DONE


async def test_lists_newest_first_by_pages_kind_and_state(database_url: str) -> None:
    notes, other = Notes(), Notes()
    other.failure = UnavailableError(Code.OVERLOADED, "later")
    runs = [notes.run(), other.run("other")]
    async with engine_at(database_url, runs) as engine:
        for number in range(5):
            await engine.enqueue("noted", {}, run_id=f"n-{number}")
        await engine.enqueue("other", {}, run_id="o-1")
        for run_id in ("o-1", *(f"n-{number}" for number in range(5))):
            await ended(engine, run_id)
        everything = await engine.jobs()
        assert {job.run_id for job in everything} == {f"n-{n}" for n in range(5)} | {"o-1"}
        places = [(job.created_at, job.run_id) for job in everything]
        assert all(one > two for one, two in pairwise(places))
        pages: list[str] = []
        before = None
        while page := await engine.jobs(before=before, limit=2):
            assert len(page) == 2
            pages += [job.run_id for job in page]
            before = (page[-1].created_at, page[-1].run_id)
        assert pages == [job.run_id for job in everything]
        failed = await engine.jobs(state=JobState.FAILED)
        assert [job.run_id for job in failed] == ["o-1"]
        assert [job.run_id for job in await engine.jobs(kind="other")] == ["o-1"]
        assert await engine.jobs(kind="other", state=JobState.QUEUED) == ()
        assert await engine.jobs(kind="unknown") == ()
        with pytest.raises(KeyError):
            await engine.enqueue("unknown", {}, run_id="u-1")


async def test_deletes_ended_runs_and_nothing_else(database_url: str) -> None:
    notes, gate = Notes(), asyncio.Event()
    runs = [notes.run(), Notes().run("held", gate=gate.wait)]
    async with engine_at(database_url, runs) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        await engine.enqueue("held", {}, run_id="r-2")
        await ended(engine, "r-1")
        now = datetime.now(UTC)
        assert await engine.forget(now - timedelta(hours=1)) == 0
        assert await engine.forget(now + timedelta(hours=1)) == 1
        assert [job.run_id for job in await engine.jobs()] == ["r-2"]
        with pytest.raises(NotFoundError):
            await engine.job("r-1")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_process_has_one_engine_and_one_after_the_other(database_url: str) -> None:
    run = Notes().run()
    async with engine_at(database_url, [run]) as engine:
        with pytest.raises(RuntimeError, match="already"):
            await Engine(engine.options).open([run])
        await engine.enqueue("noted", {}, run_id="r-1")
        assert (await ended(engine, "r-1")).state is JobState.DONE


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_run_may_be_done_without_a_step(database_url: str) -> None:
    async def work(_: object, payload: object) -> dict[str, object]:
        return {"was": payload}

    async with engine_at(database_url, [DurableRun("plain", (), work)]) as engine:
        await engine.enqueue("plain", {"x": 1}, run_id="r-1")
        job = await ended(engine, "r-1")
    assert (job.steps, job.result, job.progress) == ((), {"was": {"x": 1}}, 1.0)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_it_speaks_through_our_logs_only(
    database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with engine_at(database_url, [Notes().run()]) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        await ended(engine, "r-1")
        handlers = logging.getLogger("dbos").handlers
        assert [type(one) for one in handlers] == [logging.NullHandler]
    said = capfd.readouterr()
    assert "DBOS" not in said.out + said.err
    assert "onductor" not in said.out + said.err


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("failure", "tracebacks"),
    [(UnavailableError(Code.MARKET_DATA_STALE, "The market is two hours old."), 0),
     (ValueError("unforeseen"), 1)],
    ids=["refused", "unforeseen"],
)  # fmt: skip
async def test_a_refused_run_logs_no_traceback_of_the_engine(
    database_url: str, caplog: pytest.LogCaptureFixture, failure: Exception, tracebacks: int
) -> None:
    notes = Notes()
    notes.failure = failure
    async with engine_at(database_url, [notes.run()]) as engine:
        await engine.enqueue("noted", {}, run_id="r-1")
        await ended(engine, "r-1")
    records = [one for one in caplog.records if one.name == "dbos" and one.exc_info]
    assert len(records) == tracebacks
