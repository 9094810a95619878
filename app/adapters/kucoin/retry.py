"""When to try again: full jitter between attempts, and a budget so that retries stay few."""

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


def backoff_s(limits: KucoinLimits, attempt: int, dice: Dice) -> float:
    """Full jitter: anywhere between nothing and first * 2^(attempt-1), capped; attempt from 1."""
    ceiling = min(limits.backoff_first_s * 2.0 ** (attempt - 1), limits.backoff_cap_s)
    return dice.random() * ceiling


def capacity_wait_s(limits: KucoinLimits, dice: Dice) -> float:
    """The short pause after "system busy", which is not our quota."""
    low, high = limits.capacity_wait_s
    return low + (high - low) * dice.random()
