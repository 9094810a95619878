"""A server that is asked to stop: once in order, again later at once."""

import subprocess
import sys
from pathlib import Path

import uvicorn

from app.cli.exit_codes import ExitCode
from app.cli.programs.service import SAME_REQUEST_S, Server

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
