"""Limits of KuCoin's REST interface, retry and patience settings, and endpoint weights."""

from dataclasses import dataclass
from typing import Final, Protocol


class RandomSource(Protocol):
    """Source of random numbers in [0, 1)."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Public route and its weight in the public pool."""

    path: str  # may hold {symbol}
    weight: int
    exact: bool = True  # whether numbers are parsed as decimals; values used as floats need not be
    method: str = "GET"


CONTRACTS: Final = Endpoint("/api/v1/contracts/active", 3)
CONTRACT: Final = Endpoint("/api/v1/contracts/{symbol}", 3)
TICKERS: Final = Endpoint("/api/v1/allTickers", 5)
TICKER: Final = Endpoint("/api/v1/ticker", 2)
KLINE: Final = Endpoint("/api/v1/kline/query", 3, exact=False)
DEPTH100: Final = Endpoint("/api/v1/level2/depth100", 10)  # 5 in some sources
FUNDING_NOW: Final = Endpoint("/api/v1/funding-rate/{symbol}/current", 2)
FUNDING_HISTORY: Final = Endpoint("/api/v1/contract/funding-rates", 5)
MARK_PRICE: Final = Endpoint("/api/v1/mark-price/{symbol}/current", 3)
TIMESTAMP: Final = Endpoint("/api/v1/timestamp", 2)
STATUS: Final = Endpoint("/api/v1/status", 4)
BULLET: Final = Endpoint("/api/v1/bullet-public", 10, method="POST")


@dataclass(frozen=True, slots=True)
class KucoinLimits:
    """Numbers in seconds, bytes and weights; the defaults are those of the protocol."""

    # One request
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    total_timeout_s: float = 15.0
    body_bytes: int = 8 * 1024 * 1024  # after decompression
    connections: int = 64
    thread_bytes: int = 64 * 1024  # a longer body is decoded outside the event loop
    # One call: how long it may wait for its turn and for its retries
    patience_s: float = 60.0
    tries: int = 3
    backoff_first_s: float = 0.2
    backoff_cap_s: float = 5.0
    capacity_retries: int = 2
    capacity_wait_s: tuple[float, float] = (0.1, 1.0)
    retry_share: float = 0.1  # retries per call, in the long run
    retry_reserve: float = 10.0  # retries that can accumulate
    # The public pool
    quota: int = 2000
    window_s: float = 30.0
    margin_share: float = 0.025  # of the quota, left for answers that cross in flight
    closed_default_s: float = 30.0
    closed_cap_s: float = 60.0
    closed_jitter: float = 0.1
    endpoint_closed_s: float = 10.0
    ban_first_s: float = 30.0
    ban_cap_s: float = 900.0
    # The breaker
    breaker_consecutive: int = 5
    breaker_share: float = 0.5
    breaker_calls: int = 20
    breaker_window_s: float = 30.0
    breaker_probe_s: float = 15.0
    # Paging
    candles_per_page: int = 200  # right under both documented limits, 200 and 500
    funding_page_days: int = 14
