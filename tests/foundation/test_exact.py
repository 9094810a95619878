"""Values that decisions compare are integers that the last bits of a float do not change."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.foundation.decimal_math import to_millionths


@given(st.integers(-10_000_000, 10_000_000), st.integers(-3, 3))
def test_noise_of_a_few_ulps_changes_no_millionth(millionths: int, ulps: int) -> None:
    value = millionths / 1_000_000
    for _ in range(abs(ulps)):
        value = math.nextafter(value, math.copysign(math.inf, ulps))
    assert to_millionths(value) == millionths


def test_halves_are_rounded_to_even() -> None:
    assert [to_millionths(halves / 2_000_000) for halves in (1, 3, -1)] == [0, 2, 0]


def test_nan_and_infinity_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_millionths(math.nan)
    with pytest.raises(OverflowError):
        to_millionths(math.inf)
