"""The PostgreSQL of the tests leaves nothing behind, however its users end."""

import os
import signal
import time
from collections.abc import Callable

from tests.support import postgres


def _soon(what: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until and not what():
        time.sleep(0.02)
    return what()


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_server_is_shared_and_goes_with_its_last_user_or_with_the_next_session() -> None:
    name = f"{os.getpid()}-{time.monotonic_ns()}"
    first = postgres.server(name)
    again = postgres.server(name)
    assert again.room == first.room
    data = postgres._data(first.room)
    first.link.close()
    server = int((data / "postmaster.pid").read_text().split()[0])
    keeper = int((first.room / "keeper.lock").read_text())
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
    assert again.link.recv(1) == b""
    assert not _gone(server)
    again.link.close()
    second = postgres.server(f"{name}-next")
    assert not first.room.exists()
    assert not data.exists()
    assert _soon(lambda: _gone(server))
    others = postgres._data(second.room)
    assert others.exists()
    second.link.close()
    assert _soon(lambda: not second.room.exists())
    assert not others.exists()
