"""Cache of computed views: the newest value per name, for one key and an optional expiry."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry:
    key: tuple[object, ...]
    computed_at: float  # monotonic seconds
    valid_until: float
    value: Any

    def is_valid(self, key: tuple[object, ...], now: float) -> bool:
        # Tuples compare identical objects without looking into them.
        return self.computed_at <= now <= self.valid_until and self.key == key


@dataclass(slots=True)
class ViewCache:
    """Newest value of each name; a value of another key replaces it.

    A key names everything that the value is computed from: versions, or immutable values. Large
    values (a market, a panel) compare by identity. An age must not be part of a value, only a
    verdict on it, with the second at which the verdict turns as the expiry.
    """

    _entries: dict[str, _Entry] = field(default_factory=dict, init=False)

    def get(self, name: str, key: tuple[object, ...], compute: Callable[[], V]) -> V:
        """Value of the key, as one object while the key stays equal."""
        return self.get_until(name, key, 0.0, lambda: (compute(), math.inf))

    def get_until(
        self,
        name: str,
        key: tuple[object, ...],
        now: float,
        compute: Callable[[], tuple[V, float]],
    ) -> V:
        """`compute` gives a value and the last monotonic second at which it is valid."""
        entry = self._entries.get(name)
        if entry is None or not entry.is_valid(key, now):
            value, until = compute()
            entry = self._entries[name] = _Entry(key, now, until, value)
        found: V = entry.value
        return found

    def has(self, name: str, key: tuple[object, ...], now: float) -> bool:
        """Whether `get_until` would return a stored value."""
        entry = self._entries.get(name)
        return entry is not None and entry.is_valid(key, now)
