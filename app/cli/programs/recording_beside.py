"""A recording beside the running service: `my-symbols serve --tape FILE`."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from app.cli.exit_codes import CommandError, ExitCode
from app.configuration.domain.model import Configuration
from app.container import utc_now
from app.container.tape import Around, Ears, record
from app.container.tape_settings import settings_in_force
from app.foundation.errors import ServiceError
from app.research.domain.recording import BoardLine, Step
from app.settings import Settings

_RETRY_S: Final = 1.0
_POLL_INTERVAL_S: Final = 2.0
_log = structlog.get_logger("recording")


def halve_quota(settings: Settings) -> Settings:
    """Halves the request quota: service and recorder share the quota of one address."""
    quota = settings.kucoin.quota_per_window // 2
    kucoin = settings.kucoin.model_copy(update={"quota_per_window": quota})
    return settings.model_copy(update={"kucoin": kucoin})


def refuse_existing(file: Path) -> None:
    """Raises CommandError (78) if `file` exists: a recording is never overwritten."""
    if file.exists():
        detail = f"{file} exists already; a recording is never overwritten."
        raise CommandError(ExitCode.CONFIGURATION, "tape_exists", detail)


async def record_beside(file: Path, settings: Settings, ending: asyncio.Event) -> None:
    """Records with the current business settings until `ending`; errors do not end the service."""
    async with asyncio.TaskGroup() as group:
        reader = _ConfigurationReader(settings.database.url)
        tasks = [
            group.create_task(_record(file, settings, reader)),
            group.create_task(reader.follow()),
        ]
        await ending.wait()
        for task in tasks:
            task.cancel()


@dataclass(slots=True)
class _ConfigurationReader:
    """Latest business settings of the database, polled."""

    database_url: str
    configuration: Configuration | None = None
    has_read: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Polls the settings; waits for a database that is away, as a replay needs them."""
        while True:
            try:
                self.configuration = await settings_in_force(self.database_url)
            except ServiceError as error:
                _log.warning("recording_waits_for_database", cause=str(error.code))
                await asyncio.sleep(_RETRY_S)
                continue
            self.has_read.set()
            await asyncio.sleep(_POLL_INTERVAL_S)

    def __call__(self) -> Configuration:
        return self.configuration or Configuration()


async def _record(file: Path, settings: Settings, reader: _ConfigurationReader) -> None:
    await reader.has_read.wait()
    configuration = reader()
    _log.info("recording_started", file=str(file), configuration_version=configuration.version)
    try:
        lost = await record(
            file,
            settings.kucoin,
            Around(utc_now, time.monotonic, asyncio.sleep),
            Ears(_log_board, _log_failure),
            for_s=float("inf"),
            is_streaming=settings.feed.mode == "stream",
            configuration=configuration,
            newest=reader,
        )
    except OSError as error:
        _log.error("recording_not_written", file=str(file), cause=error.strerror)
    except ServiceError as error:
        _log.error("recording_interrupted", file=str(file), cause=str(error.code))
    else:
        _log.info("recording_ended", file=str(file), lost=lost)


def _log_board(board: BoardLine) -> None:
    _log.info("recording_board", number=board.number, board_hash=board.board_hash)


def _log_failure(step: Step, code: str) -> None:
    _log.warning("recording_step_failed", step=step.value, cause=code)
