"""Whether a price has moved by more than it usually does."""

import numpy as np

from app.configuration.domain.feed_rules import FeedRules
from app.foundation.decimal_math import to_millionths
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.segments import log_returns, newest

HOURS = 24
_BP = 10_000.0


def hourly_volatility(hourly: CandleSeries) -> float | None:
    """Standard deviation of the last day's hourly log returns; None with fewer bars or no move."""
    returns = log_returns(newest(hourly, Interval.HOUR, HOURS + 1))
    if not np.isfinite(returns).all():
        return None
    found = float(returns.std(ddof=1))
    return found if found > 0 else None


def has_moved(before: float, now: float, volatility: float | None, rules: FeedRules) -> bool:
    """Whether the way from one price to the other is beyond a limit that is set.

    Without a volatility only the limit in basis points can be judged.
    """
    if before <= 0 or now <= 0:
        return False
    move = abs(float(np.log(now / before)))
    if 0 < to_millionths(rules.move_bp) <= to_millionths(move * _BP):
        return True
    if volatility is None:
        return False
    return 0 < to_millionths(rules.move_volatilities) <= to_millionths(move / volatility)
