"""Retry budget of requests to the exchange, and the wait after its capacity errors."""

from app.adapters.kucoin.limits import Dice, KucoinLimits


class RetryBudget:
    """Every call pays in a tenth of a retry; a retry takes a whole one."""

    def __init__(self, limits: KucoinLimits) -> None:
        self._limits = limits
        self._saved = limits.retry_reserve

    def call(self) -> None:
        self._saved = min(self._saved + self._limits.retry_share, self._limits.retry_reserve)

    def spend(self) -> bool:
        """Whether one more retry is allowed; if so it is paid for."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def capacity_wait_s(limits: KucoinLimits, dice: Dice) -> float:
    """The short pause after "system busy", which is not our quota."""
    low, high = limits.capacity_wait_s
    return low + (high - low) * dice.random()
