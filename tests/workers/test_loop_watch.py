"""A loop that hangs is seen from beside it."""

import asyncio
import threading

from structlog.testing import capture_logs

from app.workers.loop_watch import LoopWatch

PATIENCE_S = 60.0


def hangs_until(told: threading.Event) -> bool:
    return told.wait(PATIENCE_S)


async def test_E12_a_blocked_loop_is_shown_with_the_function_that_blocks_it() -> None:
    told = threading.Event()
    times = list[None]()

    def blocked() -> None:
        times.append(None)
        told.set()

    with capture_logs() as said, LoopWatch(blocked, look_s=0.01, limit_s=0.05):
        assert hangs_until(told)
    assert times == [None]
    (line,) = [one for one in said if one["event"] == "event_loop_blocked"]
    assert any(call.endswith(" hangs_until") for call in line["at"])
    assert not any("/" in call for call in line["at"])


async def test_each_hanging_is_told_once_and_the_thread_ends_with_the_watch() -> None:
    told, times = threading.Event(), list[None]()

    def blocked() -> None:
        times.append(None)
        told.set()

    watch = LoopWatch(blocked, look_s=0.01, limit_s=0.05)
    with watch:
        assert hangs_until(told)
        told.clear()
        while watch._missed:  # it has given a sign again
            await asyncio.sleep(0.01)
        assert hangs_until(told)
    assert len(times) >= 2
    assert watch._thread is not None
    assert not watch._thread.is_alive()
