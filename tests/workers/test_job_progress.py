"""Runs publish their start, progress and end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from app.foundation.errors import Code, UnavailableError
from app.foundation.events import JobChange, JobChanged
from app.foundation.job_service import JobEventPublisher
from app.foundation.jobs import Document, JobState
from app.foundation.ports import StepJournal
from app.foundation.sql.database import Database
from app.workers.durable import DurableRun
from app.workers.runs import report_progress
from tests.support.trading_desk import NOW


@dataclass
class Notebook:
    """A journal that remembers nothing."""

    run_id: str = "noted:1"
    shares: list[tuple[int, int]] = field(default_factory=list)

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        return await action()

    def share(self, done: int, total: int) -> None:
        self.shares.append((done, total))


@dataclass
class Heard:
    """Readers, and a run of two steps; a second passes each time somebody lets it."""

    events: list[JobChanged] = field(default_factory=list)
    failure: BaseException | None = None
    second: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, event: JobChanged) -> None:
        self.events.append(event)

    async def sleep(self, seconds: float) -> None:
        assert seconds == 1.0
        await self.second.wait()
        self.second.clear()

    async def passes(self) -> None:
        self.second.set()
        for _ in range(10):
            await asyncio.sleep(0)

    async def run(self) -> Document:
        async def work(journal: StepJournal, payload: Document) -> Document:
            async def first() -> Document:
                for share in (1, 2):
                    journal.share(share, 4)
                    await self.passes()
                await self.passes()  # nothing is new
                return {}

            async def last() -> Document:
                await self.passes()
                if self.failure is not None:
                    raise self.failure
                return {}

            return {**await journal.step("first", first), **await journal.step("last", last)}

        told = report_progress(
            DurableRun("noted", ("first", "last"), work),
            cast("JobEventPublisher", self),
            lambda: NOW,
            self.sleep,
        )
        return await told.work(Notebook(), {})

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [(one.change, one.state, one.step, one.progress) for one in self.events]


STARTED = (JobChange.STARTED, JobState.RUNNING, None, 0.0)
QUARTER = (JobChange.PROGRESS, JobState.RUNNING, "first", 0.125)
HALF = (JobChange.PROGRESS, JobState.RUNNING, "first", 0.25)
SECOND = (JobChange.PROGRESS, JobState.RUNNING, "last", 0.5)


async def test_a_run_publishes_start_progress_and_end() -> None:
    heard = Heard()
    await heard.run()
    done = (JobChange.ENDED, JobState.DONE, "last", 1.0)
    assert heard.told == [STARTED, QUARTER, HALF, SECOND, done]
    assert {(one.job_id, one.kind, one.error) for one in heard.events} == {
        ("noted:1", "noted", None)
    }


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (UnavailableError(Code.EXCHANGE_UNAVAILABLE, "away"), "exchange_unavailable"),
        (ValueError("a secret"), "internal_error"),
    ],
)
async def test_a_failure_is_published_with_its_code_and_raised(
    failure: Exception, code: str
) -> None:
    heard = Heard(failure=failure)
    with pytest.raises(type(failure)) as caught:
        await heard.run()
    assert caught.value is failure
    assert heard.told[-1] == (JobChange.ENDED, JobState.FAILED, "last", 0.5)
    assert heard.events[-1].error == code
    assert "secret" not in repr(heard.events)


async def test_a_cancelled_process_publishes_no_end() -> None:
    heard = Heard(failure=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await heard.run()
    assert heard.told[-1] == SECOND


async def test_a_job_event_that_cannot_be_stored_fails_no_job() -> None:
    class Away:
        def write(self) -> object:
            raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

    lost = JobEventPublisher(cast("Database", Away()))
    event = JobChanged("a", "b", JobChange.STARTED, JobState.RUNNING, None, 0.0, None, NOW)
    await lost.publish(event)
