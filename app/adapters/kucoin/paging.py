"""Which pages to ask for, and what an answer left out."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from app.adapters.kucoin.parse_candles import Rows
from app.market.domain.models import Funding

_DAY_MS: Final = 86_400_000
_LONGEST_INTERVAL_MS: Final = 8 * 3_600_000


def candle_pages(start_ms: int, end_ms: int, step_ms: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, last) opening times of pages of at most `size` candles opened in [start, end)."""
    first = -(-start_ms // step_ms) * step_ms
    while first < end_ms:
        last = min(first + (size - 1) * step_ms, (end_ms - 1) // step_ms * step_ms)
        yield first, last
        first = last + step_ms


def hole(
    rows: Rows, first_ms: int, last_ms: int, step_ms: int, *, is_age_known: bool = True
) -> tuple[int, int] | None:
    """The span from the first to the last candle missing between two opening times, if any.

    Where nobody knows since when there are candles none is missing before the first that came.
    """
    known = set(rows.opened_ms.tolist())
    if not is_age_known:
        first_ms = max(first_ms, min(known, default=last_ms + step_ms))
    missing = [moment for moment in range(first_ms, last_ms + 1, step_ms) if moment not in known]
    return (missing[0], missing[-1]) if missing else None


def funding_pages(start_ms: int, end_ms: int, days: int) -> Iterator[tuple[int, int]]:
    """Windows of so many days that cover [start, end], both ends included."""
    first = start_ms
    while first <= end_ms:
        last = min(first + days * _DAY_MS - 1, end_ms)
        yield first, last
        first = last + 1


def next_older(rows: Sequence[Funding], first_ms: int, asked_until_ms: int) -> int | None:
    """Up to when to ask again, or None when the answer can have left nothing out.

    How many rows one answer holds is not documented, so whenever one more settlement would fit
    before the oldest row, it is asked for. An answer that brings nothing older ends it.
    """
    moments = sorted({row.settled_ms for row in rows if row.settled_ms <= asked_until_ms})
    if not moments:
        return None
    gaps = [after - before for before, after in pairwise(moments)]
    spacing = min(gaps, default=_LONGEST_INTERVAL_MS)
    return moments[0] - 1 if moments[0] - spacing >= first_ms else None
