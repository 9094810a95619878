"""The bus never waits for a slow reader; it counts what the reader lost."""

import pytest

from app.foundation.event_bus import Bus


async def test_each_subscriber_gets_the_events_after_its_subscription() -> None:
    bus = Bus()
    bus.publish("before")
    with bus.subscribe() as first, bus.subscribe() as second:
        bus.publish("after")

        assert await anext(first) == "after"
        assert await anext(second) == "after"


async def test_a_slow_reader_loses_the_oldest_and_is_counted() -> None:
    bus = Bus(capacity=2)
    with bus.subscribe() as slow:
        for number in range(5):
            bus.publish(number)

        assert bus.dropped == 3
        assert [await anext(slow), await anext(slow)] == [3, 4]


async def test_a_reader_that_left_costs_nothing() -> None:
    bus = Bus(capacity=1)
    with pytest.raises(RuntimeError), bus.subscribe():
        raise RuntimeError("gone")
    bus.publish("x")
    bus.publish("y")

    assert bus.dropped == 0
