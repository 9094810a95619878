"""The public pool: whole bursts, order, headers, and no request too many, seen by the exchange."""

import asyncio
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.adapters.kucoin.limiter import SILENT, KucoinLimits, QuotaHeaders, RequestPool
from app.foundation.errors import Code, ServiceError
from tests.adapters.kucoin.harness import RealTime, VirtualTime, asking, local_exchange, refused


class Never:
    """Chance that never adds anything."""

    def random(self) -> float:
        return 0.0


def pool_of(time: VirtualTime, **numbers: float) -> RequestPool:
    limits = KucoinLimits(quota=100, margin_share=0.05, **numbers)  # type: ignore[arg-type] # float fits
    return RequestPool(limits, monotonic=time.monotonic, sleep=time.sleep, dice=Never())


async def test_the_whole_quota_may_go_at_once_then_the_window_is_awaited() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    began = time.passed
    for _ in range(19):
        pool.settle(await pool.take(5, began + 100), SILENT)
    assert time.passed == began
    await pool.take(5, began + 100)
    assert began + 30 < time.passed < began + 30.2


async def test_who_cannot_be_served_in_time_is_told_at_once() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    await pool.take(95, time.passed)
    with pytest.raises(ServiceError) as caught:
        await pool.take(5, time.passed + 29)
    assert caught.value.code is Code.EXCHANGE_RATE_LIMITED
    assert caught.value.retry_after_s == 31.0
    assert time.naps == []


async def test_waiters_are_served_in_the_order_of_arrival() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    served: list[int] = []

    async def caller(name: int) -> None:
        ticket = await pool.take(20, time.passed + 10_000)
        served.append(name)
        pool.settle(ticket, SILENT)

    await asyncio.gather(*(caller(name) for name in range(40)))
    assert served == list(range(40))


async def test_a_light_request_does_not_overtake_a_heavy_one() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    await pool.take(92, time.passed)
    served: list[int] = []

    async def caller(weight: int) -> None:
        await pool.take(weight, time.passed + 10_000)
        served.append(weight)

    await asyncio.gather(caller(5), caller(2), caller(1))
    assert served == [5, 2, 1]


async def test_what_still_flies_counts_in_the_next_window() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    await pool.take(60, time.passed)
    time.advance(31)
    await pool.take(35, time.passed)
    with pytest.raises(ServiceError):
        await pool.take(1, time.passed)


async def test_a_queue_of_whole_windows_is_counted_in() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    await pool.take(95, time.passed)
    waiting = [asyncio.ensure_future(pool.take(95, time.passed + 1000)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError):
        await pool.take(5, time.passed + 60)  # three windows are taken before it
    await asyncio.gather(*waiting)


async def test_foreign_use_of_the_address_is_believed() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    ticket = await pool.take(5, time.passed)
    pool.settle(ticket, QuotaHeaders(100, 10, 20_000))  # somebody else took 85
    began = time.passed
    await pool.take(5, began + 100)
    assert time.passed == began
    await pool.take(5, began + 100)
    assert began + 20 < time.passed < began + 20.2  # the stated reset, not our guess


async def test_a_changed_quota_is_taken_over() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    pool.settle(await pool.take(5, time.passed), QuotaHeaders(40, None, 30_000))
    began = time.passed
    for _ in range(6):
        await pool.take(5, began + 100)
    assert time.passed == began
    await pool.take(5, began + 100)
    assert time.passed > began + 29


async def test_a_request_heavier_than_the_room_still_goes_in_an_empty_window() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    pool.settle(await pool.take(98, time.passed), SILENT)


async def test_a_ticket_given_back_makes_room() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    pool.give_back(await pool.take(95, time.passed))
    await pool.take(95, time.passed)


async def test_an_answer_of_the_exchanges_next_window_begins_ours() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    pool.settle(await pool.take(60, time.passed), QuotaHeaders(100, 40, 5_000))
    late = await pool.take(30, time.passed)
    time.advance(4.9)
    pool.settle(late, QuotaHeaders(100, 70, 30_000))  # it was the first of a new window there
    began = time.passed
    await pool.take(60, began)
    with pytest.raises(ServiceError):
        await pool.take(30, began + 29)


async def test_without_headers_a_slow_first_answer_moves_the_end() -> None:
    time = VirtualTime()
    pool = pool_of(time)
    first = await pool.take(95, time.passed)
    time.advance(8.0)
    pool.settle(first, SILENT)  # it may have arrived only just now
    with pytest.raises(ServiceError):
        await pool.take(5, time.passed + 29.9)
    began = time.passed
    await pool.take(5, began + 31)
    assert time.passed >= began + 30


async def test_a_closing_that_comes_while_waiting_does_not_hold_callers_beyond_their_time() -> None:
    time = RealTime()
    limits = KucoinLimits(quota=100, margin_share=0.05, window_s=0.2)
    pool = RequestPool(limits, monotonic=time.monotonic, sleep=time.sleep, dice=Never())
    await pool.take(95, time.monotonic())
    patient = asyncio.ensure_future(pool.take(5, time.monotonic() + 120))
    began = time.monotonic()
    hasty = asyncio.ensure_future(pool.take(5, began + 0.3))
    await asyncio.sleep(0)
    pool.close(QuotaHeaders(100, 0, 4000))
    with pytest.raises(ServiceError) as caught:
        await hasty
    assert caught.value.code is Code.EXCHANGE_RATE_LIMITED
    assert not patient.done()
    await patient
    assert time.monotonic() - began > 4.0


async def test_R01_closing_one_pool_leaves_another_open() -> None:
    time = VirtualTime()
    closed, other = pool_of(time), pool_of(time)
    closed.close(QuotaHeaders(100, 0, 12_000))
    with pytest.raises(ServiceError):
        await closed.take(1, time.passed + 11)
    await other.take(1, time.passed)


def test_R01_the_jitter_is_up_to_a_tenth() -> None:
    time = VirtualTime()
    spread = []
    for seed in range(200):
        dice = random.Random(seed)
        pool = RequestPool(KucoinLimits(), monotonic=time.monotonic, sleep=time.sleep, dice=dice)
        pool.close(QuotaHeaders(2000, 0, 12_000))
        spread.append(pool.closed_for() / 12)
    assert min(spread) >= 1.0
    assert max(spread) <= 1.1
    assert max(spread) - min(spread) > 0.09


@pytest.mark.parametrize("text", ["", "-1", "+5", "1.5", "abc", "٣", "9" * 13])
def test_R02_headers_that_make_no_sense_are_unknown(text: str) -> None:
    names = ("gw-ratelimit-limit", "gw-ratelimit-remaining", "gw-ratelimit-reset")
    assert QuotaHeaders.from_headers(dict.fromkeys(names, text)) == SILENT
    assert QuotaHeaders.from_headers({}) == SILENT
    assert QuotaHeaders.from_headers(dict.fromkeys(names, "7")) == QuotaHeaders(7, 7, 7)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0, 10)), min_size=1, max_size=60),
    st.booleans(),
)
@example([(1, 30.0), (17, 0.0), *[(20, 0.0)] * 5], False)  # on the very edge of a window
async def test_no_window_ever_holds_more_than_the_quota(
    calls: list[tuple[int, float]], speaks: bool
) -> None:
    time = VirtualTime()
    pool = pool_of(time)
    started, used = -1e9, 0  # the exchange's own fixed window
    for weight, pause in calls:
        ticket = await pool.take(weight, time.passed + 10_000)
        if time.passed - started >= 30:
            started, used = time.passed, 0
        used += weight
        assert used <= 100
        reset = round((started + 30 - time.passed) * 1000)
        pool.settle(ticket, QuotaHeaders(100, 100 - used, reset) if speaks else SILENT)
        time.advance(pause)


async def test_sixteen_callers_never_exceed_the_real_window() -> None:
    time = RealTime()
    limits = KucoinLimits(quota=150, window_s=0.6, margin_share=0.03)
    async with (
        local_exchange(time, quota=150) as local,
        asking(local.url, time, limits) as exchange,
    ):
        local.sandbox.pool.window_s = 0.6
        queue = iter(range(160))

        async def caller() -> None:
            for _ in queue:
                await exchange.server_time_ms()

        began = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(16)))
        took = time.monotonic() - began
        assert local.total == 160
        assert local.sandbox.pool.tally.rejected == 0
        assert local.in_closed_window == 0
        assert took >= 1.2  # 320 weight at 145 a window: two waits


async def test_R01_sixteen_callers_send_nothing_into_a_closed_window() -> None:
    time = RealTime()
    limits = KucoinLimits(quota=10_000, window_s=0.6)
    async with (
        local_exchange(time, quota=10_000) as local,
        asking(local.url, time, limits) as exchange,
    ):
        await exchange.server_time_ms()
        local.sandbox.pool.close(0.8, "present")
        await refused(exchange.patient(0.1).server_time_ms())

        async def caller() -> None:
            for _ in range(3):
                await exchange.server_time_ms()

        await asyncio.gather(*(caller() for _ in range(16)))
        assert local.sandbox.pool.tally.rejected == 1
        assert local.in_closed_window == 0
        assert local.total == 2 + 48
