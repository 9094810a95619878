"""How long to wait before trying again."""

from collections.abc import Callable, Iterator
from typing import Final

_FIRST_S: Final = 0.5
# With the 15 s after which the breaker of the exchange lets a probe out, what was away is taken up
# again within 30 s of its return. Asking oftener costs the exchange nothing: the breaker is shut.
_CAP_S: Final = 8.0


def full_jitter(uniform: Callable[[float, float], float]) -> Iterator[float]:
    """Waiting times in seconds, for ever: uniform below a ceiling that doubles up to the cap."""
    ceiling = _FIRST_S
    while True:
        yield uniform(0.0, ceiling)
        ceiling = min(_CAP_S, ceiling * 2.0)
