"""Engine of durable runs: the only module that uses DBOS, behind the port `Jobs`.

DBOS is global, so a process has one engine. Runs start once, steps run at least once.
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
    StepProgress,
    StepState,
    progress,
    steps_with_state,
)
from app.workers.durable import DurableRun, EngineOptions, run_with_retries

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
_UNEXPECTED: Final = "Unexpected error; the log has its traceback."
_TOO_MANY_ATTEMPTS: Final = "The job was restarted too often without an end."


def dbos_states(state: JobState) -> list[str]:
    """Returns the DBOS names of a state."""
    return [name for name, ours in _STATES.items() if ours is state]


def to_job(
    row: Any,
    names: Sequence[str],
    steps: Sequence[Mapping[str, Any]] = (),
    share: Mapping[str, Any] | None = None,
) -> Job:
    """Converts a DBOS row. Times are UTC, in milliseconds on PostgreSQL, seconds on SQLite."""
    state = _STATES[row.status]
    shown = steps_with_state(
        names, [_step(one) for one in steps if one["function_name"] in names], state
    )
    part = None if share is None else StepProgress(int(share["done"]), int(share["total"]))
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
        return JobError(Code.INTERNAL_ERROR.value, _TOO_MANY_ATTEMPTS)
    return None


def _error(error: Any) -> JobError:
    """Returns a domain error with its text; hides the text of any other, which is untrusted."""
    code = getattr(error, "code", None)
    if code in _CODES:
        return JobError(str(code), str(error))
    return JobError(Code.INTERNAL_ERROR.value, _UNEXPECTED)


def _payload(stored: Any) -> Mapping[str, object]:
    arguments = stored["args"] if isinstance(stored, dict) else ()
    return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


def _moment(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else _at(epoch_ms)


def _at(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


_APP: Final = "my-symbols"
_QUEUE: Final = "jobs"
_SHARE: Final = "share"
_SAME_TIME: Final = 50  # upper bound of runs with the same creation time
_DELETE_BATCH: Final = 500  # runs deleted in one call
_THREADS: Final = 32  # of the engine, which also replaces the pool of asyncio.to_thread
# Runs of one kind that work at a time. The engine starts all waiting runs at once, and each takes
# its share of every turn of the event loop: reads beside sixty reports waited 220 ms.
_RUNS_PER_KIND: Final = 2
_STORE_CALLS: Final = 4  # concurrent calls to the store
_CONNECTIONS: Final = 5
_NO_STORE: Final = "The job store does not respond."

T = TypeVar("T")
_log = structlog.get_logger("jobs")


@dataclass(slots=True)
class _Journal:
    """Passes the steps of a run to DBOS, which records them."""

    run_id: str
    store_threads: ThreadPoolExecutor
    publishing: Future[None] | None = None

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        async def act() -> Document:
            return await run_with_retries(name, action)

        return await DBOS.run_step_async({"name": name, "preemptible": True}, act)

    def share(self, done: int, total: int) -> None:
        if self.publishing is not None and not self.publishing.done():
            return  # progress is optional: updates that come faster are dropped
        publish = functools.partial(DBOS.set_event, _SHARE, {"done": done, "total": total})
        # DBOS finds the run in the context, which a thread does not inherit.
        self.publishing = self.store_threads.submit(contextvars.copy_context().run, publish)


@dataclass(slots=True)
class Engine:
    """Engine of this process; `open` and `close` run on the event loop that serves requests.

    `on_end` receives kind and outcome ("done" or a code) of each run that ends here.
    """

    options: EngineOptions
    on_end: Callable[[str, str], None] = lambda _kind, _outcome: None
    _runs: Mapping[str, DurableRun] = field(default_factory=dict)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _waiting: set[asyncio.Task[Any]] = field(default_factory=set)  # for their gate or turn
    _closing: bool = False
    _store_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_STORE_CALLS, thread_name_prefix="jobs-store")
    )
    _instance: ClassVar["Engine | None"] = None

    async def open(self, runs: Sequence[DurableRun]) -> None:
        """Opens the store, resumes unfinished runs of this executor, and starts to work.

        Raises RuntimeError if this process has an open engine, UnavailableError without a store.
        """
        if Engine._instance is not None:
            raise RuntimeError("this process has an engine already: DBOS is a global")
        Engine._instance = self
        self._runs = {run.kind: run for run in runs}
        # With a handler present, DBOS adds none, and its records reach the root logger.
        logger = logging.getLogger("dbos")
        logger.handlers[:] = [logging.NullHandler()]
        logger.addFilter(_is_unexpected)
        try:
            DBOS(config=self._config())
            for run in runs:
                DBOS.workflow(name=run.kind)(self._workflow(run))
            if not self.options.works:
                DBOS.listen_queues([])
            # On this loop: DBOS executes runs where `launch` was called, beside the pools.
            DBOS.launch()
            poll_s = self.options.poll_s
            await self._call_store(lambda: DBOS.register_queue(_QUEUE, polling_interval_sec=poll_s))
            if count := await self.count_other_versions():
                _log.warning("jobs_of_another_version", count=count, version=self.options.version)
        except Exception as error:
            await self.close()
            raise _store_unavailable() from error

    async def close(self) -> None:
        """Waits up to `drain_s` for running work; the rest is resumed at the next start."""
        self._closing = True
        if busy := {task for task in self._tasks if not task.done()} - self._waiting:
            await asyncio.wait(busy, timeout=self.options.drain_s)
        # DBOS warns about each cancelled run, which is intended here.
        logging.getLogger("dbos").setLevel(logging.ERROR)
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # `destroy` shuts down the default thread pool of this loop, so the loop gets a new one.
        loop = asyncio.get_running_loop()
        destroy = functools.partial(DBOS.destroy, destroy_registry=True)
        with ThreadPoolExecutor(1) as aside:
            await loop.run_in_executor(aside, destroy)
        loop.set_default_executor(ThreadPoolExecutor())
        self._store_threads.shutdown(wait=False, cancel_futures=True)
        Engine._instance = None

    async def enqueue(
        self, kind: str, payload: Document, *, run_id: str, key: str | None = None
    ) -> Enqueued:
        """Implements the port. Raises KeyError for an unregistered kind."""
        options: dict[str, Any] = {
            "workflow_name": self._runs[kind].kind,
            "queue_name": _QUEUE,
            "workflow_id": run_id,
            "workflow_id_reuse_policy": "reject",
            "app_version": self.options.version,
        }
        if key is not None:
            options |= {"deduplication_id": key, "duplication_policy": "return-existing"}

        def enqueue_run() -> str:
            handle = DBOS.enqueue_workflow_with_options(options, dict(payload))  # type: ignore[arg-type]  # built in two parts
            return handle.workflow_id

        try:
            workflow_id = await self._call_store(enqueue_run)
        except error.DBOSWorkflowIDInUseError:
            return Enqueued(run_id, is_new=False)
        return Enqueued(workflow_id, is_new=workflow_id == run_id)

    async def job(self, run_id: str) -> Job:
        def load() -> Job | None:
            rows = DBOS.list_workflows(workflow_ids=[run_id], name=list(self._runs))
            if not rows:
                return None
            steps = DBOS.list_workflow_steps(run_id)
            share = DBOS.get_all_events(run_id).get(_SHARE)
            return to_job(rows[0], self._runs[rows[0].name].steps, steps, share)

        job = await self._call_store(load)
        if job is None:
            raise NotFoundError(Code.NOT_FOUND, "No job has this id; old jobs are deleted.")
        return job

    async def wait_for_end(self, run_id: str) -> Job:
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
        def load() -> list[Job]:
            rows = DBOS.list_workflows(
                name=list(self._runs) if kind is None else kind,
                status=None if state is None else dbos_states(state),
                end_time=None if before is None else before[0].isoformat(),
                limit=limit + _SAME_TIME,
                sort_desc=True,
            )
            return [to_job(row, self._runs[row.name].steps) for row in rows]

        if kind is not None and kind not in self._runs:
            return ()
        jobs = sorted(await self._call_store(load), key=_sort_key, reverse=True)
        return tuple(job for job in jobs if before is None or _sort_key(job) < before)[:limit]

    async def cancel(self, run_id: str) -> Job:
        await self.job(run_id)
        await self._call_store(lambda: DBOS.cancel_workflow(run_id))
        return await self.job(run_id)

    async def forget(self, finished_before: datetime) -> int:
        def delete_batch() -> int:
            ended = [name for state in FINAL for name in dbos_states(state)]
            old = DBOS.list_workflows(
                name=list(self._runs),
                status=ended,
                completed_before=finished_before.isoformat(),
                limit=_DELETE_BATCH,
                load_input=False,
                load_output=False,
            )
            DBOS.delete_workflows([one.workflow_id for one in old])
            return len(old)

        return await self._call_store(delete_batch)

    async def take_over(self, executor_id: str) -> bool:
        """Restarts the runs of a dead executor; False while some of them are still pending."""

        def recover() -> bool:
            # No public function keeps the deduplication key and the count of attempts.
            DBOS._recover_pending_workflows([executor_id])  # noqa: SLF001  # see above
            return not DBOS.list_workflows(status="PENDING", executor_id=executor_id, limit=1)

        return await self._call_store(recover)

    async def executors(self) -> frozenset[str]:
        """Returns the executors with running runs."""
        rows = await self._call_store(lambda: _unfinished("PENDING"))
        return frozenset(row.executor_id for row in rows if row.executor_id)

    async def count_other_versions(self) -> int:
        """Returns the number of unfinished runs of other versions, which are not resumed here."""
        rows = await self._call_store(lambda: _unfinished("PENDING", "ENQUEUED"))
        return sum(row.app_version != self.options.version for row in rows)

    def _config(self) -> DBOSConfig:
        return {
            "name": _APP,
            "system_database_url": self.options.store.url,
            "system_database_engine": self.options.store.engine,
            "sys_db_pool_size": _CONNECTIONS,
            "application_version": self.options.version,
            "executor_id": self.options.executor_id,
            # Never pickle: stored values must be data, not code.
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "max_executor_threads": _THREADS,
            "notification_listener_polling_interval_sec": min(1.0, self.options.poll_s),
        }

    def _workflow(self, run: DurableRun) -> Callable[[Document], Awaitable[Document]]:
        """Returns the function that DBOS calls for a run of this kind."""
        turns = asyncio.Semaphore(_RUNS_PER_KIND)

        async def execute(payload: Document) -> Document:
            task = asyncio.current_task()
            if self._closing or task is None:
                raise asyncio.CancelledError  # the run stays pending and is resumed later
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
                result = await run.work(
                    _Journal(str(DBOS.workflow_id), self._store_threads), payload
                )
            except ServiceError as error:
                _log.warning("job_failed", kind=run.kind, cause=error.code.value)
                self.on_end(run.kind, error.code.value)
                raise
            except Exception:
                _log.exception("job_failed", kind=run.kind)
                self.on_end(run.kind, Code.INTERNAL_ERROR.value)
                raise
            finally:
                turns.release()
            self.on_end(run.kind, JobState.DONE.value)
            return result

        return execute

    async def _call_store(self, call: Callable[[], T]) -> T:
        """Runs a blocking call off the loop with a time limit: without its database DBOS blocks."""
        try:
            async with asyncio.timeout(self.options.answer_s):
                return await asyncio.get_running_loop().run_in_executor(self._store_threads, call)
        except TimeoutError:
            raise _store_unavailable() from None
        except self.options.store.errors as error:
            raise _store_unavailable() from error


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Drops the traceback that DBOS logs for a refused run: `job_failed` names its cause."""
    return not (record.exc_info and isinstance(record.exc_info[1], ServiceError))


def _unfinished(*states: str) -> list[Any]:
    return list(DBOS.list_workflows(status=[*states], load_input=False, load_output=False))


def _store_unavailable() -> UnavailableError:
    return UnavailableError(Code.DATABASE_UNAVAILABLE, _NO_STORE, retry_after_s=5)


def _sort_key(job: Job) -> tuple[datetime, str]:
    return job.created_at, job.run_id
