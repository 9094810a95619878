"""Where a history breaks: what lies before a break is another thing of the same name.

After a halt, a new listing under an old name or a redenomination no window may reach back: its
returns, means and highs would compare what cannot be compared.
"""

from typing import Final

import numpy as np

from app.domain.market import Interval, Ints
from app.domain.panel import FIELDS, LONGEST_BRIDGE, Panel

_HALT: Final = {Interval.DAY: LONGEST_BRIDGE, Interval.HOUR: 24}  # bars; more in a row are a break
_LEAST_POWER: Final = 1  # of ten: coins are exchanged one to ten, a hundred, a thousand
_NEAR: Final = 0.15  # of a power of ten, in decimal logarithms: a day's move beside it


def breaks(panel: Panel) -> Ints:
    """(N,) row of the first bar after the last break of each symbol; 0 without any.

    A break is a gap longer than a halt may be, or an open that stands a power of ten away from the
    close before it: no market that never closes moves so between two bars.
    """
    known = np.isfinite(panel.close)
    rows = np.arange(len(known))[:, None]
    seen = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    before = np.vstack([np.full((1, known.shape[1]), -1, dtype=seen.dtype), seen[:-1]])
    follows = known & (before >= 0)
    halted = follows & (rows - before - 1 > _HALT[panel.interval])
    last = np.take_along_axis(panel.close, np.maximum(before, 0), axis=0) if len(rows) else before
    with np.errstate(all="ignore"):
        power = np.log10(panel.open / last)
    whole = np.rint(power)
    redenominated = follows & (np.abs(whole) >= _LEAST_POWER) & (np.abs(power - whole) < _NEAR)
    first = np.max(np.where(halted | redenominated, rows, 0), axis=0, initial=0)
    return np.asarray(first, np.int64)


def unbroken(panel: Panel) -> Panel:
    """The same without the bars before the last break of each symbol."""
    first = breaks(panel)
    if not first.any():
        return panel
    there = np.arange(len(panel.opened_ms))[:, None] >= first
    fields = {name: np.where(there, getattr(panel, name), np.nan) for name in FIELDS}
    return Panel(panel.interval, panel.symbols, panel.opened_ms, **fields)
