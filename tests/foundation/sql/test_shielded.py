"""What must not be cut in half is not, and cancellation still arrives."""

import asyncio

import pytest

from app.foundation.sql.database import shielded


async def _started(work: asyncio.Task[str]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not work.done()


async def test_the_result_or_the_error_comes_through() -> None:
    async def fail() -> None:
        raise KeyError("x")

    assert await shielded(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError):
        await shielded(fail())


async def test_B16_cancelled_again_and_again_it_ends_is_undone_and_then_cancelled() -> None:
    go_on = asyncio.Event()
    story: list[str] = []

    async def work() -> str:
        await go_on.wait()
        story.append("worked")
        return "taken"

    async def give_back(what: str) -> None:
        await asyncio.sleep(0)
        story.append(f"gave {what} back")

    task = asyncio.ensure_future(shielded(work(), undo=give_back))
    await _started(task)
    for _ in range(3):
        task.cancel()
        await _started(task)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert story == ["worked", "gave taken back"]


async def test_cancelled_while_it_fails_there_is_nothing_to_undo() -> None:
    go_on = asyncio.Event()

    async def fail() -> str:
        await go_on.wait()
        raise KeyError("x")

    async def give_back(_: str) -> None:
        raise AssertionError("nothing was taken")

    task = asyncio.ensure_future(shielded(fail(), undo=give_back))
    await _started(task)
    task.cancel()
    await _started(task)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_end_of_the_loop_ends_it_even_before_it_began() -> None:
    """asyncio.run cancels every task in the end, also the one that was not to be cut in half."""
    began: list[str] = []

    async def work() -> None:
        began.append("began")

    waiting = asyncio.ensure_future(shielded(work()))
    await asyncio.sleep(0)  # it waits for its work, which has not had its first turn
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    async with asyncio.timeout(10.0):
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert began == []
