"""Variables of the exchanges: KuCoin, its market data feed and the reference exchange."""

from importlib.util import find_spec
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from app.adapters.kucoin.limiter import KucoinLimits
from app.foundation.data_status import DataSource
from app.settings.declarations import SettingsPart


class KucoinVariables(SettingsPart):
    """KuCoin: address, request quota and timeouts."""

    base_url: str = Field(
        "https://api-futures.kucoin.com", description="Address of the futures API."
    )
    source: DataSource | None = Field(
        None,
        description="Label of the data source; without it `kucoin` for kucoin.com, else `sandbox`.",
    )
    connect_timeout_s: float = Field(3.0, gt=0, le=60, description="Time limit to connect.")
    read_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Time limit between two parts of an answer."
    )
    total_timeout_s: float = Field(
        15.0, gt=0, le=300, description="Time limit of one request with its retries."
    )
    quota_per_window: int = Field(
        2000, ge=100, le=100_000, description="Request weight in each window of 30 seconds."
    )
    concurrency: int = Field(12, ge=1, le=64, description="Largest number of requests at once.")
    breaker_failures: int = Field(
        5, ge=1, le=1_000, description="Failures in a row that open the circuit breaker."
    )
    breaker_probe_s: float = Field(
        15.0,
        gt=0,
        le=600,
        description="Interval between two probes while the circuit breaker is open.",
    )

    @model_validator(mode="after")
    def _known_scheme(self) -> Self:
        parts = urlsplit(self.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise ValueError("base_url must be an http or https address without user and password")
        return self

    @property
    def data_source(self) -> DataSource:
        if self.source is not None:
            return self.source
        host = urlsplit(self.base_url).hostname or ""
        official = host == "kucoin.com" or host.endswith(".kucoin.com")
        return DataSource.KUCOIN if official else DataSource.SANDBOX

    @property
    def limits(self) -> KucoinLimits:
        return KucoinLimits(
            connect_timeout_s=self.connect_timeout_s,
            read_timeout_s=self.read_timeout_s,
            total_timeout_s=self.total_timeout_s,
            quota=self.quota_per_window,
            breaker_consecutive=self.breaker_failures,
            breaker_probe_s=self.breaker_probe_s,
        )


class FeedVariables(SettingsPart):
    """Market data feed."""

    mode: Literal["stream", "poll"] = Field(
        "stream",
        description="`stream` (WebSocket, with polling while it is unavailable) or `poll` (REST"
        " only).",
    )


class ReferenceVariables(SettingsPart):
    """Reference exchange, whose prices confirm outliers; it is never scored or traded."""

    exchange: Literal["none", "binance", "kraken", "coinbase"] = Field(
        "none", description="`none`, `binance`, `kraken` or `coinbase`; needs extra `reference`."
    )
    base_url: str | None = Field(
        None, description="Address in place of the exchange's own, for tests."
    )
    interval_s: float = Field(60.0, ge=1, le=3_600, description="Interval between two polls.")
    timeout_s: float = Field(10.0, gt=0, le=60, description="Time limit of one poll.")

    @model_validator(mode="after")
    def _has_its_package(self) -> Self:
        if self.exchange != "none" and find_spec("ccxt") is None:
            raise ValueError("another exchange needs: pip install 'my-symbols[reference]'")
        return self

    @field_validator("base_url")
    @classmethod
    def _holds_no_password(cls, base_url: str | None) -> str | None:
        if base_url is not None and "@" in urlsplit(base_url).netloc:
            raise ValueError("base_url must be an address without user and password")
        return base_url

    @model_validator(mode="after")
    def _times_out_before_the_next_poll(self) -> Self:
        if self.timeout_s > self.interval_s:
            raise ValueError("timeout_s must not be longer than interval_s")
        return self
