"""Program of `my-symbols sandbox`: the local exchange, alone or as the child process of a demo."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
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

_WAIT_S = 2.0
_START_WAITS = 30
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
def run_exchange(
    options: ExchangeOptions, on_wait: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Runs the exchange on a free port and yields its address; stops it at the end.

    `on_wait` is called every two seconds until it answers.
    The standard input of the exchange is a pipe: when this process dies, the exchange reads its end
    and stops. It has a session of its own, so Ctrl-C at the terminal does not stop it first.
    """
    command = [sys.executable, "-m", "app.cli", "sandbox", "--port", "0", "--json", "--until-eof"]
    child = Popen(  # noqa: S603  # this interpreter and module, options already checked
        [*command, *options.arguments()], stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    with child:
        try:
            yield _read_address(child, on_wait)
        finally:
            _stop(child)


def _read_address(child: Popen[bytes], on_wait: Callable[[], None]) -> str:
    stream = child.stdout
    for _ in range(_START_WAITS):
        if stream is None or select([stream], [], [], _WAIT_S)[0]:
            break
        on_wait()
    else:
        raise _failed(f"did not start within {_START_WAITS * _WAIT_S:.0f} s")
    try:
        return str(json.loads(b"" if stream is None else stream.readline())["url"])
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


READY_DAYS: Final = 126  # days of data that a service requests at its start, generated beforehand


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
        day = parse_day(replay_from)
        require_replay(replay, day)
        options = SandboxOptions(
            seed=seed,
            host=host,
            port=port,
            speed=speed,
            quota=quota,
            replay=require_file(replay),
            replay_from=day,
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


def require_replay(replay: Path | None, replay_from: str | None) -> None:
    """Raises CommandError for a first day without a file to which it belongs."""
    if replay_from is not None and replay is None:
        raise CommandError(
            ExitCode.USAGE, "option_without_partner", "--replay-from needs --replay FILE."
        )


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
    clock = time.time  # noqa: TID251  # the clock of this program
    async with serve_exchange(options, clock) as url:
        if output.as_json:
            output.print_document({"url": url, "seed": options.seed, "quota": options.quota})
            sys.stdout.flush()
        else:
            output.console.print(f"local exchange at {url}, seed {options.seed}; Ctrl-C stops it")
        await stop.wait()


class _StopAtEof(asyncio.Protocol):
    """Stops the exchange when its parent process closes the pipe."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._stop.set()
