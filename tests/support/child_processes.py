"""Processes for tests, born of one that has imported the program already: each seconds sooner.

What is born is a process like any other, with its own memory, descriptors and signals. One server
for each process of the test session forks them; it runs nothing else and has a single thread.
"""

import os
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["app.cli.application", "tests.processes.worker", "tests.processes.job_worker"]
)


def born(target: Callable[..., None], *given: object) -> tuple[ForkServerProcess, socket.socket]:
    """A process that calls `target`, and our end of its standard input and output."""
    ours, its = socket.socketpair()
    with its:
        pipe = DupFd(its.fileno())
        process = _CONTEXT.Process(target=_on_pipe, args=(pipe, target, given), daemon=True)
        process.start()
    return process, ours


def _on_pipe(pipe: Any, target: Callable[..., None], given: Sequence[object]) -> None:
    _standard(pipe.detach(), 0, 1)
    target(*given)


@dataclass
class Command:
    """The command line as a process of its own, with the face of subprocess.Popen."""

    process: ForkServerProcess
    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str]
    _read: dict[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"still running after {timeout} s")
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still says until its end. Raises TimeoutError."""
        self.stdin.close()
        readers = [
            threading.Thread(target=self._drain, args=(name, stream), daemon=True)
            for name, stream in (("out", self.stdout), ("err", self.stderr))
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return self._read["out"], self._read["err"]

    def _drain(self, name: str, stream: IO[str]) -> None:
        with stream:
            self._read[name] = stream.read()


def command(*arguments: str, cwd: Path, environment: Mapping[str, str]) -> Command:
    """`my-symbols` with these arguments, directory and variables."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    its = (in_read, out_write, err_write)
    process = _CONTEXT.Process(
        target=_command,
        args=([DupFd(one) for one in its], str(cwd), dict(environment), arguments),
        daemon=True,
    )
    process.start()
    for one in its:
        os.close(one)
    return Command(
        process,
        os.fdopen(in_write, "w", encoding="utf-8"),
        os.fdopen(out_read, encoding="utf-8"),
        os.fdopen(err_read, encoding="utf-8"),
    )


def _command(
    pipes: Sequence[Any], cwd: str, environment: Mapping[str, str], arguments: Sequence[str]
) -> None:
    for number, pipe in enumerate(pipes):
        _standard(pipe.detach(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["my-symbols", *arguments]
    # Python's own way to end at Ctrl-C, which the server of forks has switched off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module("app.cli", run_name="__main__", alter_sys=False)


def _standard(descriptor: int, *numbers: int) -> None:
    for number in numbers:
        os.dup2(descriptor, number, inheritable=True)
    os.close(descriptor)
    if 0 in numbers:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
