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
_LOOK_S: Final = 2.0  # at the settings in force
_log = structlog.get_logger("tape")


def halved(settings: Settings) -> Settings:
    """Two ask the exchange from one address, so each has half of what that may ask for."""
    quota = settings.kucoin.quota_per_window // 2
    kucoin = settings.kucoin.model_copy(update={"quota_per_window": quota})
    return settings.model_copy(update={"kucoin": kucoin})


def refuse_existing(file: Path) -> None:
    """Raises CommandError (78): a tape is never written over."""
    if file.exists():
        detail = f"{file} is there already; a tape is never written over."
        raise CommandError(ExitCode.CONFIGURATION, "tape_exists", detail)


async def record_beside(file: Path, settings: Settings, ending: asyncio.Event) -> None:
    """Records by the settings in force until `ending`; the service outlives what goes wrong."""
    async with asyncio.TaskGroup() as group:
        chosen = _Newest(settings.database.url)
        tasks = [group.create_task(_recorded(file, settings, chosen))]
        tasks.append(group.create_task(chosen.follow()))
        await ending.wait()
        for task in tasks:
            task.cancel()


@dataclass(slots=True)
class _Newest:
    """The business settings in force as they were last read."""

    database_url: str
    present: Configuration | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Without them nothing could be replayed: a database that is away is waited for."""
        while True:
            try:
                self.present = await settings_in_force(self.database_url)
            except ServiceError as error:
                _log.warning("tape_waits", cause=str(error.code))
                await asyncio.sleep(_RETRY_S)
                continue
            self.known.set()
            await asyncio.sleep(_LOOK_S)

    def __call__(self) -> Configuration:
        return self.present or Configuration()


async def _recorded(file: Path, settings: Settings, newest: _Newest) -> None:
    await newest.known.wait()
    chosen = newest()
    _log.info("tape_begun", file=str(file), configuration_version=chosen.version)
    try:
        lost = await record(
            file,
            settings.kucoin,
            Around(utc_now, time.monotonic, asyncio.sleep),
            Ears(_board, _missed),
            for_s=float("inf"),
            is_streaming=settings.feed.streaming == "stream",
            configuration=chosen,
            newest=newest,
        )
    except OSError as error:
        _log.error("tape_not_written", file=str(file), cause=error.strerror)
    except ServiceError as error:
        _log.error("tape_broken_off", file=str(file), cause=str(error.code))
    else:
        _log.info("tape_ended", file=str(file), lost=lost)


def _board(board: BoardLine) -> None:
    _log.info("tape_board", number=board.number, board_hash=board.board_hash)


def _missed(step: Step, code: str) -> None:
    _log.warning("tape_step_missed", step=step.value, cause=code)
