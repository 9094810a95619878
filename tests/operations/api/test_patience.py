"""How long a client may take nothing, and how events are written for many at once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from app.foundation.http.server import Patience, text_frame
from app.operations.services.event_messages import Frame, notice, pieces


@dataclass
class Timers:
    """Remembers what is to be called when; the test is the clock."""

    asked: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def later(self, delay: float, callback: Callable[[], None]) -> "Timers":
        self.asked.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.asked.clear()


def test_time_in_which_we_did_not_run_ourselves_is_not_the_clients() -> None:
    loop, ended = Timers(), list[bool]()
    Patience(loop.later, 0.5, lambda: ended.append(True)).begin()
    for _ in range(9):  # each may have come an hour late: it counts as one step
        loop.asked.pop()[1]()
        assert not ended
        assert [delay for delay, _ in loop.asked] == [0.5]
    loop.asked.pop()[1]()
    assert ended
    assert not loop.asked


def test_patience_ends_when_something_is_taken() -> None:
    loop = Timers()
    waiting = Patience(loop.later, 0.5, lambda: pytest.fail("it took something"))
    waiting.begin()
    waiting.stop()
    assert not loop.asked


def test_a_frame_is_written_once_for_all_who_read_it() -> None:
    made: list[Frame] = []

    def form(frame: Frame) -> bytes:
        made.append(frame)
        return frame.text.encode()

    frame = notice("pong", 7)
    assert [frame.written(form) for _ in range(3)] == [b'{"type":"pong","sequence":7}'] * 3
    assert made == [frame]
    assert notice("pong", 7).written(len_of) == b"28"  # each form by itself, of its own frame
    assert frame.written(len_of) == b"28"


def len_of(frame: Frame) -> bytes:
    return str(len(frame.text)).encode()


@pytest.mark.parametrize(
    ("text", "head"),
    [("x" * 125, b"\x81\x7d"), ("ü" * 63, b"\x81\x7e\x00\x7e"), ("y" * 70_000, b"\x81\x7f")],
)
def test_a_text_frame_has_the_length_of_its_bytes(text: str, head: bytes) -> None:
    written = text_frame(text)
    assert written.startswith(head)
    assert written.endswith(text.encode())


def test_pieces_hold_everything_in_order_and_none_is_large() -> None:
    written = [bytes([at % 256]) * 10_000 for at in range(40)]
    made = list(pieces(written))
    assert b"".join(made) == b"".join(written)
    assert len(made) == 6
    assert max(map(len, made)) <= 64 * 1024 + 10_000
    assert list(pieces([])) == []
