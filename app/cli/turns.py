"""Keeps computing threads from delaying the event loop: they yield the GIL sooner."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONGEST_S: Final = 0.0005


@contextmanager
def brief_turns() -> Iterator[None]:
    """A thread gives the interpreter away after half a millisecond, if another one wants it.

    Each time that the loop wakes up while a thread computes, it waits so long for its turn: with
    the five milliseconds that are usual, every answer during a scoring took six of them longer.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(LONGEST_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
