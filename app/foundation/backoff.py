"""Exponential back-off with full jitter: waiting times between attempts."""

from collections.abc import Callable, Iterator
from typing import Final

_MAX_DOUBLINGS: Final = 60  # beyond, the power would leave the range of a float

# For background tasks. The circuit breaker of the exchange admits a probe after 15 s; with this cap
# a task resumes within 30 s of the exchange's return. A shorter cap gains nothing: the breaker is
# open meanwhile.
FIRST_S: Final = 0.5
CAP_S: Final = 8.0


def full_jitter_s(attempt: int, first_s: float, cap_s: float, draw: float) -> float:
    """Returns the wait in seconds after `attempt` failed attempts (from 1).

    The ceiling doubles from `first_s` up to `cap_s`; the wait is `draw` (0..1) times the ceiling
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return draw * min(cap_s, first_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))


def full_jitter(
    random: Callable[[], float], first_s: float = FIRST_S, cap_s: float = CAP_S
) -> Iterator[float]:
    """Yields waiting times in seconds without end; `random` draws numbers in 0..1."""
    attempt = 0
    while True:
        attempt += 1
        yield full_jitter_s(attempt, first_s, cap_s, random())
