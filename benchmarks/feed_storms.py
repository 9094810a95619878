"""Simulated days of faults in the feed, one line per seed: `python -m benchmarks.feed_storms`.

Storms last ten minutes, with up to a dozen faults at a time, over the state machine of the
connections and the quotes, in virtual time. Fails where stale data was called fresh, or where a
contract was not fresh within a minute after the faults had stopped.
"""

import os
import sys

import structlog
from rich.console import Console

from tests.adapters.kucoin.feed_storm import HEALED_S, Storm
from tests.adapters.kucoin.stream_world import quotes

SEEDS = int(os.environ.get("MYBENCH_STORM_SEEDS", "8"))
DAYS = float(os.environ.get("MYBENCH_STORM_DAYS", "1"))
STORM_S, DAY_S = 600.0, 86_400.0


def lived(seed: int) -> tuple[Storm, int, float]:
    """A simulated world, its number of storms, and its longest recovery."""
    world, storms, worst = Storm(seed), 0, 0.0
    world.want(quotes(len(world.prices)))
    begun = world.now
    while world.now - begun < DAYS * DAY_S:
        world.rage(STORM_S)
        worst = max(worst, world.calm(10 * HEALED_S, world.all_true))
        storms += 1
    return world, storms, worst


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console, failed = Console(width=120, highlight=False), 0
    for seed in range(SEEDS):
        world, storms, worst = lived(seed)
        is_well = worst <= HEALED_S and not world.stale_decisions
        failed += not is_well
        console.print(
            f"feed, seed {seed}: {storms} storms in {DAYS:g} days, "
            f"{sum(world.fleet.failures.values())} connections lost, healed within {worst:.0f} s, "
            f"{world.stale_decisions} of {world.fresh_seen} decisions stale"
            f"{'' if is_well else '  FAILED'}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
