"""Environment variables of a process: typed, nested, frozen; read once at start.

Each module declares the variables of one area; this one composes them.
It uses the foundation, security and the adapters.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.foundation.sql.engines import DatabaseOptions
from app.security.domain.addresses import is_loopback
from app.settings.declarations import PREFIX, Variable, allowed_values, declared_variables
from app.settings.exchange import FeedVariables, KucoinVariables, ReferenceVariables
from app.settings.plain import (
    DATABASE_URL,
    SECRET_KEY,
    PlainVariable,
    PlainVariableSource,
    plain_variables,
)
from app.settings.process import DatabaseVariables, JobVariables, LogVariables, ProcessRole
from app.settings.security import LimitVariables, NotificationVariables, SecurityVariables
from app.settings.server import HostName, HttpVariables, OriginText

__all__ = [
    "CLIENT_VARIABLES",
    "DATABASE_URL",
    "PREFIX",
    "SECRET_KEY",
    "DatabaseVariables",
    "FeedVariables",
    "HostName",
    "HttpVariables",
    "JobVariables",
    "KucoinVariables",
    "LimitVariables",
    "LogVariables",
    "NotificationVariables",
    "OriginText",
    "PlainVariable",
    "ProcessRole",
    "ReferenceVariables",
    "SecurityVariables",
    "Settings",
    "Variable",
    "allowed_values",
    "known_variables",
    "plain_variables",
    "secret_values",
    "unknown_variables",
    "variables",
]

_SPELLING_CUTOFF = 0.6
# Read by the command line only.
CLIENT_VARIABLES = frozenset({"MYSYMBOLS_URL", "MYSYMBOLS_KEY", "MYSYMBOLS_CA_FILE"})


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
        return init_settings, env_settings, PlainVariableSource(settings_cls)

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


def variables() -> tuple[Variable, ...]:
    """Returns every environment variable, grouped by part."""
    return declared_variables(Settings)


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
