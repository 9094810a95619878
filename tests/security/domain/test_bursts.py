"""Bursts of failed authentications: from one address, from many, and how often one is reported."""

from datetime import UTC, datetime, timedelta

import pytest

from app.security.domain.bursts import (
    EVERY_ADDRESS,
    HOLD,
    MAX_SUBJECTS,
    Burst,
    BurstDetector,
    merge_bursts,
    read_bursts,
)

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
Found = list[tuple[str, int]]


def reported(*failures: tuple[str, float], limit: float = 10.0) -> Found:
    """What the detector reports about failures of an address at a time."""
    detector = BurstDetector()
    found = (detector.add(address, at_s, limit) for address, at_s in failures)
    return [one for one in found if one is not None]


def test_the_eleventh_failure_within_a_minute_is_a_burst() -> None:
    ten = [("10.0.0.1", float(second)) for second in range(10)]
    assert reported(*ten) == []
    assert reported(*ten, ("10.0.0.1", 59.9)) == [("10.0.0.1", 11)]
    assert reported(*ten, ("10.0.0.1", 60.0)) == [], "a minute later the first one is gone"


@pytest.mark.parametrize(("limit", "needed"), [(0.0, 1), (2.0, 3), (2.5, 3), (-5.0, 1)])
def test_the_limit_is_a_setting(limit: float, needed: int) -> None:
    failures = [("10.0.0.1", 0.0)] * needed
    assert reported(*failures[:-1], limit=limit) == []
    assert reported(*failures, limit=limit) == [("10.0.0.1", needed)]


def test_failures_of_many_addresses_are_a_burst_of_all() -> None:
    many = [(f"10.0.0.{number}", float(number)) for number in range(11)]
    assert reported(*many) == [(EVERY_ADDRESS, 11)]
    slow = [(f"10.0.0.{number}", number * 6.0) for number in range(40)]
    assert reported(*slow) == []


def test_failures_of_an_address_with_a_burst_are_not_those_of_all() -> None:
    failures = [("10.0.0.1", float(second)) for second in range(30)]
    strays = [("10.0.0.2", 31.0), ("10.0.0.3", 32.0)]
    assert reported(*failures, *strays) == [("10.0.0.1", 11)]


def test_a_burst_that_goes_on_is_reported_once_a_minute() -> None:
    failures = [("10.0.0.1", number * 0.5) for number in range(400)]  # for 200 seconds
    assert reported(*failures) == [("10.0.0.1", 11)] * 4


def test_bursts_of_very_many_addresses_share_one_report() -> None:
    failures = [(f"10.0.{number}.1", 0.0) for number in range(MAX_SUBJECTS + 30) for _ in range(11)]
    found = reported(*failures)
    assert len(found) == MAX_SUBJECTS + 1
    assert found.count((EVERY_ADDRESS, 11)) == 1


def test_the_stored_bursts_are_those_that_are_not_over() -> None:
    first, other = Burst("10.0.0.1", 11, T0), Burst("10.0.0.2", 11, T0 + timedelta(minutes=1))
    stored = merge_bursts(merge_bursts(None, [first], T0), [other], other.occurred_at)
    assert read_bursts(stored) == (first, other)
    again = Burst("10.0.0.2", 12, T0 + HOLD)
    assert read_bursts(merge_bursts(stored, [again], again.occurred_at)) == (again,)
    assert read_bursts(None) == ()
