"""Keeps the collection of garbage from stopping a server for long."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

LONGEST_S: Final = 0.02
_WHOLE: Final = 2  # the generation that is the whole heap


@contextmanager
def brief_collections(clock: Callable[[], float] = perf_counter) -> Iterator[None]:
    """What survived a look through the whole heap that took long is not looked through again.

    The market of 500 contracts and the program itself are a million objects: each look at them
    held the event loop for a quarter of a second, and found nothing. What is set apart is still
    freed when nobody refers to it any more; only rings of references that were alive at that
    moment stay until the end.
    """
    begun = 0.0

    def watch(phase: str, about: dict[str, Any]) -> None:
        nonlocal begun
        if about["generation"] != _WHOLE:
            return
        if phase == "start":
            begun = clock()
        elif clock() - begun > LONGEST_S:
            gc.freeze()

    caller_keeps_apart = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.callbacks.append(watch)
    try:
        yield
    finally:
        gc.callbacks.remove(watch)
        gc.unfreeze()
        if caller_keeps_apart:
            gc.collect()
            gc.freeze()
