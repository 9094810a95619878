"""How a tape is recorded and replayed: the whole service over a database of its own.

The market and its boards are on the tape. Decisions are not: `decide` is called after each scoring
and makes them by the use cases of the service, on the clock of the tape.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random  # noqa: TID251  # chance enters the program here
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
from app.foundation.sql.engines import DatabaseOptions, url_of
from app.foundation.sql.job_store import JobStore, job_store
from app.market.services.health_facts import ExchangeWatch
from app.market.services.ports import Exchange
from app.market.services.shared_market import FeedView
from app.my_symbols import MySymbolsServiceV2
from app.operations.domain.event_codec import drafts_of
from app.operations.services.event_stream import EventStream
from app.operations.storage import preparation
from app.operations.storage.audit import reading
from app.research.domain.recording import BoardLine, Schedule, Step, TapeClock, TapeError
from app.research.services.recording import LiveSteps, PlayedSteps, Steps, TapedMarket
from app.scoring.domain.board import Board
from app.settings import DatabaseVariables, KucoinVariables, Settings
from app.workers.activities import activities
from app.workers.durable import EngineOptions
from app.workers.engine import Engine
from app.workers.schedule import Tasks
from app.workers.supervisor import Supervisor

# One request at a time: what comes in when is then the same in every replay, to the last bit.
_WORKERS: Final = 1
_AUTHOR: Final = "tape"
Tell = Callable[[BoardLine], None]
Missed = Callable[[Step, str], None]


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears of each board, and of each step that failed with the code of its error."""

    board: Tell
    missed: Missed


@dataclass(frozen=True, slots=True)
class Around:
    """Time as it really is, and the chance that spreads retries."""

    now: Callable[[], datetime]
    monotonic: Monotonic
    sleep: Callable[[float], Awaitable[None]]
    dice: Random = field(default_factory=Random)


@dataclass(frozen=True, slots=True)
class TapedService:
    """The whole service on the clock of a tape; nothing runs by itself in it."""

    service: MySymbolsServiceV2
    work: Tasks
    database: Database
    metrics: Metrics
    clock: TapeClock
    announced: list[object] = field(default_factory=list)  # every committed event, in order


Decide = Callable[[TapedService, Board | None], Awaitable[None]]


async def decide_nothing(taped: TapedService, board: Board | None) -> None:
    """Only the market and its boards are wanted."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay came to; `cut` says what is wrong with the end of the file, if anything is."""

    compared: int  # boards that stand on the tape as well
    different: tuple[int, ...]  # of these, numbers of those that came out otherwise
    recorded_by: str  # version of the code
    configuration_version: int  # of the business settings that both went by at the end
    is_ended: bool  # the recording was ended, not broken off
    cut: str | None

    @property
    def is_same_code(self) -> bool:
        return self.recorded_by == full_version()


async def record(
    path: Path,
    settings: KucoinVariables,
    around: Around,
    ears: Ears,
    for_s: float,
    board_every_s: float | None = None,
    is_streaming: bool = True,
    configuration: Configuration | None = None,
    newest: Callable[[], Configuration] | None = None,
    *,
    decide: Decide = decide_nothing,
    named: bool = True,
    database_url: str | None = None,
) -> int:
    """Writes what the exchange answers from now until `for_s` seconds after the first fill.

    `newest` gives the business settings in force: a newer version is taken up, and on the tape.
    Gives how many frames came faster than they could be kept; they are not on the tape.
    With `named` false the settings are not on the tape: `replay` is told them then. With
    `database_url` the service is kept in that database, else in one that is gone afterwards.

    Raises FileExistsError: a tape is never written over.
    """
    chosen = configuration or Configuration()
    zero, started = around.monotonic(), _to_the_ms(around.now())
    clock = TapeClock(started, zero, zero)
    header = RecordingHeader(
        source=settings.data_source.value,
        code_version=full_version(),
        started_ms=round(started.timestamp() * 1000),
        zero=zero,
        configuration=as_document(chosen) if named else {},
        configuration_version=chosen.version,
        is_streaming=is_streaming,
    )
    with RecordingWriter(path, header) as writer:
        tape = SessionRecorder(writer, clock, around.monotonic)
        async with open_recording(
            tape,
            clock,
            base_url=settings.base_url,
            source=settings.data_source,
            now=around.now,
            monotonic=around.monotonic,
            sleep=around.sleep,
            dice=around.dice,
            limits=settings.limits,
        ) as (exchange, stream):
            schedule = Schedule(chosen.intervals, board_every_s, is_streaming)
            held = CurrentSettings(chosen)

            def settle() -> None:
                found = held.present if newest is None else newest()
                if found.version > held.present.version:
                    tape.configured(as_document(found), found.version)
                    held.present, schedule.intervals = found, found.intervals

            steps = LiveSteps(schedule, tape, stream, around.monotonic, around.sleep, for_s, settle)
            try:
                async with _running(stream, is_streaming=is_streaming):
                    seams = _seams(clock, around.sleep)
                    told = _Told(ears, decide, database_url, is_streaming)
                    await _run(exchange, stream, clock, held, steps, told, seams)
            finally:
                tape.ended()
            return stream.lost


@asynccontextmanager
async def _running(stream: RecordedStream, *, is_streaming: bool) -> AsyncIterator[None]:
    """With its connections, as soon as something is wanted of them."""
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
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


def _no_beat() -> None:
    """Nobody watches whether it lives: a recording that hangs is seen."""


async def replay(
    path: Path,
    ears: Ears,
    configuration: Configuration | None = None,
    decide: Decide = decide_nothing,
    database_url: str | None = None,
) -> ReplayResult:
    """Plays it; no connection is opened. Raises TapeError for what is no tape of this version.

    `configuration` takes the place of the settings on the tape.
    """
    with RecordingReader(path) as reader:
        header = reader.header
        held = CurrentSettings(
            configuration or from_document(header.configuration, header.configuration_version)
        )
        started = datetime.fromtimestamp(header.started_ms / 1000, UTC)
        clock = TapeClock(started, header.zero, header.zero)
        player = SessionPlayer(reader, clock)

        def configured(entry: ConfigurationApplied) -> None:
            """They were changed here while it was recorded."""
            held.present = from_document(entry.configuration, entry.version)

        player.configured = configured
        steps = PlayedSteps(player)
        async with open_replay(
            player,
            clock,
            source=_source(header),
            sleep=_at_once,
            dice=Random(0),  # noqa: S311  # nothing is drawn
        ) as (exchange, stream):
            told = _Told(ears, decide, database_url, header.is_streaming)
            await _run(exchange, stream, clock, held, steps, told, _seams(clock, _at_once))
        return ReplayResult(
            steps.compared,
            tuple(steps.different),
            header.code_version,
            held.present.version,
            player.is_ended,
            reader.cut,
        )


@dataclass(frozen=True, slots=True)
class _Told:
    """Who hears of a run, who decides in it, where it is kept, and how the market comes in."""

    ears: Ears
    decide: Decide
    database_url: str | None
    is_streaming: bool


def _seams(clock: TapeClock, sleep: Callable[[float], Awaitable[None]]) -> RuntimeValues:
    numbers = count(1)
    return RuntimeValues(clock.now, clock.monotonic, sleep, lambda: str(UUID(int=next(numbers))))


async def _run(
    exchange: Exchange,
    stream: ReplayedStream,
    clock: TapeClock,
    in_force: CurrentSettings,
    steps: Steps,
    told: _Told,
    seams: RuntimeValues,
) -> None:
    announced: list[object] = []

    def publish(event: object) -> None:
        in_force.hear(event)
        announced.append(event)

    async with _database(told.database_url, publish) as (database, url):
        settings = Settings(
            database=DatabaseVariables(url=url),
            kucoin=KucoinVariables(source=exchange.source, concurrency=_WORKERS),
            run_background_tasks=False,
        )
        with closing(job_store(url)) as store:
            taped = _composed(
                settings, database, store, exchange, in_force, clock, announced, seams,
                is_streamed=told.is_streaming,
            )  # fmt: skip

            async def decide(board: Board | None) -> None:
                await _store(database, in_force(), clock)
                await told.decide(taped, board)
                announced.clear()

            service, ears = taped.service, told.ears
            market = TapedMarket(
                service.market, service.scoring, stream, steps, ears.board, ears.missed, decide
            )
            await market.run()


def _composed(
    settings: Settings,
    database: Database,
    store: JobStore,
    exchange: Exchange,
    in_force: CurrentSettings,
    clock: TapeClock,
    announced: list[object],
    seams: RuntimeValues,
    *,
    is_streamed: bool,
) -> TapedService:
    metrics = Metrics()
    dice = Random(0)  # noqa: S311  # nothing restarts here
    service = compose(
        settings,
        metrics,
        database,
        exchange,
        in_force,
        Supervisor(seams.now, lambda: full_jitter(dice.random), monotonic=seams.monotonic),
        ExchangeWatch(),
        EventStream(database, seams.now, metrics),
        Engine(EngineOptions(store, _AUTHOR, works=False)),  # never opened: runs are not durable
        FeedView(exchange.link),
        is_streamed=is_streamed,
        seams=seams,
    )
    work = activities(service, AlertScheduler(service.alerts, metrics), seams.new_id)
    return TapedService(service, work, database, metrics, clock, announced)


async def _store(database: Database, configuration: Configuration, clock: TapeClock) -> None:
    """Decisions go by the settings that are stored."""
    async with database.write() as unit:
        found = await unit.get(ConfigurationRepository).found(clock.now(), _AUTHOR)
        if found.version < configuration.version:
            await unit.get(ConfigurationRepository).add(configuration, clock.now(), _AUTHOR)


@asynccontextmanager
async def _database(
    url: str | None, publish: Callable[[object], None]
) -> AsyncIterator[tuple[Database, str]]:
    """That of `url`, or an empty one that is gone afterwards."""
    with TemporaryDirectory(prefix="my-symbols-tape-") as folder:
        used = url or f"sqlite+aiosqlite:///{folder}/market.sqlite3"
        dice = Random(0)  # noqa: S311  # nobody competes for it
        database = Database(DatabaseOptions(used), time.monotonic, dice.random, drafts_of, publish)
        await database.open()
        try:
            await preparation.prepare(used)
            yield database, used
        finally:
            await database.close()


async def _at_once(seconds: float) -> None:
    """On a tape all waiting is over."""
    del seconds


def _source(header: RecordingHeader) -> DataSource:
    try:
        return DataSource(header.source)
    except ValueError as error:
        raise TapeError(f"the tape is of {header.source!r}, which is not known") from error


def _to_the_ms(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


async def settings_in_force(database_url: str) -> Configuration:
    """The newest version that is stored, only read; the defaults where no database is yet.

    Raises UnavailableError where it cannot be read.
    """
    try:
        async with reading(url_of(database_url)) as connection:
            return await ConfigurationRepository(connection).current()
    except NotFoundError:
        return Configuration()
