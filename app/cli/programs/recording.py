"""`my-symbols tape`: what the exchange says, kept in a file, and the boards that follow from it."""

import asyncio
import re
import signal
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import AsJson, Output, reporting
from app.cli.programs.settings import read_settings
from app.configuration.domain.model import Configuration
from app.container import utc_now
from app.container.tape import Around, Ears, Replayed, record, replay
from app.container.tape_settings import settings_in_force
from app.foundation.errors import ServiceError
from app.research.domain.recording import BoardLine, Step, TapeError
from app.telemetry.logging import configure_logging

tape = typer.Typer(
    name="tape",
    no_args_is_help=True,
    help="Record what the exchange says, and replay it without a network.",
)

_SPAN: Final = re.compile(r"(\d{1,6})(s|m|h|d)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
File = Annotated[Path, typer.Argument(dir_okay=False, help="The file of the tape.")]


@tape.command("record")
def record_tape(
    file: File,
    for_: Annotated[
        str, typer.Option("--for", help="From the first fill on, as 30s, 10m, 2h or 1d.")
    ] = "10m",
    board_every: Annotated[
        str | None, typer.Option(help="Between two boards, as 1m; default: as the service does.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write all that the exchange says to a new FILE, and score it meanwhile; Ctrl-C ends it.

    It asks the exchange that MYSYMBOLS_KUCOIN__* names, beside the service and for itself, and
    goes by the business settings that are in force in the database now.
    """
    with reporting(as_json) as output:
        for_s = _seconds(for_)
        every_s = None if board_every is None else _seconds(board_every)
        settings = read_settings()
        is_streaming = settings.feed.streaming == "stream"
        heard = _Heard(output)
        around = Around(utc_now, time.monotonic, asyncio.sleep)
        chosen = asyncio.run(_in_force(settings.database.url))
        try:
            recording = record(
                file, settings.kucoin, around, heard.ears, for_s, every_s, is_streaming, chosen
            )
            lost = asyncio.run(_until_asked(recording))
        except FileExistsError:
            detail = f"{file} is there already; a tape is never written over."
            raise CommandError(ExitCode.CONFIGURATION, "tape_exists", detail) from None
        except OSError as error:
            detail = f"{file} cannot be written: {error.strerror}."
            raise CommandError(ExitCode.CONFIGURATION, "tape_not_written", detail) from None
        size = file.stat().st_size
        if lost:
            output.notes.print(f"{lost} frames came faster than they could be kept")
        if as_json:
            told = {"file": str(file), "bytes": size, "configuration_version": chosen.version}
            output.machine({**told, **heard.document})
        else:
            output.people.print(
                f"{file}: {size} bytes, {len(heard.boards)} boards,"
                f" settings of version {chosen.version}"
            )


@tape.command("replay")
def replay_tape(file: File, as_json: AsJson = False) -> None:
    """Score what FILE holds, and say whether the boards are those of the recording.

    Nothing is asked of anybody: no connection is opened. Exit code 1 if a board is another one.
    """
    with reporting(as_json) as output:
        heard = _Heard(output)
        try:
            found = asyncio.run(replay(file, heard.ears))
        except TapeError as error:
            raise CommandError(ExitCode.CONFIGURATION, "tape_unusable", f"{error}.") from None
        except OSError as error:
            detail = f"{file} cannot be read: {error.strerror}."
            raise CommandError(ExitCode.CONFIGURATION, "tape_unusable", detail) from None
        _show(found, heard, output)
    raise typer.Exit(int(ExitCode.REFUSED if found.different else ExitCode.OK))


@dataclass(slots=True)
class _Heard:
    """What has been told so far; people see it as it comes."""

    output: Output
    boards: list[BoardLine] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    ears: Ears = field(init=False)

    def __post_init__(self) -> None:
        self.ears = Ears(self._board, self._missed)
        configure_logging(level="error", form="console")

    def _board(self, board: BoardLine) -> None:
        self.boards.append(board)
        if self.output.as_json:
            return
        doubted = ", ".join(board.quarantined)
        self.output.people.print(
            f"board {board.number}  {board.as_of.isoformat()}  {board.scored} scored,"
            f" {board.unavailable} not{f'; quarantined: {doubted}' if doubted else ''}\n"
            f"  inputs {board.input_hash}\n  board  {board.board_hash}"
        )

    def _missed(self, step: Step, code: str) -> None:
        self.failed.append({"step": step.value, "code": code})
        self.output.notes.print(f"{step.value}: {code}", markup=False)

    @property
    def document(self) -> dict[str, Any]:
        boards = [
            {**asdict(one), "as_of": one.as_of.isoformat().replace("+00:00", "Z")}
            for one in self.boards
        ]
        return {"boards": boards, "failed": self.failed}


def _show(found: Replayed, heard: _Heard, output: Output) -> None:
    if output.as_json:
        shown = {
            "compared": found.compared,
            "different": list(found.different),
            "same_code": found.is_same_code,
            "configuration_version": found.configuration_version,
            "is_ended": found.is_ended,
            "cut": found.cut,
        }
        output.machine({**heard.document, **shown})
        return
    say = output.people.print
    if found.cut is not None:
        say(f"the tape is damaged: {found.cut}; all before it was replayed")
    elif not found.is_ended:
        say("the recording broke off; all of it was replayed")
    if not found.is_same_code:
        say(f"it was recorded by other code: {found.recorded_by}")
    if found.different:
        names = ", ".join(map(str, found.different))
        say(f"{len(found.different)} of {found.compared} boards are other ones: {names}")
    else:
        say(f"{found.compared} boards compared with the recording: all the same")


async def _until_asked(recording: Awaitable[int]) -> int | None:
    """Carries it out; a signal ends it as if its time were over, and leaves no result."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    asked = False

    def stop() -> None:
        nonlocal asked
        asked = True
        if task is not None:
            task.cancel()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop)
    try:
        return await recording
    except asyncio.CancelledError:
        if not asked:
            raise
        return None


async def _in_force(database_url: str) -> Configuration:
    """Raises CommandError (69) where the database is there and cannot be read."""
    try:
        return await settings_in_force(database_url)
    except ServiceError as error:
        detail = f"The settings in force cannot be read: {error.detail}."
        raise CommandError(ExitCode.UNAVAILABLE, error.code.value, detail) from error


def _seconds(text: str) -> float:
    """A span such as 10m. Raises CommandError."""
    found = _SPAN.fullmatch(text)
    if found is None or int(found[1]) == 0:
        detail = f"{text!r} is no span of time: write 30s, 10m, 2h or 1d."
        raise CommandError(ExitCode.USAGE, "not_a_span", detail)
    return float(int(found[1]) * _SECONDS[found[2]])
