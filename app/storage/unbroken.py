"""Awaiting something to its end even when the awaiting task is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def unbroken(work: Awaitable[T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """The result of `work`, which a cancellation cannot cut in half.

    A cancellation is delivered after `work` has ended. Its result is then lost to the caller, so
    `undo` gets it, to give back what was taken.
    """
    ended = asyncio.Event()
    results: list[T] = []

    async def to_the_end() -> T:
        try:
            results.append(await work)
            return results[0]
        finally:
            ended.set()

    try:
        return await asyncio.shield(to_the_end())
    except asyncio.CancelledError:
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue  # once is enough; it is raised below
        if undo is not None and results:
            await unbroken(undo(results[0]))
        raise
