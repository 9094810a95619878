"""A server that is asked to stop: once in order, again later at once."""

import uvicorn

from app.cli.exits import Exit
from app.cli.service import SAME_REQUEST_S, Server


def _server(left: list[int]) -> Server:
    return Server(uvicorn.Config("none:none"), "http://127.0.0.1:1", left.append)


def test_asked_once_it_ends_in_order_however_often_that_is_passed_on() -> None:
    left: list[int] = []
    server = _server(left)
    for after in (0.0, 0.01, SAME_REQUEST_S):
        server.asked_to_stop(5.0 + after)
        assert server.should_exit
        assert not server.force_exit
        assert server.ending.is_set()
    assert left == []


def test_asked_again_later_it_ends_at_once() -> None:
    left: list[int] = []
    server = _server(left)
    server.asked_to_stop(5.0)
    server.asked_to_stop(5.0 + SAME_REQUEST_S + 0.01)
    assert left == [Exit.INTERRUPTED]
