"""Rate limits: names, quotas, the limits that a request counts against, and waiting times."""

from dataclasses import dataclass
from enum import StrEnum
from math import floor

from app.foundation.principals import Principal, PrincipalKind, Role, RouteLimit, Scope


class LimitName(StrEnum):
    """Name of a limit, as in the header RateLimit."""

    REQUESTS = "requests"
    CHANGES = "changes"
    SIGNALS = "signals"
    HEAVY = "heavy"
    PREVIEWS = "previews"
    ADDRESS = "address"
    OPEN_MODE = "open_mode"


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Quotas: requests per second, and of heavy routes and previews per minute."""

    requests_per_s: int = 50
    changes_per_s: int = 20
    signals_per_s: int = 60
    heavy_per_min: int = 6
    previews_per_min: int = 120
    address_per_s: int = 100
    open_mode_per_s: int = 500

    def quota(self, limit: LimitName) -> tuple[int, int]:
        """Number of requests, and the window in seconds."""
        match limit:
            case LimitName.REQUESTS:
                return self.requests_per_s, 1
            case LimitName.CHANGES:
                return self.changes_per_s, 1
            case LimitName.SIGNALS:
                return self.signals_per_s, 1
            case LimitName.HEAVY:
                return self.heavy_per_min, 60
            case LimitName.PREVIEWS:
                return self.previews_per_min, 60
            case LimitName.ADDRESS:
                return self.address_per_s, 1
            case LimitName.OPEN_MODE:
                return self.open_mode_per_s, 1


def limits_of(
    principal: Principal, site: str, *, is_change: bool, route: RouteLimit | None
) -> tuple[tuple[LimitName, str], ...]:
    """Limits that a request counts against, each with the identity that is counted.

    All keys of one name share their limits, so that a rotation gives no second quota. `site` is the
    address of the client. Its callers without a valid credential have a count of their own, so that
    they use up no request of a valid key. In open mode one limit holds for all callers together.
    """
    if principal.kind is PrincipalKind.LOCAL:
        return ((LimitName.OPEN_MODE, ""),)
    if principal.kind is PrincipalKind.ANONYMOUS:
        return ((LimitName.ADDRESS, f"{principal.actor} {site}"),)
    identity = principal.actor
    if route is RouteLimit.SIGNALS and Scope.SIGNALS in principal.scopes:
        general = LimitName.SIGNALS
    elif is_change and principal.role is not None and principal.role.includes(Role.TRADER):
        general = LimitName.CHANGES
    else:
        general = LimitName.REQUESTS
    if route is RouteLimit.HEAVY:
        return (general, identity), (LimitName.ADDRESS, site), (LimitName.HEAVY, identity)
    if route is RouteLimit.PREVIEW:
        return (general, identity), (LimitName.ADDRESS, site), (LimitName.PREVIEWS, identity)
    return (general, identity), (LimitName.ADDRESS, site)


@dataclass(frozen=True, slots=True)
class WindowCount:
    """Requests in the current window and in the one before; `left_s` until the current one ends.

    The window before counts by the share that a sliding window still covers.
    """

    previous: int
    current: int
    left_s: float
    window_s: int

    @property
    def used(self) -> int:
        """Requests within the sliding window, rounded down."""
        return floor(self.previous * self.left_s / self.window_s + self.current)

    def wait_s(self, quota: int) -> float:
        """Seconds until the next request is within the quota; 0 if it is now."""
        if self.used < quota:
            return 0.0
        if self.current < quota:  # the share of the previous window must shrink
            return max(0.0, self.left_s - (quota - self.current) * self.window_s / self.previous)
        return self.left_s + max(0.0, self.window_s - quota * self.window_s / self.current)
