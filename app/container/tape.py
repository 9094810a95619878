"""How a tape is recorded and replayed: a market and its scores over a database of their own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random  # noqa: TID251  # chance enters the program here
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

from app.adapters.kucoin.tape_deck import Player, Recorder
from app.adapters.kucoin.tape_entries import Configured, Header
from app.adapters.kucoin.tape_exchange import open_played, open_recorded
from app.adapters.kucoin.tape_file import TapeReader, TapeWriter
from app.adapters.kucoin.tape_stream import RecordedStream, TapedStream
from app.container.seams import full_version
from app.domain.configuration import Configuration
from app.domain.configuration_document import as_document, from_document
from app.domain.market import DataSource
from app.domain.tape import BoardLine, Schedule, Step, TapeClock, TapeError
from app.services.market_data import MarketData
from app.services.once import Once
from app.services.ports import Exchange, Monotonic
from app.services.registry import Registry, shipped_sectors
from app.services.scoring import Scoring
from app.services.tape import LiveSteps, PlayedSteps, Steps, TapedMarket
from app.settings import KucoinSettings
from app.storage import preparation
from app.storage.database import Database
from app.storage.engines import DatabaseOptions
from app.telemetry.metrics import Metrics

# One request at a time: what comes in when is then the same in every replay, to the last bit.
_WORKERS: Final = 1
Tell = Callable[[BoardLine], None]
Missed = Callable[[Step, str], None]


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears of each board, and of each step that failed with the code of its error."""

    board: Tell
    missed: Missed


@dataclass(frozen=True, slots=True)
class Around:
    """Time as it really is."""

    now: Callable[[], datetime]
    monotonic: Monotonic
    sleep: Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class _Settings:
    """The business settings that a market on a tape goes by now."""

    present: Configuration

    def __call__(self) -> Configuration:
        return self.present

    def played(self, entry: Configured) -> None:
        """They were changed here while it was recorded."""
        self.present = from_document(entry.configuration, entry.version)


@dataclass(frozen=True, slots=True)
class Replayed:
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
    settings: KucoinSettings,
    around: Around,
    ears: Ears,
    for_s: float,
    board_every_s: float | None = None,
    is_streaming: bool = True,
    configuration: Configuration | None = None,
    newest: Callable[[], Configuration] | None = None,
) -> int:
    """Writes what the exchange answers from now until `for_s` seconds after the first fill.

    `newest` gives the business settings in force: a newer version is taken up, and on the tape.
    Gives how many frames came faster than they could be kept; they are not on the tape.

    Raises FileExistsError: a tape is never written over.
    """
    chosen = configuration or Configuration()
    zero, started = around.monotonic(), _to_the_ms(around.now())
    clock = TapeClock(started, zero, zero)
    header = Header(
        source=settings.data_source.value,
        code_version=full_version(),
        started_ms=round(started.timestamp() * 1000),
        zero=zero,
        configuration=as_document(chosen),
        configuration_version=chosen.version,
        is_streaming=is_streaming,
    )
    with TapeWriter(path, header) as writer:
        tape = Recorder(writer, clock, around.monotonic)
        async with open_recorded(
            tape,
            clock,
            base_url=settings.base_url,
            source=settings.data_source,
            now=around.now,
            monotonic=around.monotonic,
            sleep=around.sleep,
            dice=Random(),  # noqa: S311  # jitter needs no secrecy
            limits=settings.limits,
        ) as (exchange, stream):
            schedule = Schedule(chosen.cadences, board_every_s, is_streaming)
            held = _Settings(chosen)

            def settle() -> None:
                found = held.present if newest is None else newest()
                if found.version > held.present.version:
                    tape.configured(as_document(found), found.version)
                    held.present, schedule.cadences = found, found.cadences

            steps = LiveSteps(schedule, tape, stream, around.monotonic, around.sleep, for_s, settle)
            try:
                async with _running(stream, is_streaming=is_streaming):
                    await _run(
                        exchange, stream, clock, held, steps, ears, around.sleep,
                        is_streaming=is_streaming,
                    )  # fmt: skip
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


async def replay(path: Path, ears: Ears) -> Replayed:
    """Plays it; no connection is opened. Raises TapeError for what is no tape of this version."""
    with TapeReader(path) as reader:
        header = reader.header
        held = _Settings(from_document(header.configuration, header.configuration_version))
        started = datetime.fromtimestamp(header.started_ms / 1000, UTC)
        clock = TapeClock(started, header.zero, header.zero)
        player = Player(reader, clock)
        player.configured = held.played
        steps = PlayedSteps(player)
        async with open_played(
            player,
            clock,
            source=_source(header),
            sleep=_at_once,
            dice=Random(0),  # noqa: S311  # nothing is drawn
        ) as (exchange, stream):
            await _run(
                exchange, stream, clock, held, steps, ears, _at_once,
                is_streaming=header.is_streaming,
            )  # fmt: skip
        return Replayed(
            steps.compared,
            tuple(steps.different),
            header.code_version,
            held.present.version,
            player.is_ended,
            reader.cut,
        )


async def _run(
    exchange: Exchange,
    stream: TapedStream,
    clock: TapeClock,
    configuration: Callable[[], Configuration],
    steps: Steps,
    ears: Ears,
    sleep: Callable[[float], Awaitable[None]],
    *,
    is_streaming: bool,
) -> None:
    async with _database() as database:
        numbers = count(1)

        def new_id() -> str:
            return str(UUID(int=next(numbers)))

        registry = Registry(
            exchange=exchange,
            database=database,
            sectors=shipped_sectors(),
            clock=clock.now,
            monotonic=clock.monotonic,
            new_id=new_id,
        )
        data = MarketData(
            exchange=exchange,
            database=database,
            registry=registry,
            configuration=configuration,
            clock=clock.now,
            monotonic=clock.monotonic,
            metrics=Metrics(),
            workers=_WORKERS,
            is_streamed=is_streaming,
            sleep=sleep,
        )
        scoring = Scoring(
            market=data,
            database=database,
            clock=clock.now,
            monotonic=clock.monotonic,
            new_id=new_id,
            configuration=configuration,
            once=Once(database, clock.now),
        )
        await TapedMarket(data, scoring, stream, steps, ears.board, ears.missed).run()


@asynccontextmanager
async def _database() -> AsyncIterator[Database]:
    """An empty one, gone afterwards."""
    with TemporaryDirectory(prefix="my-symbols-tape-") as folder:
        url = f"sqlite+aiosqlite:///{folder}/market.sqlite3"
        dice = Random(0)  # noqa: S311  # nobody competes for it
        database = Database(DatabaseOptions(url), time.monotonic, dice.random)
        await database.open()
        try:
            await preparation.prepare(url)
            yield database
        finally:
            await database.close()


async def _at_once(seconds: float) -> None:
    """On a tape all waiting is over."""
    del seconds


def _source(header: Header) -> DataSource:
    try:
        return DataSource(header.source)
    except ValueError as error:
        raise TapeError(f"the tape is of {header.source!r}, which is not known") from error


def _to_the_ms(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
