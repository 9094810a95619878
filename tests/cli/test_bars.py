"""Progress bars on a terminal while a job runs."""

import json
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.cli.application import application
from tests.cli.command import PATIENCE_S
from tests.cli.test_client import JOB

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Reads a terminal and stores its text."""

    def __init__(self, inside: int) -> None:
        self._inside = inside
        self._shown = ""
        self._news = threading.Condition()

    def look(self) -> None:
        """Reads until the terminal is closed."""
        while True:
            try:
                part = os.read(self._inside, 4096)
            except OSError:
                part = b""
            if not part:
                return
            with self._news:
                self._shown += part.decode()
                self._news.notify_all()

    def seen(self, what: str) -> bool:
        """Returns True once the text has appeared."""
        with self._news:
            return self._news.wait_for(lambda: what in self.text(), PATIENCE_S)

    def text(self) -> str:
        return _CONTROL.sub("", self._shown)


@contextmanager
def job_that_waits(terminal: Terminal) -> Iterator[str]:
    """A service with one job, which is no further before the terminal shows how far it is."""
    steps = [(0.25, "25/100"), (0.5, "50/100")]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.say(202, {**JOB, "state": "running", "progress": 0.0, "finished_at": None})

        def do_GET(self) -> None:
            if not steps:
                self.say(200, JOB)
                return
            share, shown = steps[0]
            if shown in terminal.text():
                del steps[0]
            self.say(200, {**JOB, "state": "running", "progress": share, "finished_at": None})

        def say(self, status: int, job: dict[str, object]) -> None:
            body = json.dumps(job).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Service-Mode", "NORMAL")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_terminal_shows_a_bar_that_counts_along_with_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    inside, outside = pty.openpty()
    terminal = Terminal(inside)
    looking = threading.Thread(target=terminal.look, daemon=True)
    looking.start()
    with os.fdopen(outside, "w") as its, job_that_waits(terminal) as url:
        monkeypatch.setattr(sys, "stderr", its)
        assert application(["symbols", "sync", "--url", url], standalone_mode=False) in {None, 0}
        for count in ("25/100", "50/100", "100/100"):
            assert terminal.seen(count), terminal.text()
    looking.join(PATIENCE_S)
    os.close(inside)
    lines = [line for line in re.split(r"[\r\n]+", terminal.text()) if "/100" in line]
    assert all("contracts" in line and "━" in line for line in lines), lines
    assert "100/100" in lines[-1]
