"""`my-symbols sandbox`: the local exchange, alone or as the child of a demo."""

import asyncio
import signal
import sys
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import AsJson, Output, reporting
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

DEFAULTS = SandboxOptions()
READY_DAYS = 126  # what a service asks for at its start: it shall not wait for the making
DEFAULT_PORT = 8100
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give an equal market.")]
Replay = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        help="Real daily candles (parquet or CSV) instead of an invented market; "
        "hours, books and funding are made around them.",
    ),
]
ReplayFrom = Annotated[
    str | None, typer.Option(help="First day of the replay as seen by the service, YYYY-MM-DD.")
]

Contracts = Annotated[
    int | None, typer.Option(min=1, help="List only so many contracts; all of them without.")
]


def sandbox(
    seed: Seed = DEFAULTS.seed,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULTS.host,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0 takes a free one.")
    ] = DEFAULT_PORT,
    speed: Annotated[
        float, typer.Option(min=0, help="Exchange seconds per real second.")
    ] = DEFAULTS.speed,
    quota: Annotated[
        int, typer.Option(min=100, help="Request weight per 30 s, as KuCoin counts it.")
    ] = DEFAULTS.quota,
    replay: Replay = None,
    replay_from: ReplayFrom = None,
    contracts: Contracts = None,
    as_json: AsJson = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Stop when standard input is closed.")
    ] = False,
) -> None:
    """Serve a KuCoin-compatible exchange on this machine until Ctrl-C."""
    with reporting(as_json) as output:
        options = SandboxOptions(
            seed=seed,
            host=host,
            port=port,
            speed=speed,
            quota=quota,
            replay=readable(replay),
            replay_from=iso_day(replay_from),
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


def readable(replay: Path | None) -> Path | None:
    """A file that is there. Raises CommandError."""
    if replay is not None and not replay.is_file():
        raise CommandError(ExitCode.CONFIGURATION, "no_such_file", f"There is no file {replay}.")
    return replay


def iso_day(text: str | None) -> str | None:
    """A day as YYYY-MM-DD. Raises CommandError."""
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError:
        raise CommandError(ExitCode.USAGE, "not_a_day", f"{text!r} is not a day YYYY-MM-DD.") from None


async def _serve(options: SandboxOptions, output: Output, *, until_eof: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    if until_eof:
        await loop.connect_read_pipe(lambda: _StopAtEnd(stop), sys.stdin)
    clock = time.time  # noqa: TID251  # this command composes the exchange: its clock is bound here
    async with serve_exchange(options, clock) as url:
        if output.as_json:
            output.machine({"url": url, "seed": options.seed, "quota": options.quota})
            sys.stdout.flush()
        else:
            output.people.print(f"local exchange at {url}, seed {options.seed}; Ctrl-C stops it")
        await stop.wait()


class _StopAtEnd(asyncio.Protocol):
    """Whoever started us held the other end: when it is gone, so are we."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._stop.set()
