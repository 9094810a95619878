"""Records and replays market sessions: the whole service over a database of its own.

A recording holds the market and its boards, not the decisions. After each scoring, `decide` makes
decisions with the use cases of the service, on the clock of the recording.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random  # noqa: TID251  # source of randomness of the program
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

from app.adapters.kucoin.recording.entries import (
    ConfigurationApplied,
    RecordingHeader,
    RecordingReader,
    RecordingWriter,
)
from app.adapters.kucoin.recording.exchange import open_recording, open_replay
from app.adapters.kucoin.recording.sessions import SessionPlayer, SessionRecorder
from app.adapters.kucoin.recording.stream import RecordedStream, ReplayedStream
from app.alerts.services.monitor import AlertScheduler
from app.configuration.domain.document import as_document, from_document
from app.configuration.domain.model import Configuration
from app.configuration.services.current import CurrentSettings
from app.configuration.storage.configuration import ConfigurationRepository
from app.container.composition import compose
from app.container.runtime_values import RuntimeValues, full_version
from app.foundation.backoff import full_jitter
from app.foundation.data_status import DataSource
from app.foundation.errors import NotFoundError
from app.foundation.metrics import Metrics
from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions, parse_database_url
from app.foundation.sql.job_store import JobStore, create_job_store
from app.market.services.health_facts import EndpointErrors
from app.market.services.ports import Exchange
from app.market.services.shared_market import FeedOwnership
from app.my_symbols import MySymbolsServiceV2
from app.operations.domain.event_codec import encode_event
from app.operations.services.event_stream import EventStream
from app.operations.storage import startup_check
from app.operations.storage.audit import open_read_only
from app.research.domain.recording import (
    BoardFingerprint,
    RecordingClock,
    RecordingError,
    Schedule,
    SessionStep,
)
from app.research.services.recording import (
    LiveRecordingSteps,
    RecordedSession,
    RecordingSteps,
    ReplaySession,
)
from app.scoring.domain.board import Board
from app.settings import DatabaseVariables, KucoinVariables, Settings
from app.workers.activities import activities
from app.workers.durable import EngineOptions
from app.workers.engine import Engine
from app.workers.schedule import Tasks
from app.workers.supervisor import Supervisor

# One request at a time, so that every replay receives the same answers in the same order.
_WORKERS: Final = 1
_AUTHOR: Final = "tape"
OnBoard = Callable[[BoardFingerprint], None]
OnFailure = Callable[[SessionStep, str], None]


@dataclass(frozen=True, slots=True)
class RecordingListener:
    """Callbacks for each board, and for each failed step with its error code."""

    on_board: OnBoard
    on_failure: OnFailure


@dataclass(frozen=True, slots=True)
class SystemTime:
    """Real clocks and sleep, and the randomness of retries."""

    now: Callable[[], datetime]
    monotonic: Monotonic
    sleep: Callable[[float], Awaitable[None]]
    dice: Random = field(default_factory=Random)


@dataclass(frozen=True, slots=True)
class RecordedService:
    """The whole service on the clock of a recording; nothing runs by itself in it."""

    service: MySymbolsServiceV2
    work: Tasks
    database: Database
    metrics: Metrics
    clock: RecordingClock
    events: list[object] = field(default_factory=list)  # committed events since the last decision


Decide = Callable[[RecordedService, Board | None], Awaitable[None]]


async def decide_nothing(recorded: RecordedService, board: Board | None) -> None:
    """Makes no decisions: the default, for the market and its boards only."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Result of a replay; `cut` describes damage at the end of the file, None if it is intact."""

    compared: int  # boards that the recording holds as well
    different: tuple[int, ...]  # numbers of boards that differ from the recording
    recorded_by: str  # version of the code
    configuration_version: int  # of the business settings at the end
    is_ended: bool  # the recording was ended in order, not broken off
    cut: str | None

    @property
    def is_same_code(self) -> bool:
        return self.recorded_by == full_version()


async def record(
    path: Path,
    settings: KucoinVariables,
    time_source: SystemTime,
    listener: RecordingListener,
    for_s: float,
    board_every_s: float | None = None,
    is_streaming: bool = True,
    configuration: Configuration | None = None,
    read_settings: Callable[[], Configuration] | None = None,
    *,
    decide: Decide = decide_nothing,
    includes_settings: bool = True,
    database_url: str | None = None,
) -> int:
    """Records the exchange from now until `for_s` seconds after the first fill.

    `read_settings` returns the business settings in force; a newer version is applied and recorded.
    Returns the number of stream frames that arrived too fast to be recorded. If `includes_settings`
    is False, the settings are not recorded and `replay` needs them. `database_url` names the
    database of the service; the default is a temporary one.

    Raises FileExistsError: a recording is never overwritten.
    """
    initial = configuration or Configuration()
    zero, started = time_source.monotonic(), _truncate_to_ms(time_source.now())
    clock = RecordingClock(started, zero, zero)
    header = RecordingHeader(
        source=settings.data_source.value,
        code_version=full_version(),
        started_ms=round(started.timestamp() * 1000),
        zero=zero,
        configuration=as_document(initial) if includes_settings else {},
        configuration_version=initial.version,
        is_streaming=is_streaming,
    )
    with RecordingWriter(path, header) as writer:
        recorder = SessionRecorder(writer, clock, time_source.monotonic)
        async with open_recording(
            recorder,
            clock,
            base_url=settings.base_url,
            source=settings.data_source,
            now=time_source.now,
            monotonic=time_source.monotonic,
            sleep=time_source.sleep,
            dice=time_source.dice,
            limits=settings.limits,
        ) as (exchange, stream):
            schedule = Schedule(initial.intervals, board_every_s, is_streaming)
            in_force = CurrentSettings(initial)

            def apply_new_settings() -> None:
                present = in_force.present if read_settings is None else read_settings()
                if present.version > in_force.present.version:
                    recorder.record_configuration(as_document(present), present.version)
                    in_force.present, schedule.intervals = present, present.intervals

            steps = LiveRecordingSteps(
                schedule,
                recorder,
                stream,
                time_source.monotonic,
                time_source.sleep,
                for_s,
                apply_new_settings,
            )
            try:
                async with _running(stream, is_streaming=is_streaming):
                    runtime = _runtime_values(clock, time_source.sleep)
                    options = _RunOptions(listener, decide, database_url, is_streaming)
                    await _run(exchange, stream, clock, in_force, steps, options, runtime)
            finally:
                recorder.record_end()
            return stream.lost


@asynccontextmanager
async def _running(stream: RecordedStream, *, is_streaming: bool) -> AsyncIterator[None]:
    """Runs the stream connections while the block runs, if the session is streaming."""
    if not is_streaming:
        yield
        return
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(stream.run(stream, _no_beat))
            try:
                yield
            finally:
                task.cancel()
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None


def _no_beat() -> None:
    """Ignores heartbeats: no supervisor watches a recording."""


async def replay(
    path: Path,
    listener: RecordingListener,
    configuration: Configuration | None = None,
    decide: Decide = decide_nothing,
    database_url: str | None = None,
) -> ReplayResult:
    """Replays a recording without any connection. Raises TapeError for an unreadable file.

    `configuration` replaces the recorded settings.
    """
    with RecordingReader(path) as reader:
        header = reader.header
        in_force = CurrentSettings(
            configuration or from_document(header.configuration, header.configuration_version)
        )
        started = datetime.fromtimestamp(header.started_ms / 1000, UTC)
        clock = RecordingClock(started, header.zero, header.zero)
        player = SessionPlayer(reader, clock)

        def configured(entry: ConfigurationApplied) -> None:
            """Applies settings that changed during the recording."""
            in_force.present = from_document(entry.configuration, entry.version)

        player.on_configuration = configured
        steps = ReplaySession(player)
        async with open_replay(
            player,
            clock,
            source=_source(header),
            sleep=_no_sleep,
            dice=Random(0),  # noqa: S311  # never used
        ) as (exchange, stream):
            options = _RunOptions(listener, decide, database_url, header.is_streaming)
            runtime = _runtime_values(clock, _no_sleep)
            await _run(exchange, stream, clock, in_force, steps, options, runtime)
        return ReplayResult(
            steps.compared,
            tuple(steps.different),
            header.code_version,
            in_force.present.version,
            player.is_ended,
            reader.cut,
        )


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """Listener, decisions and database of one session, and whether its market is streamed."""

    listener: RecordingListener
    decide: Decide
    database_url: str | None
    is_streaming: bool


def _runtime_values(
    clock: RecordingClock, sleep: Callable[[float], Awaitable[None]]
) -> RuntimeValues:
    numbers = count(1)
    return RuntimeValues(clock.now, clock.monotonic, sleep, lambda: str(UUID(int=next(numbers))))


async def _run(
    exchange: Exchange,
    stream: ReplayedStream,
    clock: RecordingClock,
    in_force: CurrentSettings,
    steps: RecordingSteps,
    options: _RunOptions,
    runtime: RuntimeValues,
) -> None:
    events: list[object] = []

    def publish(event: object) -> None:
        in_force.on_event(event)
        events.append(event)

    async with _database(options.database_url, publish) as (database, url):
        settings = Settings(
            database=DatabaseVariables(url=url),
            kucoin=KucoinVariables(source=exchange.source, concurrency=_WORKERS),
            run_background_tasks=False,
        )
        with closing(create_job_store(url)) as store:
            recorded = _compose(
                settings, database, store, exchange, in_force, clock, events, runtime,
                is_streamed=options.is_streaming,
            )  # fmt: skip

            async def decide(board: Board | None) -> None:
                await _store_settings(database, in_force(), clock)
                await options.decide(recorded, board)
                events.clear()

            service, listener = recorded.service, options.listener
            market = RecordedSession(
                service.market,
                service.scoring,
                stream,
                steps,
                listener.on_board,
                listener.on_failure,
                decide,
            )
            await market.run()


def _compose(
    settings: Settings,
    database: Database,
    store: JobStore,
    exchange: Exchange,
    in_force: CurrentSettings,
    clock: RecordingClock,
    events: list[object],
    runtime: RuntimeValues,
    *,
    is_streamed: bool,
) -> RecordedService:
    metrics = Metrics()
    dice = Random(0)  # noqa: S311  # no task restarts here
    service = compose(
        settings,
        metrics,
        database,
        exchange,
        in_force,
        Supervisor(runtime.now, lambda: full_jitter(dice.random), monotonic=runtime.monotonic),
        EndpointErrors(),
        EventStream(database, runtime.now, metrics),
        Engine(EngineOptions(store, _AUTHOR, works=False)),  # never opened: no durable runs
        FeedOwnership(exchange.link),
        is_streamed=is_streamed,
        runtime=runtime,
    )
    work = activities(service, AlertScheduler(service.alerts, metrics), runtime.new_id)
    return RecordedService(service, work, database, metrics, clock, events)


async def _store_settings(
    database: Database, configuration: Configuration, clock: RecordingClock
) -> None:
    """Stores the settings, because decisions use the stored version."""
    async with database.write() as unit:
        repository = unit.get(ConfigurationRepository)
        stored = await repository.get_or_create(clock.now(), _AUTHOR)
        if stored.version < configuration.version:
            await repository.add(configuration, clock.now(), _AUTHOR)


@asynccontextmanager
async def _database(
    url: str | None, publish: Callable[[object], None]
) -> AsyncIterator[tuple[Database, str]]:
    """Opens the database of `url`, or a temporary one."""
    with TemporaryDirectory(prefix="my-symbols-tape-") as folder:
        database_url = url or f"sqlite+aiosqlite:///{folder}/market.sqlite3"
        dice = Random(0)  # noqa: S311  # no other writer to avoid
        database = Database(
            DatabaseOptions(database_url), time.monotonic, dice.random, encode_event, publish
        )
        await database.open()
        try:
            await startup_check.prepare(database_url)
            yield database, database_url
        finally:
            await database.close()


async def _no_sleep(seconds: float) -> None:
    """Returns at once: a replay does not wait."""
    del seconds


def _source(header: RecordingHeader) -> DataSource:
    try:
        return DataSource(header.source)
    except ValueError as error:
        raise RecordingError(f"the recording is of {header.source!r}, an unknown source") from error


def _truncate_to_ms(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


async def read_stored_settings(database_url: str) -> Configuration:
    """Returns the newest stored version, read-only; the defaults if there is no database yet.

    Raises UnavailableError if the database cannot be read.
    """
    try:
        async with open_read_only(parse_database_url(database_url)) as connection:
            return await ConfigurationRepository(connection).current()
    except NotFoundError:
        return Configuration()
