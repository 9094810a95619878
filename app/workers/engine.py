"""Durable runs: the one module that knows the engine (DBOS) behind the port `Jobs`.

DBOS is a global, so a process has one engine. Runs begin once, steps are done at least once.
"""

import asyncio
import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, TypeVar

import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, error

from app.foundation.errors import Code, NotFoundError, ServiceError, UnavailableError
from app.foundation.jobs import (
    FINAL,
    Document,
    Enqueued,
    Job,
    JobError,
    JobState,
    JobStep,
    Share,
    StepState,
    outline,
    progress,
)
from app.workers.durable import DurableRun, EngineOptions, tried

_STATES: Final[Mapping[str, JobState]] = {
    "DELAYED": JobState.QUEUED,
    "ENQUEUED": JobState.QUEUED,
    "PENDING": JobState.RUNNING,
    "SUCCESS": JobState.DONE,
    "ERROR": JobState.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
}
_CODES: Final = frozenset(code.value for code in Code)
_UNFORESEEN: Final = "An error that was not foreseen; its traceback stands in the log."
_GIVEN_UP: Final = "It was begun again too often without coming to an end."


def recorded_as(state: JobState) -> list[str]:
    """The engine's names of a state."""
    return [name for name, ours in _STATES.items() if ours is state]


def job_of(
    row: Any,
    names: Sequence[str],
    steps: Sequence[Mapping[str, Any]] = (),
    share: Mapping[str, Any] | None = None,
) -> Job:
    """A run as it is recorded. Times are UTC, milliseconds on PostgreSQL, seconds on SQLite."""
    state = _STATES[row.status]
    shown = outline(names, [_step(one) for one in steps if one["function_name"] in names], state)
    part = None if share is None else Share(int(share["done"]), int(share["total"]))
    output = row.output
    return Job(
        run_id=row.workflow_id,
        kind=row.name,
        state=state,
        created_at=_at(row.created_at),
        started_at=_moment(row.dequeued_at),
        finished_at=_moment(row.completed_at),
        progress=progress(shown, state, part),
        steps=shown,
        payload=_payload(row.input),
        result=output if isinstance(output, dict) else None,
        error=_failure(row, state),
    )


def _step(recorded: Mapping[str, Any]) -> JobStep:
    error = recorded["error"]
    return JobStep(
        name=recorded["function_name"],
        state=StepState.DONE if error is None else StepState.FAILED,
        started_at=_moment(recorded["started_at_epoch_ms"]),
        finished_at=_moment(recorded["completed_at_epoch_ms"]),
        error=None if error is None else _error(error),
    )


def _failure(row: Any, state: JobState) -> JobError | None:
    if row.error is not None:
        return _error(row.error)
    if state is JobState.FAILED:
        return JobError(Code.INTERNAL_ERROR.value, _GIVEN_UP)
    return None


def _error(error: Any) -> JobError:
    """Ours with its own words; of any other nothing is shown, it may hold anything."""
    code = getattr(error, "code", None)
    if code in _CODES:
        return JobError(str(code), str(error))
    return JobError(Code.INTERNAL_ERROR.value, _UNFORESEEN)


def _payload(given: Any) -> Mapping[str, object]:
    arguments = given["args"] if isinstance(given, dict) else ()
    return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


def _moment(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else _at(epoch_ms)


def _at(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


_APP: Final = "my-symbols"
_QUEUE: Final = "jobs"
_SHARE: Final = "share"
_SAME_MOMENT: Final = 50  # more runs than that do not begin at the same moment
_SWEEP: Final = 500  # runs forgotten in one go
_THREADS: Final = 32  # of the engine and of asyncio.to_thread, which it takes over
# Runs of one kind that work at a time. The engine begins all that wait with one look, and each
# takes its share of every turn of the event loop: reads beside sixty reports waited 220 ms.
_AT_ONCE: Final = 2
_ASKING: Final = 4  # questions to the store at a time
_CONNECTIONS: Final = 5
_NO_STORE: Final = "The store of the jobs does not answer."

T = TypeVar("T")
_log = structlog.get_logger("jobs")


@dataclass(slots=True)
class _Journal:
    """Hands the steps of a run to the engine, which records them."""

    run_id: str
    asking: ThreadPoolExecutor
    publishing: Future[None] | None = None

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        async def act() -> Document:
            return await tried(name, action)

        return await DBOS.run_step_async({"name": name, "preemptible": True}, act)

    def share(self, done: int, total: int) -> None:
        if self.publishing is not None and not self.publishing.done():
            return  # progress is optional: updates that come faster are dropped
        publish = functools.partial(DBOS.set_event, _SHARE, {"done": done, "total": total})
        # The run is known from the context, which a thread does not have by itself.
        self.publishing = self.asking.submit(contextvars.copy_context().run, publish)


@dataclass(slots=True)
class Engine:
    """`open` and `close` belong to the lifespan, on the loop that answers requests.

    `ended` gets kind and outcome ("done" or a code) of each run that ends here.
    """

    options: EngineOptions
    ended: Callable[[str, str], None] = lambda _kind, _outcome: None
    _runs: Mapping[str, DurableRun] = field(default_factory=dict)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _waiting: set[asyncio.Task[Any]] = field(default_factory=set)  # for their gate or turn
    _closing: bool = False
    _asking: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_ASKING, thread_name_prefix="jobs-asking")
    )
    _present: ClassVar["Engine | None"] = None

    async def open(self, runs: Sequence[DurableRun]) -> None:
        """Opens the store, takes up what this executor left unfinished, and begins to work.

        Raises RuntimeError where this process has one open, UnavailableError without a store.
        """
        if Engine._present is not None:
            raise RuntimeError("this process has an engine already: DBOS is a global")
        Engine._present = self
        self._runs = {run.kind: run for run in runs}
        # With a handler of ours it adds none of its own, and its lines go the way of all others.
        logging.getLogger("dbos").handlers[:] = [logging.NullHandler()]
        try:
            DBOS(config=self._config())
            for run in runs:
                DBOS.workflow(name=run.kind)(self._bound(run))
            if not self.options.works:
                DBOS.listen_queues([])
            # On this loop: runs are carried out where launch was called, and our pools live here.
            DBOS.launch()
            pace = self.options.poll_s
            await self._ask(lambda: DBOS.register_queue(_QUEUE, polling_interval_sec=pace))
            if left := await self.strays():
                _log.warning("jobs_of_another_version", count=left, version=self.options.version)
        except Exception as error:
            await self.close()
            raise _away() from error

    async def close(self) -> None:
        """Lets running work end within `drain_s`; what does not end is taken up again later."""
        self._closing = True
        if busy := {task for task in self._tasks if not task.done()} - self._waiting:
            await asyncio.wait(busy, timeout=self.options.drain_s)
        # It warns of each run that is cut off, which is what we are about to do.
        logging.getLogger("dbos").setLevel(logging.ERROR)
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # It has put its threads under this loop and takes them along: others have to follow.
        loop = asyncio.get_running_loop()
        destroy = functools.partial(DBOS.destroy, destroy_registry=True)
        with ThreadPoolExecutor(1) as aside:
            await loop.run_in_executor(aside, destroy)
        loop.set_default_executor(ThreadPoolExecutor())
        self._asking.shutdown(wait=False, cancel_futures=True)
        Engine._present = None

    async def enqueue(
        self, kind: str, payload: Document, *, run_id: str, key: str | None = None
    ) -> Enqueued:
        """As the port says. Raises KeyError for a kind that is not registered."""
        options: dict[str, Any] = {
            "workflow_name": self._runs[kind].kind,
            "queue_name": _QUEUE,
            "workflow_id": run_id,
            "workflow_id_reuse_policy": "reject",
            "app_version": self.options.version,
        }
        if key is not None:
            options |= {"deduplication_id": key, "duplication_policy": "return-existing"}

        def begin() -> str:
            handle = DBOS.enqueue_workflow_with_options(options, dict(payload))  # type: ignore[arg-type]  # built in two parts
            return handle.workflow_id

        try:
            given = await self._ask(begin)
        except error.DBOSWorkflowIDInUseError:
            return Enqueued(run_id, is_new=False)
        return Enqueued(given, is_new=given == run_id)

    async def job(self, run_id: str) -> Job:
        def look() -> Job | None:
            found = DBOS.list_workflows(workflow_ids=[run_id], name=list(self._runs))
            if not found:
                return None
            steps = DBOS.list_workflow_steps(run_id)
            share = DBOS.get_all_events(run_id).get(_SHARE)
            return job_of(found[0], self._runs[found[0].name].steps, steps, share)

        job = await self._ask(look)
        if job is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no job with this id, or no longer.")
        return job

    async def finished(self, run_id: str) -> Job:
        while True:
            job = await self.job(run_id)
            if job.is_final:
                return job
            await asyncio.sleep(self.options.poll_s)

    async def jobs(
        self,
        *,
        kind: str | None = None,
        state: JobState | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> tuple[Job, ...]:
        def look() -> list[Job]:
            rows = DBOS.list_workflows(
                name=list(self._runs) if kind is None else kind,
                status=None if state is None else recorded_as(state),
                end_time=None if before is None else before[0].isoformat(),
                limit=limit + _SAME_MOMENT,
                sort_desc=True,
            )
            return [job_of(row, self._runs[row.name].steps) for row in rows]

        if kind is not None and kind not in self._runs:
            return ()
        found = sorted(await self._ask(look), key=_place, reverse=True)
        return tuple(job for job in found if before is None or _place(job) < before)[:limit]

    async def cancel(self, run_id: str) -> Job:
        await self.job(run_id)
        await self._ask(lambda: DBOS.cancel_workflow(run_id))
        return await self.job(run_id)

    async def forget(self, finished_before: datetime) -> int:
        def sweep() -> int:
            ended = [name for state in FINAL for name in recorded_as(state)]
            old = DBOS.list_workflows(
                name=list(self._runs),
                status=ended,
                completed_before=finished_before.isoformat(),
                limit=_SWEEP,
                load_input=False,
                load_output=False,
            )
            DBOS.delete_workflows([one.workflow_id for one in old])
            return len(old)

        return await self._ask(sweep)

    async def take_over(self, executor_id: str) -> bool:
        """Begins again what a dead executor left; False while something of it is still there."""

        def recover() -> bool:
            # No public way does it without losing the key and the count of attempts.
            DBOS._recover_pending_workflows([executor_id])  # noqa: SLF001  # as said
            return not DBOS.list_workflows(status="PENDING", executor_id=executor_id, limit=1)

        return await self._ask(recover)

    async def executors(self) -> frozenset[str]:
        """The executors that have something running."""
        rows = await self._ask(lambda: _unfinished("PENDING"))
        return frozenset(row.executor_id for row in rows if row.executor_id)

    async def strays(self) -> int:
        """Number of unfinished runs of another version; this engine does not resume them."""
        rows = await self._ask(lambda: _unfinished("PENDING", "ENQUEUED"))
        return sum(row.app_version != self.options.version for row in rows)

    def _config(self) -> DBOSConfig:
        return {
            "name": _APP,
            "system_database_url": self.options.store.url,
            "system_database_engine": self.options.store.engine,
            "sys_db_pool_size": _CONNECTIONS,
            "application_version": self.options.version,
            "executor_id": self.options.executor_id,
            # Never pickle: what is stored is read back as data and nothing else.
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "max_executor_threads": _THREADS,
            "notification_listener_polling_interval_sec": min(1.0, self.options.poll_s),
        }

    def _bound(self, run: DurableRun) -> Callable[[Document], Awaitable[Document]]:
        """The function that the engine calls for a run of this kind."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def carried_out(payload: Document) -> Document:
            task = asyncio.current_task()
            if self._closing or task is None:
                raise asyncio.CancelledError  # leaves it as it is, to be taken up again
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._waiting.add(task)
            try:
                if run.gate is not None:
                    await run.gate()
                await turns.acquire()
            finally:
                self._waiting.discard(task)
            try:
                result = await run.work(_Journal(str(DBOS.workflow_id), self._asking), payload)
            except ServiceError as error:
                _log.warning("job_failed", kind=run.kind, cause=error.code.value)
                self.ended(run.kind, error.code.value)
                raise
            except Exception:
                _log.exception("job_failed", kind=run.kind)
                self.ended(run.kind, Code.INTERNAL_ERROR.value)
                raise
            finally:
                turns.release()
            self.ended(run.kind, JobState.DONE.value)
            return result

        return carried_out

    async def _ask(self, question: Callable[[], T]) -> T:
        """Off the loop and not for ever: without its database the engine waits, callers do not."""
        try:
            async with asyncio.timeout(self.options.answer_s):
                return await asyncio.get_running_loop().run_in_executor(self._asking, question)
        except TimeoutError:
            raise _away() from None
        except self.options.store.errors as error:
            raise _away() from error


def _unfinished(*states: str) -> list[Any]:
    return list(DBOS.list_workflows(status=[*states], load_input=False, load_output=False))


def _away() -> UnavailableError:
    return UnavailableError(Code.DATABASE_UNAVAILABLE, _NO_STORE, retry_after_s=5)


def _place(job: Job) -> tuple[datetime, str]:
    return job.created_at, job.run_id
