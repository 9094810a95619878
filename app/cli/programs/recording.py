"""Programs that record market sessions, alone or beside the service, and replay them."""

import asyncio
import re
import signal
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
import typer

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, report_errors
from app.cli.programs.settings import read_settings
from app.configuration.domain.model import Configuration
from app.container.recording import (
    RecordingListener,
    ReplayResult,
    SystemTime,
    read_stored_settings,
    record,
    replay,
)
from app.container.runtime_values import utc_now
from app.foundation.errors import ServiceError
from app.research.domain.recording import BoardFingerprint, RecordingError, SessionStep
from app.settings import Settings
from app.telemetry.logging import configure_logging

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
    """Records with the current business settings until `ending`; errors never end the service."""
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
    """Polls the business settings of the database."""

    database_url: str
    configuration: Configuration | None = None
    has_read: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Polls the settings; waits for an unavailable database, because a replay needs them."""
        while True:
            try:
                self.configuration = await read_stored_settings(self.database_url)
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
            SystemTime(utc_now, time.monotonic, asyncio.sleep),
            RecordingListener(_log_board, _log_failure),
            for_s=float("inf"),
            is_streaming=settings.feed.mode == "stream",
            configuration=configuration,
            read_settings=reader,
        )
    except OSError as error:
        _log.error("recording_not_written", file=str(file), cause=error.strerror)
    except ServiceError as error:
        _log.error("recording_interrupted", file=str(file), cause=str(error.code))
    else:
        _log.info("recording_ended", file=str(file), lost=lost)


def _log_board(board: BoardFingerprint) -> None:
    _log.info("recording_board", number=board.number, board_hash=board.board_hash)


def _log_failure(step: SessionStep, code: str) -> None:
    _log.warning("recording_step_failed", step=step.value, cause=code)


_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h|d)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def record_tape(file: Path, duration: str, board_every: str | None, as_json: bool) -> None:
    """Records the exchange to a new `file` for `duration` and scores its messages meanwhile."""
    with report_errors(as_json) as output:
        duration_s = _parse_duration(duration)
        interval_s = None if board_every is None else _parse_duration(board_every)
        settings = read_settings()
        is_streaming = settings.feed.mode == "stream"
        progress = _Progress(output)
        time_source = SystemTime(utc_now, time.monotonic, asyncio.sleep)
        configuration = asyncio.run(_read_configuration(settings.database.url))
        try:
            recording = record(
                file,
                settings.kucoin,
                time_source,
                progress.listener,
                duration_s,
                interval_s,
                is_streaming,
                configuration,
            )
            lost = asyncio.run(_run_until_signal(recording))
        except FileExistsError:
            detail = f"{file} exists already; a recording is never overwritten."
            raise CommandError(ExitCode.CONFIGURATION, "tape_exists", detail) from None
        except OSError as error:
            detail = f"{file} cannot be written: {error.strerror}."
            raise CommandError(ExitCode.CONFIGURATION, "tape_not_written", detail) from None
        size = file.stat().st_size
        if lost:
            output.notes.print(f"{lost} messages arrived faster than they could be written")
        if as_json:
            facts = {
                "file": str(file),
                "bytes": size,
                "configuration_version": configuration.version,
            }
            output.print_document({**facts, **progress.document})
        else:
            output.console.print(
                f"{file}: {size} bytes, {len(progress.boards)} boards,"
                f" settings of version {configuration.version}"
            )


def replay_tape(file: Path, as_json: bool) -> None:
    """Scores the messages of `file` and compares the boards with those of the recording."""
    with report_errors(as_json) as output:
        progress = _Progress(output)
        try:
            result = asyncio.run(replay(file, progress.listener))
        except RecordingError as error:
            raise CommandError(ExitCode.CONFIGURATION, "tape_unusable", f"{error}.") from None
        except OSError as error:
            detail = f"{file} cannot be read: {error.strerror}."
            raise CommandError(ExitCode.CONFIGURATION, "tape_unusable", detail) from None
        _print_result(result, progress, output)
    raise typer.Exit(int(ExitCode.REFUSED if result.different else ExitCode.OK))


@dataclass(slots=True)
class _Progress:
    """Boards and failed steps so far, printed as they arrive."""

    output: Output
    boards: list[BoardFingerprint] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    listener: RecordingListener = field(init=False)

    def __post_init__(self) -> None:
        self.listener = RecordingListener(self._add_board, self._add_failure)
        configure_logging(level="error", form="console")

    def _add_board(self, board: BoardFingerprint) -> None:
        self.boards.append(board)
        if self.output.as_json:
            return
        quarantined = ", ".join(board.quarantined)
        self.output.console.print(
            f"board {board.number}  {board.as_of.isoformat()}  {board.scored} scored,"
            f" {board.unavailable} not{f'; quarantined: {quarantined}' if quarantined else ''}\n"
            f"  inputs {board.input_hash}\n  board  {board.board_hash}"
        )

    def _add_failure(self, step: SessionStep, code: str) -> None:
        self.failed.append({"step": step.value, "code": code})
        self.output.notes.print(f"{step.value}: {code}", markup=False)

    @property
    def document(self) -> dict[str, Any]:
        boards = [
            {**asdict(board), "as_of": board.as_of.isoformat().replace("+00:00", "Z")}
            for board in self.boards
        ]
        return {"boards": boards, "failed": self.failed}


def _print_result(result: ReplayResult, progress: _Progress, output: Output) -> None:
    if output.as_json:
        facts = {
            "compared": result.compared,
            "different": list(result.different),
            "same_code": result.is_same_code,
            "configuration_version": result.configuration_version,
            "is_ended": result.is_ended,
            "cut": result.cut,
        }
        output.print_document({**progress.document, **facts})
        return
    if result.cut is not None:
        output.console.print(
            f"the recording is damaged: {result.cut}; everything before was replayed"
        )
    elif not result.is_ended:
        output.console.print("the recording was interrupted; all of it was replayed")
    if not result.is_same_code:
        output.console.print(f"another version of the code recorded it: {result.recorded_by}")
    if result.different:
        numbers = ", ".join(map(str, result.different))
        output.console.print(
            f"{len(result.different)} of {result.compared} boards differ: {numbers}"
        )
    else:
        output.console.print(f"{result.compared} boards compared with the recording: no difference")


async def _run_until_signal(recording: Awaitable[int]) -> int | None:
    """Runs a recording; a signal ends it early, and the result is then None."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        is_stopped = True
        if task is not None:
            task.cancel()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop)
    try:
        return await recording
    except asyncio.CancelledError:
        if not is_stopped:
            raise
        return None


async def _read_configuration(database_url: str) -> Configuration:
    """Returns the stored business settings. Raises CommandError (69) if they cannot be read."""
    try:
        return await read_stored_settings(database_url)
    except ServiceError as error:
        detail = f"The business settings cannot be read: {error.detail}."
        raise CommandError(ExitCode.UNAVAILABLE, error.code.value, detail) from error


def _parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as 10m. Raises CommandError."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        detail = f"{text!r} is not a duration: write 30s, 10m, 2h or 1d."
        raise CommandError(ExitCode.USAGE, "invalid_duration", detail)
    return float(int(match[1]) * _SECONDS[match[2]])
