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

_START_S = 60.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class ExchangeChoice:
    """What the local exchange is started with."""

    seed: int
    quota: int
    replay: Path | None
    replay_from: str | None
    contracts: int | None

    def arguments(self) -> list[str]:
        given = ["--seed", str(self.seed), "--quota", str(self.quota)]
        if self.replay is not None:
            given += ["--replay", str(self.replay)]
        if self.replay_from is not None:
            given += ["--replay-from", self.replay_from]
        if self.contracts is not None:
            given += ["--contracts", str(self.contracts)]
        return given


@contextmanager
def exchange_beside(choice: ExchangeChoice) -> Iterator[str]:
    """Starts the exchange on a free port and gives its address; ends it on the way out.

    Its standard input is a pipe of ours: should we die, it sees the end and stops by itself.
    Its own session keeps a Ctrl-C at the terminal from stopping it before us.
    """
    command = [sys.executable, "-m", "app.cli", "sandbox", "--port", "0", "--json", "--until-eof"]
    child = Popen(  # noqa: S603  # our own interpreter and module, options already checked
        [*command, *choice.arguments()], stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    with child:
        try:
            yield _address(child)
        finally:
            _end(child)


def _address(child: Popen[bytes]) -> str:
    stream = child.stdout
    if stream is None or not select([stream], [], [], _START_S)[0]:
        raise _failed(f"did not start within {_START_S:.0f} s")
    try:
        return str(json.loads(stream.readline())["url"])
    except (ValueError, KeyError):
        raise _failed("did not start; its reason stands above") from None


def _end(child: Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(_STOP_S)
    except TimeoutExpired:
        child.kill()


def _failed(what: str) -> CommandError:
    return CommandError(ExitCode.UNAVAILABLE, "sandbox_not_started", f"The local exchange {what}.")
