"""Environment variables of a process: typed, nested, frozen; read once at start."""

import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from enum import Enum, StrEnum
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import unquote, urlsplit

from annotated_types import Gt
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
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.adapters.kucoin.limiter import KucoinLimits
from app.foundation.data_status import DataSource
from app.foundation.http.certificate import CertificateFiles
from app.foundation.http.stream_slots import STREAMS_PER_PRINCIPAL
from app.foundation.sql.engines import DatabaseOptions
from app.security.domain.addresses import is_loopback
from app.security.domain.keys import MAX_PEPPERS, pepper_fault, split_peppers
from app.security.domain.people import SessionPolicy
from app.security.domain.rate_limits import RateLimits
from app.security.domain.sealing import sealing_key_fault, split_sealing_keys
from app.security.services.peppers import NEW_PEPPER
from app.security.services.sealing import NEW_KEY

PREFIX = "MYSYMBOLS_"
DATABASE_URL = "DATABASE_URL"
SECRET_KEY = "SECRET_KEY"  # noqa: S105  # the name of a variable
_DATABASE_VARIABLE = f"{PREFIX}DATABASE__URL"
_CURSOR_VARIABLE = f"{PREFIX}HTTP__CURSOR_SECRET"
_PEPPER_VARIABLE = f"{PREFIX}SECURITY__PEPPER"
_PEPPER_VARIABLES = frozenset({_PEPPER_VARIABLE, f"{PREFIX}SECURITY__PEPPER_FILE"})
_PEPPER_LABEL = b"my-symbols pepper of API keys"
# Names of other frameworks, and what to set instead.
_UNUSED_VARIABLES = {
    "DEBUG": f"{PREFIX}LOG__LEVEL=debug logs more",
    "FLASK_ENV": f"{PREFIX}ROLE and {PREFIX}LOG__LEVEL choose how a process runs",
}
_SPELLING_CUTOFF = 0.6
_MAX_RATE = 1_000_000
# Read by the command line only.
CLIENT_VARIABLES = frozenset({"MYSYMBOLS_URL", "MYSYMBOLS_KEY", "MYSYMBOLS_CA_FILE"})


HostName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_.\-]*[A-Za-z0-9_])?$", to_lower=True)
]

# Neither `*` nor `null`: each would let pages of strangers in.
OriginText = Annotated[
    str,
    StringConstraints(
        pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(:[0-9]{1,5})?$",
        to_lower=True,
    ),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KucoinVariables(_Part):
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


class DatabaseVariables(_Part):
    """Database: SQLite file or PostgreSQL; age and test of connections apply to PostgreSQL."""

    url: str = Field(
        "sqlite+aiosqlite:///var/my-symbols.sqlite3",
        repr=False,  # it may hold a password
        description="Address of the database, such as postgresql+asyncpg://user:password@host/name.",
    )
    pool_size: int = Field(
        20,
        ge=1,
        le=200,
        description="Number of pooled connections of each process; SQLite reads with at most 10.",
    )
    pool_recycle_s: int = Field(
        3600, ge=30, le=86_400, description="Age at which a connection is replaced."
    )
    pool_pre_ping: bool = Field(True, description="Test a pooled connection before its use.")
    pool_wait_s: float = Field(
        2.0, gt=0, le=60, description="Time limit to obtain a pooled connection."
    )
    slow_statement_s: float = Field(
        0.1, gt=0, le=60, description="Duration from which a statement is logged as slow."
    )
    log_statements: bool = Field(
        False, description="Log every SQL statement with its duration, without its parameters."
    )

    @property
    def options(self) -> DatabaseOptions:
        return DatabaseOptions(
            url=self.url,
            pool_size=self.pool_size,
            pool_recycle_s=self.pool_recycle_s,
            pool_pre_ping=self.pool_pre_ping,
            pool_wait_s=self.pool_wait_s,
            slow_statement_s=self.slow_statement_s,
            log_statements=self.log_statements,
        )


class JobVariables(_Part):
    """Durable jobs, stored beside the database."""

    poll_s: float = Field(
        1.0, ge=0.02, le=60, description="Interval at which the job queue is polled."
    )


class FeedVariables(_Part):
    """Market data feed."""

    mode: Literal["stream", "poll"] = Field(
        "stream",
        description="`stream` (WebSocket, with polling while it is unavailable) or `poll` (REST"
        " only).",
    )


class ReferenceVariables(_Part):
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


class HttpVariables(_Part):
    """HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0: any free port.")
    cors_origins: tuple[OriginText, ...] = Field(
        (), description="Browser origins that may call the API, as a JSON list."
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description="Host names of the service, as a JSON list; numeric addresses and localhost are"
        " always allowed.",
    )
    public_url: str | None = Field(
        None,
        description="Public address of the service, such as https://symbols.example: for links in"
        " notifications, which have none without it.",
    )
    docs: bool = Field(
        True, description="Serve `/docs` and `/openapi.json`; with keys, to viewers only."
    )
    cursor_secret: SecretStr | None = Field(
        None,
        min_length=12,
        description="Key that signs paging cursors; without it a random one is stored in the"
        " database.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate and its chain; it switches TLS on."
    )
    tls_key: Path | None = Field(None, description="PEM file with the private key.")
    tls_key_password_file: Path | None = Field(
        None, description="File with the password of the private key, if it is encrypted."
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
        (),
        description="Reverse proxies: their X-Forwarded-For and X-Forwarded-Proto count, and they"
        " have no bound of connections per address. A JSON list of addresses and networks.",
    )
    allowed_addresses: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Addresses and networks of clients, as a JSON list; every other one is refused,"
        " except this machine. An empty list allows all.",
    )

    @field_validator("public_url")
    @classmethod
    def _is_plain_address(cls, public_url: str | None) -> str | None:
        if public_url is None:
            return None
        parts = urlsplit(public_url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        if not is_address or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "public_url must be an http or https address without user, query and fragment"
            )
        return public_url.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _trusts_no_whole_internet(
        cls, networks: tuple[IPv4Network | IPv6Network, ...]
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        # Every client could then name itself, past allow lists, limits and the security log.
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("trusted_proxies must name proxies, not every address")
        return networks

    @model_validator(mode="after")
    def _has_certificate_and_key(self) -> Self:
        has_key = self.tls_key is not None
        if has_key != (self.tls_certificate is not None):
            raise ValueError("TLS needs both tls_certificate and tls_key")
        if self.tls_key_password_file is not None and not has_key:
            raise ValueError("tls_key_password_file needs a tls_key")
        return self

    @property
    def certificate_files(self) -> CertificateFiles | None:
        """Files of the certificate; None without TLS."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return CertificateFiles(self.tls_certificate, self.tls_key, self.tls_key_password_file)


class NotificationVariables(_Part):
    """Delivery of notifications."""

    allow_private_addresses: bool = Field(
        False, description="Allow receivers at private addresses and over plain HTTP."
    )


class SecurityVariables(_Part):
    """API keys, sessions and stored secrets."""

    pepper: SecretStr | None = Field(
        None,
        description="Secret under which API keys are hashed, the same in every process; two during"
        " a rotation, the newest first, separated by a comma. Without one a file beside an SQLite"
        " database.",
    )
    pepper_file: Path | None = Field(None, description="File that holds the pepper instead.")
    directory: Path | None = Field(
        None,
        description="Directory of the local key file; without it that of an SQLite database, and"
        " none on PostgreSQL.",
    )
    sealing_keys: SecretStr | None = Field(
        None,
        description="Keys from `my-symbols secrets new-key` that seal stored secrets, the newest"
        " first, separated by commas; the same in every process. Without one a file beside an"
        " SQLite database, and none on PostgreSQL.",
    )
    sealing_keys_file: Path | None = Field(
        None, description="File that holds the sealing keys instead; a change needs no restart."
    )

    @model_validator(mode="after")
    def _has_good_sealing_keys(self) -> Self:
        if self.sealing_keys is not None and self.sealing_keys_file is not None:
            raise ValueError("set either sealing_keys or a sealing_keys_file")
        try:
            keys = self.sealing_key_list
        except (OSError, ValueError):
            raise ValueError("the sealing_keys_file cannot be read as text") from None
        if self.sealing_keys_file is not None and not keys:
            raise ValueError("the sealing_keys_file holds no key")
        for key in keys:
            if (fault := sealing_key_fault(key)) is not None:
                raise ValueError(f"sealing_keys: {fault}; create one with: {NEW_KEY}")
        return self

    @property
    def sealing_key_list(self) -> tuple[str, ...]:
        """Sealing keys, the newest first. Raises OSError and ValueError for an unreadable file."""
        if self.sealing_keys_file is not None:
            return split_sealing_keys(self.sealing_keys_file.read_text(encoding="utf-8"))
        keys = self.sealing_keys
        return () if keys is None else split_sealing_keys(keys.get_secret_value())

    session_idle_s: int = Field(
        1_800, ge=60, le=86_400, description="An unused session ends after that time."
    )
    session_lifetime_s: int = Field(
        43_200, ge=300, le=2_592_000, description="Each session ends after that time."
    )
    allow_plain_sessions: bool = Field(
        False, description="Allow log-ins from other machines without TLS."
    )
    four_eyes: bool = Field(
        False, description="Refuse that a caller approves the proposal of its own signal."
    )

    @property
    def session_policy(self) -> SessionPolicy:
        return SessionPolicy(
            timedelta(seconds=self.session_idle_s),
            timedelta(seconds=self.session_lifetime_s),
            self.allow_plain_sessions,
        )

    @model_validator(mode="after")
    def _has_good_peppers(self) -> Self:
        if self.pepper is not None and self.pepper_file is not None:
            raise ValueError("set either a pepper or a pepper_file")
        try:
            peppers = self.pepper_list
        except (OSError, ValueError):
            raise ValueError("the pepper_file cannot be read as text") from None
        is_empty = self.pepper_file is not None and not peppers
        if len(peppers) > MAX_PEPPERS or is_empty:
            raise ValueError(f"one pepper is needed, or {MAX_PEPPERS} during a rotation")
        for pepper in peppers:
            if (fault := pepper_fault(pepper)) is not None:
                raise ValueError(f"{fault}; create one with: {NEW_PEPPER}")
        return self

    @property
    def pepper_list(self) -> tuple[str, ...]:
        """Peppers, the newest first. Raises OSError and ValueError for an unreadable file."""
        if self.pepper_file is not None:
            return split_peppers(self.pepper_file.read_text(encoding="utf-8"))
        return () if self.pepper is None else split_peppers(self.pepper.get_secret_value())


class LimitVariables(_Part):
    """Rate limits of requests; beyond one of them the answer is 429."""

    requests_per_s: int = Field(
        50, ge=1, le=_MAX_RATE, description="Requests of one principal, such as an API key."
    )
    changes_per_s: int = Field(
        20,
        ge=1,
        le=_MAX_RATE,
        description="Requests of one trader or a higher role with another method than GET.",
    )
    signals_per_s: int = Field(
        60, ge=1, le=_MAX_RATE, description="Signals of one principal with the scope `signals`."
    )
    heavy_per_min: int = Field(
        6,
        ge=1,
        le=_MAX_RATE,
        description="Scoring runs, replays of them and reports of one principal, each minute.",
    )
    previews_per_min: int = Field(
        120,
        ge=1,
        le=_MAX_RATE,
        description="Previews of changed settings of one principal, each minute.",
    )
    address_per_s: int = Field(
        100, ge=1, le=_MAX_RATE, description="Requests of one IPv4 address or /64 network of IPv6."
    )
    open_mode_per_s: int = Field(
        500, ge=1, le=_MAX_RATE, description="Requests of all callers together in open mode."
    )

    streams_per_principal: int = Field(
        STREAMS_PER_PRINCIPAL,
        ge=1,
        le=_MAX_RATE,
        description="Open event streams of one principal: WebSocket and server-sent events.",
    )
    streams: int = Field(
        1_000, ge=1, le=_MAX_RATE, description="Open event streams of all callers together."
    )

    @property
    def rate_limits(self) -> RateLimits:
        return RateLimits(
            requests_per_s=self.requests_per_s,
            changes_per_s=self.changes_per_s,
            signals_per_s=self.signals_per_s,
            heavy_per_min=self.heavy_per_min,
            previews_per_min=self.previews_per_min,
            address_per_s=self.address_per_s,
            open_mode_per_s=self.open_mode_per_s,
        )


class ProcessRole(StrEnum):
    """Part of the service that a process runs."""

    ALL = "all"
    API = "api"
    WORKER = "worker"


class LogVariables(_Part):
    """Log output."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level: `debug`, `info`, `warning` or `error`."
    )
    format: Literal["json", "console"] = Field(
        "json", description="`json` (one object a line) or `console` (for a terminal)."
    )
    file: Path | None = Field(
        None,
        description="File of the log in place of standard error; each process needs its own.",
    )
    file_bytes: int = Field(
        50_000_000,
        ge=1_000,
        le=10_000_000_000,
        description="Size at which the file is renamed and a new one begun.",
    )
    file_count: int = Field(
        5, ge=1, le=1_000, description="Number of earlier files that stay: `.1` is the newest."
    )


class _PlainVariables(EnvSettingsSource):
    """DATABASE_URL and SECRET_KEY, which other services read too, below the MYSYMBOLS_ variables.

    SECRET_KEY is the cursor secret and, where no pepper file can exist, the pepper of API keys. It
    never seals secrets: a changed key would lose them.
    """

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for one in plain_variables(os.environ):
            if one.target == _DATABASE_VARIABLE:
                values["database"] = {"url": os.environ[DATABASE_URL]}
            elif one.target == _CURSOR_VARIABLE:
                values["http"] = {"cursor_secret": os.environ[SECRET_KEY]}
            elif one.target == _PEPPER_VARIABLE:
                key = os.environ[SECRET_KEY].encode()
                pepper = hmac.new(key, _PEPPER_LABEL, hashlib.sha256).hexdigest()
                values["security"] = {"pepper": pepper}
        return values


class Settings(BaseSettings):
    """Settings; the variable MYSYMBOLS_KUCOIN__BASE_URL becomes settings.kucoin.base_url."""

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
    security: SecurityVariables = SecurityVariables()
    limits: LimitVariables = LimitVariables()
    log: LogVariables = LogVariables()
    debug: bool = Field(
        False,
        description="For development on this machine: log SQL statements and debug lines, serve"
        " `/debug/portfolio`. Refused where the service listens beyond loopback.",
    )
    run_background_tasks: bool = Field(
        True, description="Run feed, scoring and checks in this process."
    )
    role: ProcessRole = Field(
        ProcessRole.ALL,
        description="`all`, `api` (serves requests, never calls the exchange) or `worker`.",
    )

    @property
    def log_level(self) -> Literal["debug", "info", "warning", "error"]:
        """Lowest level of the log."""
        return "debug" if self.debug else self.log.level

    @property
    def database_options(self) -> DatabaseOptions:
        """Options of the database; debugging logs every statement."""
        options = self.database.options
        return replace(options, log_statements=True) if self.debug else options

    @property
    def debug_fault(self) -> str | None:
        """Reason against debugging at the address to listen on; None if there is none."""
        if not self.debug or is_loopback(self.http.host):
            return None
        return (
            f"MYSYMBOLS_DEBUG is refused at {self.http.host}, which other machines reach: it shows"
            " internal data; listen on 127.0.0.1"
        )

    @model_validator(mode="after")
    def _debugs_on_loopback_only(self) -> Self:
        if (fault := self.debug_fault) is not None:
            raise ValueError(fault)
        return self

    @property
    def digest(self) -> str:
        """Twelve digits of a hash of the settings that must be equal in all processes."""
        secret = self.http.cursor_secret
        shared_settings = (
            self.kucoin.base_url,
            self.kucoin.data_source.value,
            None if secret is None else secret.get_secret_value(),
            self.notifications.allow_private_addresses,
            # A changed file needs no restart, so processes may have read different ones.
            () if self.security.sealing_keys_file else self.security.sealing_key_list,
            self.security.pepper_list,
            self.security.session_policy,
            self.security.four_eyes,
            self.feed.mode,  # age limits follow it
        )
        return hashlib.sha256(repr(shared_settings).encode()).hexdigest()[:12]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Adds the plain variables as the last source."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _PlainVariables(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variables(cls, values: object) -> object:
        unknown = unknown_variables(os.environ)
        if unknown:
            raise ValueError("unknown variables: " + ", ".join(map(_with_proposal, unknown)))
        return values


def secret_values(settings: Settings) -> list[str]:
    """Returns every secret of the settings, in each form that an output could contain.

    These are all SecretStr fields, with each part of a list; the contents of their files; and the
    passwords of addresses. A file that has gone since the start is left out.
    """
    return list(dict.fromkeys(text for text in _secrets_of(settings) if text))


def _secrets_of(part: BaseModel) -> Iterator[str]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield from _secrets_of(value)
        elif isinstance(value, SecretStr):
            yield from _forms_of(value.get_secret_value())
        elif isinstance(value, Path) and name.removesuffix("_file") in type(part).model_fields:
            with suppress(OSError, ValueError):
                yield from _forms_of(value.read_text(encoding="utf-8"))
        elif isinstance(value, str) and "://" in value:
            password = urlsplit(value).password or ""
            yield from (password, unquote(password))


def _forms_of(text: str) -> Iterator[str]:
    yield text.strip()
    yield from re.split(r"[,\s]+", text.strip())


def known_variables() -> dict[str, str]:
    """Returns defaults as text by variable name, for the documents and the compose file."""
    return {one.name: one.default for one in variables()}


@dataclass(frozen=True, slots=True)
class Variable:
    """Declaration of one environment variable; `group` describes its part of the settings."""

    name: str
    default: str
    description: str
    allowed: str
    group: str


def variables() -> tuple[Variable, ...]:
    """Returns every environment variable, grouped by part."""
    declared: list[Variable] = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, _Part):
            part, group = type(default), type(default).__doc__ or ""
            for inner, inner_field in part.model_fields.items():
                declared.append(_variable(f"{name}__{inner}", inner_field, group))
        else:
            declared.append(_variable(name, field, "Process."))
    return tuple(sorted(declared, key=lambda one: one.group == "Process."))


def _variable(path: str, field: FieldInfo, group: str) -> Variable:
    default = field.get_default()
    text = "" if default is None else str(default)
    return Variable(
        f"{PREFIX}{path}".upper(), text, field.description or "", allowed_values(field), group
    )


def allowed_values(field: FieldInfo) -> str:
    """Returns the allowed values of a variable in words."""
    kind: Any = field.annotation
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = tuple(one.value for one in kind)
    if choices:
        return "one of " + ", ".join(map(str, choices))
    bounds = {type(one).__name__: one for one in field.metadata}
    low = bounds.get("Ge") or bounds.get("Gt")
    high = bounds.get("Le")
    if low is not None and high is not None:
        least = f"above {low.gt}" if isinstance(low, Gt) else f"from {low.ge}"
        noun = "a whole number" if kind is int else "a number"
        return f"{noun} {least} up to {high.le}"
    words = {bool: "true or false", str: "text", SecretStr | None: "a secret"}
    return words.get(kind, "a JSON list" if get_origin(kind) is tuple else "text")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Returns unknown names with the prefix: a misspelt variable must not be ignored."""
    known = known_variables().keys() | CLIENT_VARIABLES
    return sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def _with_proposal(name: str) -> str:
    """Returns an unknown name, with the known one that it resembles most."""
    known = {one.removeprefix(PREFIX): one for one in (*known_variables(), *CLIENT_VARIABLES)}
    text = name.upper().removeprefix(PREFIX)
    similar = get_close_matches(text, known, n=1, cutoff=_SPELLING_CUTOFF)
    return f"{name} (did you mean {known[similar[0]]}?)" if similar else name


@dataclass(frozen=True, slots=True)
class PlainVariable:
    """Variable without the prefix: `target` is the setting that it gives, None if it gives none."""

    name: str
    target: str | None
    note: str


def plain_variables(environment: Mapping[str, str]) -> tuple[PlainVariable, ...]:
    """Returns the variables of other services that are set, each with a note for people."""
    names = {name.upper() for name in environment}
    found = []
    if environment.get(DATABASE_URL):
        found.append(_plain(DATABASE_URL, _DATABASE_VARIABLE, names))
    if environment.get(SECRET_KEY):
        found.append(_plain(SECRET_KEY, _CURSOR_VARIABLE, names))
        url = environment.get(_DATABASE_VARIABLE) or environment.get(DATABASE_URL) or "sqlite:"
        if not url.startswith("sqlite") and not names & _PEPPER_VARIABLES:
            found.append(_plain_pepper(environment[SECRET_KEY]))
    for name, advice in _UNUSED_VARIABLES.items():
        if environment.get(name):
            found.append(PlainVariable(name, None, f"{name} has no effect here: {advice}."))
    return tuple(found)


def _plain(name: str, target: str, names: set[str]) -> PlainVariable:
    if target in names:
        return PlainVariable(name, None, f"{name} is not used: {target} is set.")
    return PlainVariable(name, target, f"{name} is used as {target}.")


def _plain_pepper(key: str) -> PlainVariable:
    fault = pepper_fault(key)
    if fault is not None:
        return PlainVariable(SECRET_KEY, None, f"{SECRET_KEY} is no pepper of API keys: {fault}.")
    note = f"{SECRET_KEY} gives the pepper of API keys: a new one ends all of them."
    return PlainVariable(SECRET_KEY, _PEPPER_VARIABLE, note)
