"""What was worked out over all symbols, for as long as it stays true."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Kept:
    rests_on: tuple[object, ...]
    made_at: float  # monotonic seconds
    until: float
    value: Any


@dataclass(slots=True)
class MarketMemory:
    """The newest result of each kind.

    It rests on mappings and settings that never change (the same only if one object), and on ages
    that pass a limit at a known moment.
    """

    _kept: dict[str, _Kept] = field(default_factory=dict, init=False)

    def of(
        self,
        kind: str,
        rests_on: tuple[object, ...],
        now: float,
        make: Callable[[], tuple[V, float]],
    ) -> V:
        """`make` gives a value and the last monotonic second at which it is true by itself."""
        kept = self._kept.get(kind)
        if (
            kept is None
            or not kept.made_at <= now <= kept.until
            or any(one is not two for one, two in zip(kept.rests_on, rests_on, strict=True))
        ):
            value, until = make()
            kept = self._kept[kind] = _Kept(rests_on, now, until, value)
        found: V = kept.value
        return found
