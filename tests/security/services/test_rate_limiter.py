"""Counting by sliding windows: storage in memory, waiting times and bounded memory."""

import random

import pytest

from app.security.domain.rate_limits import LimitName, RateLimits, WindowCount
from app.security.services.rate_limiter import MAX_COUNTERS, RateLimiter, WindowStorage


class Clock:
    def __init__(self) -> None:
        self.now_s = 5_000.25

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("limit", list(LimitName))
async def test_any_window_admits_at_most_the_quota_and_its_rounding(limit: LimitName) -> None:
    clock, dice = Clock(), random.Random(19)
    quotas = RateLimits()
    limiter = RateLimiter(quotas, clock)
    quota, window_s = quotas.quota(limit)
    admitted: list[float] = []
    for _ in range(40 * quota):
        clock.now_s += dice.random() * 2 * window_s / quota / 4
        if (await limiter.admit([(limit, "one")])).retry_after_s is None:
            admitted.append(clock.now_s)
    spans = [
        sum(start <= at < start + window_s for at in admitted[index : index + 2 * quota + 1])
        for index, start in enumerate(admitted)
    ]
    # The estimate assumes that the previous window was even; a fixed window would give up to 2.
    assert max(spans) <= 1.5 * quota + 1
    elapsed = admitted[-1] - admitted[0]
    assert len(admitted) == pytest.approx(quota * elapsed / window_s, rel=0.1, abs=quota)


async def test_the_waiting_time_is_enough_and_not_much_too_long() -> None:
    clock, dice = Clock(), random.Random(20)
    limiter = RateLimiter(RateLimits(heavy_per_min=6), clock)
    waits = 0
    for _ in range(400):
        clock.now_s += dice.random() * 15
        wait_s = (await limiter.admit([(LimitName.HEAVY, "one")])).retry_after_s
        if wait_s is None:
            continue
        waits += 1
        assert 0 < wait_s <= 70
        clock.now_s += max(0.0, wait_s - 0.01)
        early = await limiter.admit([(LimitName.HEAVY, "one")])
        assert early.retry_after_s is not None, wait_s
        clock.now_s += 0.02
        assert (await limiter.admit([(LimitName.HEAVY, "one")])).retry_after_s is None
    assert waits > 50


def test_a_window_with_room_needs_no_waiting() -> None:
    assert WindowCount(0, 5, 0.5, 1).wait_s(6) == 0.0
    assert WindowCount(10, 0, 0.5, 1).wait_s(6) == 0.0
    assert WindowCount(10, 1, 0.5, 1).wait_s(6) == pytest.approx(0.0, abs=1e-9)
    assert WindowCount(10, 4, 0.5, 1).wait_s(6) == pytest.approx(0.3)
    assert WindowCount(0, 6, 0.5, 1).wait_s(6) == pytest.approx(0.5)
    assert WindowCount(0, 8, 0.5, 1).wait_s(6) == pytest.approx(0.75)


async def test_the_tightest_limit_is_reported() -> None:
    limiter = RateLimiter(RateLimits(requests_per_s=10, address_per_s=4), Clock())
    admission = await limiter.admit([(LimitName.REQUESTS, "key:a"), (LimitName.ADDRESS, "x")])
    assert (admission.limit, admission.remaining, admission.quota) == (LimitName.ADDRESS, 3, 4)
    await limiter.admit([(LimitName.REQUESTS, "key:b")])
    admission = await limiter.admit([(LimitName.REQUESTS, "key:b"), (LimitName.ADDRESS, "y")])
    assert (admission.limit, admission.remaining) == (LimitName.ADDRESS, 3)
    with pytest.raises(ValueError, match="at least one limit"):
        await limiter.admit([])


async def test_memory_is_bounded_and_addresses_drop_no_counter_of_a_key() -> None:
    clock = Clock()
    storage = WindowStorage(clock, max_counters=3)
    for number in range(10):
        assert await storage.acquire_sliding_window_entry(f"key-{number}", 1, 60)
    assert len(storage) == 3
    assert not await storage.acquire_sliding_window_entry("key-9", 1, 60)
    assert await storage.acquire_sliding_window_entry("key-0", 1, 60), "it was dropped"

    limiter = RateLimiter(RateLimits(requests_per_s=1), clock)
    assert (await limiter.admit([(LimitName.REQUESTS, "key:a")])).retry_after_s is None
    for number in range(MAX_COUNTERS + 1):
        await limiter.admit([(LimitName.ADDRESS, f"address-{number}")])
    assert (await limiter.admit([(LimitName.REQUESTS, "key:a")])).retry_after_s is not None


async def test_the_storage_counts_like_those_of_the_library() -> None:
    clock = Clock()
    storage = WindowStorage(clock)
    assert await storage.check()
    assert (await storage.get("a"), await storage.get_expiry("a")) == (0, clock.now_s)
    assert [await storage.incr("a", 60), await storage.incr("a", 60, 2)] == [1, 3]
    assert await storage.get("a") == 3
    assert await storage.get_expiry("a") == 5_040.0
    clock.now_s += 60
    assert await storage.get("a") == 0
    previous, left_s, current, after_s = await storage.get_sliding_window("a", 60)
    assert (previous, current, left_s, after_s) == (3, 0, 39.75, 99.75)
    clock.now_s += 120
    assert (await storage.get_sliding_window("a", 60))[0] == 0, "older windows do not count"
    await storage.clear_sliding_window("a", 60)
    assert len(storage) == 0
    await storage.incr("a", 60)
    await storage.clear("a")
    await storage.incr("b", 60)
    assert await storage.reset() == 1
    assert len(storage) == 0
