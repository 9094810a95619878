"""The last bars of a universe in a ring, with the state that makes a closed bar cheap."""

from dataclasses import dataclass, field

import numpy as np

from app.market.domain.models import Floats
from app.research.domain.correlation_kernel import MEAN_CORRELATION
from app.scoring.domain.kernels.indicators import INDICATORS, TAKE, fresh_state

_FIELDS = 5  # high, low, close, volume, log return


@dataclass(slots=True, eq=False)
class Ring:
    """`capacity` rows of N symbols, the newest over the oldest.

    Log returns are worked out once, as a bar comes in. Indicators go on from all bars that ever
    came; the correlation looks at those that are still here.
    """

    symbols: int
    capacity: int
    _rows: int = field(default=0, init=False)
    _bars: Floats = field(init=False)
    _state: Floats = field(init=False)
    _told: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._bars = np.full((_FIELDS, self.capacity, self.symbols), np.nan)
        self._state = fresh_state(self.symbols)
        self._told = np.full((INDICATORS, 1, self.symbols), np.nan)

    def close_bar(self, high: Floats, low: Floats, close: Floats, volume: Floats) -> Floats:
        """One closed bar of all symbols, (N,) each, NaN where there is none; gives (9, N).

        What is given is written over by the next bar.
        """
        bars, at = self._bars, self._rows % self.capacity
        before = bars[2, at - 1]  # of an empty ring: nothing
        with np.errstate(divide="ignore", invalid="ignore"):
            np.log(close / before, out=bars[4, at])
        bars[0, at], bars[1, at], bars[2, at], bars[3, at] = high, low, close, volume
        one = slice(at, at + 1)
        TAKE(
            self._state, bars[0, one], bars[1, one], bars[2, one], bars[3, one], bars[4, one],
            self._told, False,
        )  # fmt: skip
        self._rows += 1
        return self._told[:, 0]

    def mean_correlation(self) -> Floats:
        """(N,) of the returns in the ring; NaN for a symbol that lacks one, or never moved.

        The first row of all has no return and is left out.
        """
        held = min(self._rows, self.capacity)
        first = 1 if self._rows <= self.capacity else 0
        out = np.full(self.symbols, np.nan)
        if held - first > 1:
            MEAN_CORRELATION(self._bars[4, first:held], out)
        return out
