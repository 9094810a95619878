"""Source and status of data: where it comes from and whether it is fresh."""

from enum import StrEnum


class DataSource(StrEnum):
    """Who said it. A service speaks with exactly one of them for its whole life."""

    KUCOIN = "kucoin"
    SANDBOX = "sandbox"


class DataStatus(StrEnum):
    """Whether a number may still be relied on."""

    FRESH = "fresh"
    STALE = "stale"
    UNAVAILABLE = "unavailable"
