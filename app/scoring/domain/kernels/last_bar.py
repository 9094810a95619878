"""The nine indicators at the newest bar of each symbol, and what follows from them."""

import numpy as np

from app.market.domain.models import Floats
from app.scoring.domain.kernels.indicators import ATR, HISTOGRAM, INDICATORS, TAKE, fresh_state


def at_last_bar(
    high: Floats, low: Floats, close: Floats, volume: Floats, returns: Floats
) -> Floats:
    """(T, N) bars to (9, N): each symbol's values at its own last bar, NaN without enough."""
    out = np.full((INDICATORS, 1, close.shape[1]), np.nan)
    if len(close):
        # Another layout in memory would be compiled anew, for seconds.
        state, whole = fresh_state(close.shape[1]), np.ascontiguousarray
        TAKE(
            state, whole(high), whole(low), whole(close), whole(volume), whole(returns), out, False
        )
    return out[:, 0]


def histogram_in_ranges(told: Floats) -> Floats:
    """MACD histogram in ATR14, comparable between coins: (9, ...) to (...), NaN for no range."""
    reach = told[ATR]
    return np.asarray(told[HISTOGRAM] / np.where(reach > 0.0, reach, np.nan), np.float64)
