"""What members have done since they came in and how they move together, from bars in memory."""

import numpy as np

from app.configuration.domain.model import CorrelationRules
from app.market.domain.models import DAYS_A_YEAR, Interval
from app.market.domain.panel import Panel
from app.market.domain.return_statistics import correlations
from app.market.domain.segments import redenominations
from app.portfolio.domain.models import Member
from app.portfolio.domain.returns import SinceInclusion, since_inclusion


def figures(
    member: Member, hourly: Panel | None, daily: Panel | None, mark: float | None
) -> SinceInclusion:
    """From hourly closes, from daily ones where those do not reach back.

    Nothing is known of a member that was redenominated since: its price then was another unit.
    """
    begin = member.included_at.timestamp() * 1000
    reaches = hourly is not None and len(hourly.opened_ms) and hourly.opened_ms[0] <= begin
    panel = hourly if reaches else daily
    closes, bars = np.empty(0), 1.0
    if panel is not None and member.symbol in panel.symbols:
        column = panel.symbols.index(member.symbol)
        first = int(redenominations(panel)[column])
        if first and panel.opened_ms[first] > begin:
            return SinceInclusion(None, None, None)
        # A bar counts if it closed after the member came in.
        closes = panel.close[panel.opened_ms + panel.interval.ms > begin, column]
        bars = DAYS_A_YEAR * Interval.DAY.ms / panel.interval.ms
    price = member.inclusion_price
    return since_inclusion(None if price is None else float(price), mark, closes, bars)


def pairwise(
    panel: Panel | None, symbols: tuple[str, ...], days: int, rules: CorrelationRules
) -> dict[tuple[str, str], float]:
    """Known correlations of all pairs in the order of `symbols`; a missing pair is unknown."""
    if panel is None or not symbols:
        return {}
    matrix = correlations(panel, symbols, rules.basis, days, rules.min_common)
    return {
        (one, other): float(matrix[row, column])
        for row, one in enumerate(symbols)
        for column, other in enumerate(symbols)
        if row < column and np.isfinite(matrix[row, column])
    }
