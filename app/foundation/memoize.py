"""Memory of computed views: keyed by their inputs, or for a while."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """All that a view is worked out of; nothing in it grows older, only verdicts on age do."""

    things: tuple[object, ...]  # large values that never change: the same only if one object
    facts: tuple[object, ...]  # small ones: the same if they are equal

    def holds(self, other: "Basis") -> bool:
        """Whether a view of the one is a view of the other."""
        return (
            len(self.things) == len(other.things)
            and all(one is two for one, two in zip(self.things, other.things, strict=True))
            and self.facts == other.facts
        )


@dataclass(slots=True)
class Views:
    """The newest view of each kind with its basis; one of another basis takes its place."""

    _kept: dict[str, tuple[Basis, Any]] = field(default_factory=dict, init=False)

    def of(self, kind: str, basis: Basis, make: Callable[[], V]) -> V:
        """What `make` gives for that basis, as one object while the basis holds."""
        kept = self._kept.get(kind)
        if kept is None or not kept[0].holds(basis):
            kept = self._kept[kind] = (basis, make())
        made: V = kept[1]
        return made


@dataclass(frozen=True, slots=True)
class _Kept:
    rests_on: tuple[object, ...]
    made_at: float  # monotonic seconds
    until: float
    value: Any

    def holds(self, rests_on: tuple[object, ...], now: float) -> bool:
        return self.made_at <= now <= self.until and all(
            one is two for one, two in zip(self.rests_on, rests_on, strict=True)
        )


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
        if kept is None or not kept.holds(rests_on, now):
            value, until = make()
            kept = self._kept[kind] = _Kept(rests_on, now, until, value)
        found: V = kept.value
        return found

    def has(self, kind: str, rests_on: tuple[object, ...], now: float) -> bool:
        """Whether `of` would give what was made before."""
        kept = self._kept.get(kind)
        return kept is not None and kept.holds(rests_on, now)
