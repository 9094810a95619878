"""Bodies that were encoded once are sent again as long as their version is the newest."""

from pydantic import BaseModel

from app.foundation.http.responses import Bodies


class Number(BaseModel):
    value: int


def test_a_body_is_made_once_per_version_and_question() -> None:
    bodies, made = Bodies(), list[int]()

    def make() -> Number:
        made.append(len(made))
        return Number(value=made[-1])

    assert bodies.of("1", "a", make) == b'{"value":0}'
    assert bodies.of("1", "a", make) == b'{"value":0}'
    assert bodies.of("1", "b", make) == b'{"value":1}'
    assert bodies.of("2", "a", make) == b'{"value":2}'
    assert bodies.of("1", "a", make) == b'{"value":3}', "an older version is not kept beside"
    assert len(made) == 4


def test_no_more_than_some_are_kept() -> None:
    bodies = Bodies()
    for number in range(100):
        bodies.of("1", number, lambda: Number(value=1))
    assert len(bodies.kept) == 16
    assert {0, 99} <= bodies.kept.keys(), "what was asked for first, and last"
