"""How long to wait before trying again."""

from collections.abc import Callable, Iterator
from typing import Final

_FIRST_S: Final = 0.5
_CAP_S: Final = 30.0


def full_jitter(uniform: Callable[[float, float], float]) -> Iterator[float]:
    """Waiting times in seconds, for ever: uniform below a ceiling that doubles up to the cap."""
    ceiling = _FIRST_S
    while True:
        yield uniform(0.0, ceiling)
        ceiling = min(_CAP_S, ceiling * 2.0)
