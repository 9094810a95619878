"""Exchange time: the caller's clock, shifted and sped up."""

from collections.abc import Callable


class ExchangeClock:
    """Milliseconds of exchange time; `clock` gives real seconds and only its differences count
    once a start is given."""

    def __init__(self, clock: Callable[[], float], start_ms: int | None, speed: float) -> None:
        self._clock = clock
        self._real = clock()
        self._base_ms = float(start_ms if start_ms is not None else int(self._real * 1000))
        self.speed = speed

    def now_ms(self) -> int:
        """The exchange's time in milliseconds."""
        return int(self._base_ms + (self._clock() - self._real) * 1000.0 * self.speed)

    def set(self, now_ms: float | None = None, speed: float | None = None) -> None:
        """Jump to a time and/or change the speed from now on."""
        base = float(self.now_ms()) if now_ms is None else now_ms
        self._real = self._clock()
        self._base_ms = base
        if speed is not None:
            self.speed = speed
