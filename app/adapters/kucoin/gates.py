"""Temporary bans: of one endpoint after code 200002, of everything after a 1015 page."""

import math
from collections.abc import Callable

from app.adapters.kucoin.limits import Endpoint, KucoinLimits
from app.foundation.errors import Code, UnavailableError


class Gates:
    """Closed doors and when they open. A new ban right after one lasts twice as long."""

    def __init__(self, limits: KucoinLimits, *, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._banned_until = -math.inf
        self._ban_s = 0.0
        self._endpoints: dict[Endpoint, float] = {}

    def ban(self, sent_at: float) -> None:
        """A 1015 page came to a request sent at `sent_at`.

        Requests that were in flight when the ban fell bring the same news again: they do not
        lengthen it.
        """
        if sent_at < self._banned_until:
            return
        limits = self._limits
        self._ban_s = min(self._ban_s * 2 or limits.ban_first_s, limits.ban_cap_s)
        self._banned_until = self._monotonic() + self._ban_s

    def close(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint] = self._monotonic() + self._limits.endpoint_closed_s

    def passed(self, sent_at: float) -> None:
        """A request sent at `sent_at` was answered by the exchange itself: any ban is over."""
        if sent_at >= self._banned_until:
            self._ban_s = 0.0

    def banned_for(self) -> float:
        return max(0.0, self._banned_until - self._monotonic())

    def wait(self, endpoint: Endpoint) -> float:
        """Seconds until a request to `endpoint` may leave; zero when it may now."""
        closed_until = self._endpoints.get(endpoint, -math.inf)
        return max(self.banned_for(), closed_until - self._monotonic(), 0.0)

    def refusal(self, endpoint: Endpoint) -> UnavailableError:
        """What to tell a caller that cannot wait so long."""
        retry_after_s = float(max(1, math.ceil(self.wait(endpoint))))
        if self.banned_for() > 0:
            return UnavailableError(
                Code.EXCHANGE_BANNED,
                "the exchange's front end has blocked this address for a while",
                retry_after_s=retry_after_s,
            )
        return UnavailableError(
            Code.EXCHANGE_RATE_LIMITED,
            "the exchange asked for a pause on this endpoint",
            retry_after_s=retry_after_s,
        )
