"""Many requests, a few at a time."""

import asyncio
from collections.abc import Mapping

import pytest

from app.foundation.concurrency import OUTAGE_AFTER, gather_bounded
from app.foundation.errors import Code, RefusedError, ServiceError, UnavailableError

DOWN = UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")
REFUSED = RefusedError(Code.EXCHANGE_REFUSED, "no")


class Work:
    """Fails for some items, and records the concurrency."""

    def __init__(self, failing: Mapping[int, ServiceError]) -> None:
        self.failing = dict(failing)
        self.done: list[int] = []
        self.busy = self.most = 0
        self.slept: list[float] = []

    async def __call__(self, item: int) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        if item in self.failing:
            raise self.failing[item]
        self.done.append(item)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_at_most_so_many_at_once_and_each_is_counted() -> None:
    work, counted = Work({}), []
    failures = await gather_bounded(range(20), work, workers=4, done=lambda: counted.append(1))
    assert failures == []
    assert (sorted(work.done), work.most, len(counted)) == (list(range(20)), 4, 20)


async def test_failures_are_named_and_do_not_stop_the_others() -> None:
    work = Work({3: DOWN, 5: REFUSED})
    failures = await gather_bounded(range(10), work, workers=3)
    assert failures == [(3, DOWN), (5, REFUSED)]
    assert sorted(work.done) == [0, 1, 2, 4, 6, 7, 8, 9]


async def test_an_outage_stops_everything() -> None:
    work = Work(dict.fromkeys(range(5, 500), DOWN))
    with pytest.raises(UnavailableError):
        await gather_bounded(range(500), work, workers=2)
    assert len(work.done) == 5


async def test_refusals_are_no_outage_and_an_answer_ends_a_row_of_failures() -> None:
    assert (
        len(await gather_bounded(range(50), Work(dict.fromkeys(range(50), REFUSED)), workers=2))
        == 50
    )
    scattered = {item: DOWN for item in range(50) if item % OUTAGE_AFTER}
    assert len(await gather_bounded(range(50), Work(scattered), workers=1)) == len(scattered)


@pytest.mark.parametrize(("count", "outage"), [(2, False), (3, True)])
async def test_a_short_list_without_any_answer_is_an_outage(count: int, *, outage: bool) -> None:
    work = Work(dict.fromkeys(range(count), DOWN))
    if outage:
        with pytest.raises(UnavailableError):
            await gather_bounded(range(count), work, workers=5)
    else:
        assert len(await gather_bounded(range(count), work, workers=5)) == count


async def test_an_exhausted_quota_is_waited_for_and_retried() -> None:
    work = Work({1: UnavailableError(Code.EXCHANGE_RATE_LIMITED, "wait", retry_after_s=7.5)})

    async def heal(seconds: float) -> None:
        await work.sleep(seconds)
        if len(work.slept) == 2:
            work.failing.clear()

    assert await gather_bounded(range(3), work, workers=1, sleep=heal) == []
    assert work.slept == [7.5, 7.5]
    assert work.done == [0, 1, 2]


async def test_patience_for_quota_ends() -> None:
    banned = UnavailableError(Code.EXCHANGE_BANNED, "wait", retry_after_s=900.0)
    work = Work({0: banned})
    assert await gather_bounded(range(2), work, workers=1, sleep=work.sleep) == [(0, banned)]
    assert work.slept == [90.0] * 4


async def test_a_bug_is_not_swallowed() -> None:
    async def broken(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await gather_bounded(range(3), broken, workers=2)
