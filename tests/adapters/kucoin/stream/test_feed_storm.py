"""Storms of faults in virtual time end with every contract fresh, and never in a stale decision."""

import pytest

from tests.adapters.kucoin.feed_storm import FAULTS, HEALED_S, Storm
from tests.adapters.kucoin.stream_world import quotes

STORM_S = 600.0


def weathered(seed: int, storms: int, storm_s: float = STORM_S) -> tuple[Storm, float]:
    """A world after so many storms, and the longest that it took to heal."""
    world, worst = Storm(seed), 0.0
    world.want(quotes(len(world.prices)))
    for _ in range(storms):
        world.rage(storm_s)
        worst = max(worst, world.calm(2 * HEALED_S, world.all_true))
    return world, worst


@pytest.mark.parametrize("seed", [3, 7])
def test_after_each_storm_all_is_fresh_within_a_minute_and_nothing_stale_was_decided(
    seed: int,
) -> None:
    world, worst = weathered(seed, 4)
    assert worst <= HEALED_S
    assert world.stale_decisions == 0
    assert world.storms == set(FAULTS)
    # It is no answer to believe nothing: most could be decided on even then.
    assert world.fresh_seen > 0.8 * world.looks * len(world.prices)


def test_the_same_seed_is_the_same_storm() -> None:
    def story(seed: int) -> list[object]:
        world, worst = weathered(seed, 1, 120.0)
        return [worst, world.fresh_seen, *world.opened, *world.closed, *world.sent]

    assert story(5) == story(5)
    assert story(5) != story(6)
