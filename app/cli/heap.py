"""Keeps garbage collection from pausing a server for long."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

LONGEST_S: Final = 0.02
GROWN: Final = 200_000  # pieces of memory more than before: a whole look would take long
UNSEEN: Final = 3  # such looks, at the most, are not taken
YOUNG: Final = 2_000  # objects more than before: then the youngest are looked through
OLDER: Final = 4  # looks through the youngest, after which what they left is looked through too
WHOLE: Final = 60  # such looks, after which all is that was not set apart
_WHOLE: Final = 2  # the generation that is the whole heap


@contextmanager
def brief_collections(
    clock: Callable[[], float] = perf_counter, grown: int = GROWN
) -> Iterator[None]:
    """What survived a look through the whole heap that took long is not looked through again.

    The market of 500 contracts and the program itself are a million objects: each look at them
    held the event loop for a quarter of a second, and found nothing. What is set apart is still
    freed when nobody refers to it any more; only rings of references that were alive at that
    moment stay until the end. While a server fills nearly nothing is garbage, and what has grown by
    so much is set apart without the first looks. The youngest are looked through less often than is
    usual: a market that is told makes thousands of objects a second, and no rings of them. But what
    is looked through at once is little: fifty thousand objects held the loop for up to 26 ms.
    """
    begun, unseen, known = 0.0, 0, 0

    def watch(phase: str, about: dict[str, Any]) -> None:
        nonlocal begun, known, unseen
        if about["generation"] != _WHOLE:
            return
        if phase == "start":
            if unseen < UNSEEN and sys.getallocatedblocks() - known > grown:
                gc.freeze()  # nothing is left to look through
                unseen, known = unseen + 1, sys.getallocatedblocks()
            begun = clock()
        elif clock() - begun > LONGEST_S:
            gc.freeze()

    caller_keeps_apart, usual = gc.get_freeze_count() > 0, gc.get_threshold()
    gc.collect()
    gc.freeze()
    known = sys.getallocatedblocks()
    gc.set_threshold(YOUNG, OLDER, WHOLE)
    gc.callbacks.append(watch)
    try:
        yield
    finally:
        gc.callbacks.remove(watch)
        gc.set_threshold(*usual)
        gc.unfreeze()
        if caller_keeps_apart:
            gc.collect()
            gc.freeze()
