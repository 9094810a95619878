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
    """Caches the newest value of each name; a value of another key replaces it.

    A key names every input of the value: versions, or immutable values. Large values (a market, a
    panel) compare by identity. Where many names depend on one, the key has a weak reference to it:
    otherwise each seldom used name keeps another former value in memory. A value must not contain
    an age, only a verdict on one, with the second at which the verdict changes as its expiry.
    """

    _entries: dict[str, _Entry] = field(default_factory=dict, init=False)

    def get(self, name: str, key: tuple[object, ...], compute: Callable[[], V]) -> V:
        """Returns the value for the key; the same object while the key stays equal."""
        return self.get_until(name, key, 0.0, lambda: (compute(), math.inf))

    def get_until(
        self,
        name: str,
        key: tuple[object, ...],
        now: float,
        compute: Callable[[], tuple[V, float]],
    ) -> V:
        """Returns the value; `compute` gives it with the last monotonic second of its validity."""
        entry = self._entries.get(name)
        if entry is None or not entry.is_valid(key, now):
            value, until = compute()
            entry = self._entries[name] = _Entry(key, now, until, value)
        cached: V = entry.value
        return cached

    def has(self, name: str, key: tuple[object, ...], now: float) -> bool:
        """Returns True if `get_until` would return a stored value."""
        entry = self._entries.get(name)
        return entry is not None and entry.is_valid(key, now)
