"""A server that is asked to stop: once in order, again later at once."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn

from app.cli.exit_codes import ExitCode
from app.cli.programs.service import SAME_REQUEST_S, Server
from tests.cli.command import PATIENCE_S, ended, environment, here, started

ROOT = Path(__file__).parents[2]
# The command itself takes seconds to load: here that is where Ctrl-C comes.
_INTERRUPTED_LOADING = """
import sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "app.cli.application":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
import app.cli
"""


def test_ctrl_c_while_the_command_is_loaded_ends_it_with_130_and_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_LOADING], cwd=ROOT, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (ExitCode.INTERRUPTED, b"")


def _server(left: list[int]) -> Server:
    return Server(uvicorn.Config("none:none", log_config=None), "http://127.0.0.1:1", left.append)


def test_one_stop_request_ends_in_order_even_if_delivered_twice() -> None:
    left: list[int] = []
    server = _server(left)
    for after in (0.0, 0.01, SAME_REQUEST_S):
        server.handle_signal(5.0 + after)
        assert server.should_exit
        assert not server.force_exit
        assert server.ending.is_set()
    assert left == []


def test_a_later_stop_request_ends_at_once() -> None:
    left: list[int] = []
    server = _server(left)
    server.handle_signal(5.0)
    server.handle_signal(5.0 + SAME_REQUEST_S + 0.01)
    assert left == [ExitCode.INTERRUPTED]


NO_EXCHANGE = {"MYSYMBOLS_KUCOIN__BASE_URL": "http://127.0.0.1:9"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait_until(is_true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.1)


def _answers(port: int) -> bool:
    return here("trading", "show", "--url", f"http://127.0.0.1:{port}").code == ExitCode.OK


def test_the_log_goes_to_a_rotated_file(tmp_path: Path) -> None:
    port, log = _free_port(), tmp_path / "service.log"
    variables = {**NO_EXCHANGE, "MYSYMBOLS_LOG__FILE_BYTES": "2000", "MYSYMBOLS_LOG__LEVEL": "info"}
    child = started("serve", "--port", str(port), "--logfile", str(log), cwd=tmp_path, **variables)
    _wait_until(lambda: _answers(port))
    for _ in range(20):
        assert _answers(port)
    child.send_signal(signal.SIGTERM)
    over = ended(child)
    assert (over.code, over.out, over.err) == (ExitCode.OK, "", "")
    assert json.loads(log.read_text().splitlines()[0])["level"] in {"info", "warning"}
    assert (tmp_path / "service.log.1").stat().st_size <= 2_000
    assert log.stat().st_size <= 2_000


def test_a_log_file_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    refused = here("serve", "--port", "0", "--logfile", str(tmp_path / "no" / "service.log"))
    assert refused.code == ExitCode.CONFIGURATION
    assert refused.err.startswith("logfile_unusable: ")
    assert here("serve", "--reload", "--tape", "x.tape").code == ExitCode.USAGE


_SERVE_A_COPY = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from app.cli import main
main()
"""


@pytest.mark.long
def test_a_changed_file_restarts_a_development_service(tmp_path: Path) -> None:
    """The service of a copy of the code, which the test changes: a fault first, then its mend."""
    code, port = tmp_path / "code", _free_port()
    shutil.copytree(ROOT / "app", code / "app")  # with what is compiled
    for name in ("alembic", "alembic.ini"):
        (code / name).symlink_to(ROOT / name)
    command = [sys.executable, "-c", _SERVE_A_COPY, str(code), "serve", "--reload", "--port"]
    with subprocess.Popen(
        [*command, str(port)],
        cwd=tmp_path,
        env=environment(**NO_EXCHANGE, PYTHONPATH=str(code)),
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            _wait_until(lambda: _answers(port))
            file = code / "app/portfolio/api/control_routes.py"
            sound = file.read_text(encoding="utf-8")
            renamed = sound.replace('"/trading-switch"', '"/another-switch"')
            assert renamed != sound
            file.write_text(renamed, encoding="utf-8")
            url = f"http://127.0.0.1:{port}"
            _wait_until(
                lambda: here("trading", "show", "--url", url, "--json").code == ExitCode.REFUSED
            )
            file.write_text("this is no Python", encoding="utf-8")
            assert parent.stderr is not None
            assert any("SyntaxError" in line for line in parent.stderr)
            file.write_text(f"{sound}\n# mended\n", encoding="utf-8")
            _wait_until(lambda: _answers(port))
        finally:
            parent.send_signal(signal.SIGINT)
            assert parent.wait(60) == 0
