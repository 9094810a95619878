"""Program of `my-symbols sandbox`: the local exchange, alone or as the child of a demo."""

import asyncio
import signal
import sys
import time
from datetime import date
from pathlib import Path
from typing import Final

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, report_errors
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

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
