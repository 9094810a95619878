"""Frames of the stream are encoded once for all readers."""

from app.operations.services.event_messages import Frame, notice, pieces


def test_a_frame_is_encoded_once_for_all_readers() -> None:
    made: list[Frame] = []

    def form(frame: Frame) -> bytes:
        made.append(frame)
        return frame.text.encode()

    frame = notice("pong", 7)
    assert [frame.encoded(form) for _ in range(3)] == [b'{"type":"pong","sequence":7}'] * 3
    assert made == [frame]
    assert notice("pong", 7).encoded(len_of) == b"28"  # each form by itself, of its own frame
    assert frame.encoded(len_of) == b"28"


def len_of(frame: Frame) -> bytes:
    return str(len(frame.text)).encode()


def test_pieces_hold_everything_in_order_and_none_is_large() -> None:
    written = [bytes([at % 256]) * 10_000 for at in range(40)]
    made = list(pieces(written))
    assert b"".join(made) == b"".join(written)
    assert len(made) == 6
    assert max(map(len, made)) <= 64 * 1024 + 10_000
    assert list(pieces([])) == []
