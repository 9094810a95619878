"""Program of `my-symbols sandbox`: the local exchange, alone or as the child process of a demo."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from select import select
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Final

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, report_errors
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """Options of the local exchange."""

    seed: int
    quota: int
    replay: Path | None
    replay_from: str | None
    contracts: int | None

    def arguments(self) -> list[str]:
        arguments = ["--seed", str(self.seed), "--quota", str(self.quota)]
        if self.replay is not None:
            arguments += ["--replay", str(self.replay)]
        if self.replay_from is not None:
            arguments += ["--replay-from", self.replay_from]
        if self.contracts is not None:
            arguments += ["--contracts", str(self.contracts)]
        return arguments


@contextmanager
def run_exchange(options: ExchangeOptions) -> Iterator[str]:
    """Runs the exchange on a free port and yields its address; stops it at the end.

    Its standard input is our pipe: when this process dies, the exchange reads the end and stops.
    In its own session, a Ctrl-C at the terminal does not stop it before this process.
    """
    command = [sys.executable, "-m", "app.cli", "sandbox", "--port", "0", "--json", "--until-eof"]
    child = Popen(  # noqa: S603  # this interpreter and module, options already checked
        [*command, *options.arguments()], stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    with child:
        try:
            yield _read_address(child)
        finally:
            _stop(child)


def _read_address(child: Popen[bytes]) -> str:
    stream = child.stdout
    if stream is None or not select([stream], [], [], _START_TIMEOUT_S)[0]:
        raise _failed(f"did not start within {_START_TIMEOUT_S:.0f} s")
    try:
        return str(json.loads(stream.readline())["url"])
    except (ValueError, KeyError):
        raise _failed("did not start; its error is printed above") from None


def _stop(child: Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(_STOP_TIMEOUT_S)
    except TimeoutExpired:
        child.kill()


def _failed(detail: str) -> CommandError:
    return CommandError(
        ExitCode.UNAVAILABLE, "sandbox_not_started", f"The local exchange {detail}."
    )


READY_DAYS: Final = 126  # days that a service requests at its start, generated beforehand


def run_sandbox(
    *,
    seed: int,
    host: str,
    port: int,
    speed: float,
    quota: int,
    replay: Path | None,
    replay_from: str | None,
    contracts: int | None,
    as_json: bool,
    until_eof: bool,
) -> None:
    """Serves the exchange until a signal or, with `until_eof`, the end of standard input."""
    with report_errors(as_json) as output:
        options = SandboxOptions(
            seed=seed,
            host=host,
            port=port,
            speed=speed,
            quota=quota,
            replay=require_file(replay),
            replay_from=parse_day(replay_from),
            contracts=contracts,
            ready_days=READY_DAYS,
        )
        try:
            asyncio.run(_serve(options, output, until_eof=until_eof))
        except OSError as error:
            raise _not_started(f"{host}:{port}: {error.strerror or error}") from error
        except (ValueError, LookupError, ImportError) as error:
            raise _not_started(f"{replay or 'options'}: {error}") from error


def _not_started(reason: str) -> CommandError:
    return CommandError(ExitCode.CONFIGURATION, "sandbox_not_started", reason)


def require_file(replay: Path | None) -> Path | None:
    """Returns `replay` unchanged. Raises CommandError if there is no such file."""
    if replay is not None and not replay.is_file():
        raise CommandError(ExitCode.CONFIGURATION, "no_such_file", f"There is no file {replay}.")
    return replay


def parse_day(text: str | None) -> str | None:
    """Returns a day as YYYY-MM-DD. Raises CommandError for any other text."""
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError:
        raise CommandError(
            ExitCode.USAGE, "not_a_day", f"{text!r} is not a day YYYY-MM-DD."
        ) from None


async def _serve(options: SandboxOptions, output: Output, *, until_eof: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    if until_eof:
        await loop.connect_read_pipe(lambda: _StopAtEof(stop), sys.stdin)
    clock = time.time  # noqa: TID251  # this command composes the exchange: binds its clock
    async with serve_exchange(options, clock) as url:
        if output.as_json:
            output.print_document({"url": url, "seed": options.seed, "quota": options.quota})
            sys.stdout.flush()
        else:
            output.console.print(f"local exchange at {url}, seed {options.seed}; Ctrl-C stops it")
        await stop.wait()


class _StopAtEof(asyncio.Protocol):
    """Stops the exchange when the process that started it closes the pipe."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._stop.set()
