"""Row E09: growth of memory, descriptors and tasks over hours is found, noise is not."""

import os
from random import Random

import pytest

from benchmarks.soak import Sample, descriptors, growth, memory_mib

HOUR_S = 3_600.0


def samples(
    *, mib_per_hour: float = 0.0, warm_mib: float = 0.0, leak: float = 0.0, tasks: float = 0.0
) -> list[Sample]:
    """Four hours, a sample a minute; `leak` and `tasks` are numbers an hour."""
    dice = Random(1)
    found = []
    for minute in range(240):
        hours = minute / 60
        memory = 300.0 + warm_mib * min(hours, 2.0) + mib_per_hour * hours + dice.uniform(-0.2, 0.2)
        found.append(
            Sample(
                hours * HOUR_S,
                memory,
                60 + int(leak * hours) + dice.randrange(4),
                90 + int(tasks * hours) + dice.randrange(4),
            )
        )
    return found


def test_E09_what_is_steady_after_the_warm_up_passes() -> None:
    assert growth(samples(warm_mib=50.0, mib_per_hour=0.5)).faults == []


@pytest.mark.parametrize(
    ("grown", "fault"),
    [
        ({"mib_per_hour": 1.5}, "memory"),
        ({"leak": 6.0}, "descriptors"),
        ({"tasks": 6.0}, "tasks"),
    ],
)
def test_E09_what_grows_is_named(grown: dict[str, float], fault: str) -> None:
    assert growth(samples(**grown)).faults == [fault]


def test_a_short_run_is_measured_in_its_last_third() -> None:
    short = [
        Sample(second, 300.0 + min(second, 60), 60, 90) for second in range(120)
    ]  # it warms up for a minute
    assert growth(short).faults == []
    with pytest.raises(ValueError, match="too few"):
        growth(short[:9])


def test_the_resources_of_a_process_are_read() -> None:
    before = descriptors(os.getpid())
    with open(os.devnull, "rb"):  # noqa: PTH123  # a descriptor is what is wanted
        assert descriptors(os.getpid()) == before + 1
    assert memory_mib(os.getpid()) > 10.0
