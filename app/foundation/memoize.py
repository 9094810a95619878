"""Views that were worked out already, for as long as nothing that they rest on has changed."""

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
