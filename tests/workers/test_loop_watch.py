"""Row E12: a blocked event loop is seen, with the function that blocks it."""

import asyncio
from pathlib import Path

from app.workers.gauges import dump_stack_when_blocked

PATIENCE_LOOKS = 10_000_000


def blocks_until_written(path: Path) -> str:
    for _ in range(PATIENCE_LOOKS):
        written = path.read_text()
        if written.endswith("\n") and "blocks_until_written" in written:
            return written
    raise AssertionError("nothing was written")


async def test_E12_a_blocked_loop_is_shown_with_the_function_that_blocks_it(tmp_path: Path) -> None:
    path = tmp_path / "stacks"
    with path.open("w") as file:
        watching = asyncio.create_task(dump_stack_when_blocked(file, check_s=0.01, limit_s=0.05))
        await asyncio.sleep(0)  # it has begun
        written = blocks_until_written(path)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert "blocks_until_written" in written


async def test_a_loop_that_runs_is_not_dumped(tmp_path: Path) -> None:
    path = tmp_path / "stacks"
    with path.open("w") as file:
        watching = asyncio.create_task(dump_stack_when_blocked(file, check_s=0.001, limit_s=5.0))
        for _ in range(20):
            await asyncio.sleep(0.001)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert path.read_text() == ""


async def test_E12_a_block_is_dumped_once_and_the_next_one_again(tmp_path: Path) -> None:
    path = tmp_path / "stacks"
    with path.open("w") as file:
        watching = asyncio.create_task(dump_stack_when_blocked(file, check_s=0.01, limit_s=0.05))
        for blocks in (1, 2):
            await asyncio.sleep(0.02)
            while path.read_text().count("is blocked") < blocks:
                pass
            for _ in range(10_000):
                assert path.read_text().count("is blocked") == blocks
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
