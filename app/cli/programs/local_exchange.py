"""The local exchange as a child process that cannot outlive its parent."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select
from subprocess import PIPE, Popen, TimeoutExpired

from app.cli.exit_codes import CommandError, ExitCode

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
