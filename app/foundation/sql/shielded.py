"""Awaiting something to its end even when the awaiting task is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def shielded(work: Awaitable[T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """The result of `work`, which a cancellation cannot cut in half.

    A cancellation is delivered after `work` has ended. Its result is then lost to the caller, so
    `undo` gets it, to give back what was taken.
    """
    task = asyncio.ensure_future(work)  # noqa: TID251  # ends before this returns
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Not an event that the work sets: the loop, when it closes, cancels the task as well, and
        # one that never began sets nothing.
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # once is enough; it is raised below
        failed = task.cancelled() or task.exception() is not None
        if undo is not None and not failed:
            await shielded(undo(task.result()))
        raise
