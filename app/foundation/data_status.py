"""Source and status of data: where it comes from and whether it is fresh."""

from enum import StrEnum


class DataSource(StrEnum):
    """Origin of market data; a service uses exactly one for its whole life."""

    KUCOIN = "kucoin"
    SANDBOX = "sandbox"


class DataStatus(StrEnum):
    """Usability of a value: current, too old, or missing."""

    FRESH = "fresh"
    STALE = "stale"
    UNAVAILABLE = "unavailable"
