"""Every environment variable, typed, nested and frozen; built once, read by the composition."""

import hashlib
import os
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.adapters.kucoin.limits import KucoinLimits
from app.foundation.data_status import DataSource
from app.foundation.sql.engines import DatabaseOptions

PREFIX = "MYSYMBOLS_"
CLIENT_VARIABLES = frozenset({"MYSYMBOLS_URL"})  # read by the command line, not by the service


HostName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.\-]*[A-Za-z0-9_])?$", to_lower=True)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KucoinVariables(_Part):
    """Where the exchange is, its quota, and how long requests may take."""

    base_url: str = "https://api-futures.kucoin.com"
    source: DataSource | None = Field(
        None, description="Who answers there; without it: kucoin for kucoin.com, else sandbox."
    )
    connect_timeout_s: float = Field(3.0, gt=0, le=60)
    read_timeout_s: float = Field(10.0, gt=0, le=120)
    total_timeout_s: float = Field(15.0, gt=0, le=300)
    quota_per_window: int = Field(2000, ge=100, le=100_000)
    concurrency: int = Field(12, ge=1, le=64)

    @model_validator(mode="after")
    def _known_scheme(self) -> Self:
        parts = urlsplit(self.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("base_url must be an http or https address")
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
        )


class DatabaseVariables(_Part):
    """SQLite file or PostgreSQL; pool figures apply to PostgreSQL."""

    url: str = "sqlite+aiosqlite:///var/my-symbols.sqlite3"
    pool_size: int = Field(10, ge=1, le=200)
    pool_recycle_s: int = Field(1800, ge=30, le=86_400)
    pool_pre_ping: bool = True
    pool_wait_s: float = Field(2.0, gt=0, le=60)
    slow_statement_s: float = Field(0.1, gt=0, le=60)

    @property
    def options(self) -> DatabaseOptions:
        return DatabaseOptions(
            url=self.url,
            pool_size=self.pool_size,
            pool_recycle_s=self.pool_recycle_s,
            pool_pre_ping=self.pool_pre_ping,
            pool_wait_s=self.pool_wait_s,
            slow_statement_s=self.slow_statement_s,
        )


class JobVariables(_Part):
    """Durable runs, kept beside the database."""

    poll_s: float = Field(1.0, ge=0.02, le=60)


class FeedVariables(_Part):
    """How the market comes in."""

    streaming: Literal["stream", "poll"] = Field(
        "stream", description="stream (asking where it is away) or poll (only ever asking)."
    )


class ReferenceVariables(_Part):
    """Another exchange whose prices confirm outliers; none is scored or traded."""

    exchange: Literal["none", "binance", "kraken", "coinbase"] = Field(
        "none", description="none, binance, kraken or coinbase; needs the extra `reference`."
    )
    base_url: str | None = Field(None, description="In place of the exchange's own address.")
    every_s: float = Field(60.0, ge=1, le=3_600)
    timeout_s: float = Field(10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _has_its_package(self) -> Self:
        if self.exchange != "none" and find_spec("ccxt") is None:
            raise ValueError("another exchange needs: pip install 'my-symbols[reference]'")
        return self

    @model_validator(mode="after")
    def _answers_before_it_is_asked_again(self) -> Self:
        if self.timeout_s > self.every_s:
            raise ValueError("timeout_s must not be longer than every_s")
        return self


class HttpVariables(_Part):
    """Where the service listens; loopback unless told otherwise."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[HostName, ...] = Field(
        (), description="Names of the service besides numeric addresses and localhost."
    )
    docs: bool = True
    cursor_secret: SecretStr | None = Field(
        None,
        min_length=12,
        description="Signs paging cursors; without it one is drawn once and kept in the database.",
    )
    read_timeout_s: float = Field(
        10.0, ge=0.1, le=300, description="For first byte and head of a request, and for its body."
    )
    max_connections: int = Field(
        4_096, ge=16, le=100_000, description="Fewer where the limit of descriptors demands it."
    )
    max_connections_per_address: int = Field(
        1_024, ge=4, le=100_000, description="At most half of all connections."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="Addresses or networks with no bound per address."
    )


class NotificationVariables(_Part):
    """Where notices may go."""

    allow_private: bool = Field(
        False, description="Let receivers lie in one's own network; else only public addresses."
    )
    keys: SecretStr | None = Field(
        None,
        description="Fernet keys that seal addresses and secrets, the newest first, by commas; "
        "without one a file beside an SQLite database, and none on PostgreSQL.",
    )

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, given: SecretStr | None) -> SecretStr | None:
        for key in _listed(given):
            try:
                size = len(urlsafe_b64decode(key))
            except ValueError:
                size = 0
            if size != 32:
                raise ValueError("each key must be 32 bytes in URL-safe base64")
        return given

    @property
    def key_list(self) -> tuple[str, ...]:
        return _listed(self.keys)


def _listed(keys: SecretStr | None) -> tuple[str, ...]:
    parts = "" if keys is None else keys.get_secret_value()
    return tuple(one.strip() for one in parts.split(",") if one.strip())


class Role(StrEnum):
    """What a process does of all that the service does."""

    ALL = "all"
    API = "api"
    WORKER = "worker"


class LogVariables(_Part):
    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["json", "console"] = "json"


class Settings(BaseSettings):
    """MYSYMBOLS_KUCOIN__BASE_URL in the environment becomes settings.kucoin.base_url."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    kucoin: KucoinVariables = KucoinVariables()
    database: DatabaseVariables = DatabaseVariables()
    feed: FeedVariables = FeedVariables()
    jobs: JobVariables = JobVariables()
    reference: ReferenceVariables = ReferenceVariables()
    http: HttpVariables = HttpVariables()
    notifications: NotificationVariables = NotificationVariables()
    log: LogVariables = LogVariables()
    background: bool = Field(True, description="Run the feed, scoring and checks by themselves.")
    role: Role = Field(
        Role.ALL, description="all, api (answers, never reads the exchange) or worker."
    )

    @property
    def digest(self) -> str:
        """Of what processes that share a database must agree on; twelve digits, no secret in it."""
        secret = self.http.cursor_secret
        agreed = (
            self.kucoin.base_url,
            self.kucoin.data_source.value,
            None if secret is None else secret.get_secret_value(),
            self.notifications.allow_private,
            self.notifications.key_list,
            self.feed.streaming,  # age limits follow it
        )
        return hashlib.sha256(repr(agreed).encode()).hexdigest()[:12]

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variables(cls, values: object) -> object:
        unknown = unknown_variables(os.environ)
        if unknown:
            raise ValueError("unknown variables: " + ", ".join(unknown))
        return values


def known_variables() -> dict[str, str]:
    """Variable name -> default as text, for the README, the compose file and their tests."""
    table: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, _Part):
            for inner in type(default).model_fields:
                value = getattr(default, inner)
                table[f"{PREFIX}{name}__{inner}".upper()] = "" if value is None else str(value)
        else:
            table[f"{PREFIX}{name}".upper()] = str(default)
    return table


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Names with our prefix that mean nothing to us: a misspelt setting must not be ignored."""
    known = known_variables().keys() | CLIENT_VARIABLES
    return sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX) and name.upper() not in known
    )
