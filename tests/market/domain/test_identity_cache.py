"""Values are computed once per object, and released with it."""

import gc
import weakref
from dataclasses import dataclass

from app.market.domain.identity_cache import cached_while_alive


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Series:
    values: tuple[float, ...]


def test_a_value_is_computed_once_per_object_and_released_with_it() -> None:
    calls: list[Series] = []

    @cached_while_alive
    def total(series: Series) -> list[float]:
        calls.append(series)
        return [sum(series.values)]

    first, equal = Series((1.0, 2.0)), Series((1.0, 2.0))
    assert total(first) is total(first)
    assert total(equal) is not total(first), "objects compare by identity"
    assert calls == [first, equal]
    calls.clear()
    alive = weakref.ref(first)
    del first
    gc.collect()
    assert alive() is None
