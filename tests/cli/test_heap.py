"""A server's collection of garbage is brief: what took long to look through is set apart."""

import gc
from collections.abc import Iterator

import pytest

from app.cli.heap import LONGEST_S, OLDER, UNSEEN, WHOLE, YOUNG, brief_collections


class Turning:
    """A clock that goes on by a step at every look."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Ring:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def nothing_set_apart() -> Iterator[None]:
    """Begins with nothing set apart, and sets apart again what the other tests want to be.

    Looks are taken when a test says so: one more in between would set apart what it counts.
    """
    gc.unfreeze()
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    gc.freeze()


def test_what_took_long_to_look_through_is_set_apart_and_the_rest_is_not() -> None:
    clock = Turning()
    with brief_collections(clock):
        before = gc.get_freeze_count()
        assert before > 0
        kept = [Ring() for _ in range(1000)]
        clock.step = LONGEST_S / 2
        gc.collect()
        assert gc.get_freeze_count() <= before
        clock.step = LONGEST_S * 2
        gc.collect(1)  # a part of the heap is never long
        assert gc.get_freeze_count() <= before
        gc.collect()
        assert gc.get_freeze_count() >= before + len(kept)
    assert gc.get_freeze_count() == 0


def test_garbage_is_still_found() -> None:
    clock, usual = Turning(), gc.get_threshold()
    with brief_collections(clock):
        Ring()
        assert gc.collect() >= 1
        assert gc.get_threshold() == (YOUNG, OLDER, WHOLE)
    assert gc.get_threshold() == usual


def test_what_grew_by_much_is_set_apart_without_the_first_looks_through_it() -> None:
    kept: list[Ring] = []
    with brief_collections(Turning(), grown=1_000):  # by that clock no look takes long
        for look in range(UNSEEN + 1):
            before = gc.get_freeze_count()
            kept += [Ring() for _ in range(1_000)]
            Ring()
            assert (gc.collect() >= 1) is (look == UNSEEN)
            assert (gc.get_freeze_count() >= before + 1_000) is (look < UNSEEN)


def test_what_its_caller_had_set_apart_is_set_apart_again() -> None:
    gc.freeze()
    with brief_collections(Turning()):
        pass
    assert gc.get_freeze_count() > 0
