"""Reads the settings for a program: options override the environment, errors name the variable."""

import json
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.exit_codes import CommandError, ExitCode
from app.foundation.sql.engines import parse_database_url
from app.settings import (
    DATABASE_URL,
    PREFIX,
    ProcessRole,
    Settings,
    known_variables,
    plain_variables,
    variables,
)

_DATABASES: Final = frozenset({"sqlite", "postgresql", "postgres"})


def read_settings(
    options: Mapping[str, Mapping[str, Any]] | None = None, role: ProcessRole | None = None
) -> Settings:
    """Returns the settings of the environment, overridden by `options` (part -> name -> value).

    Notes on stderr say what becomes of variables without the prefix, such as DATABASE_URL. Raises
    CommandError (78) that names each invalid variable, never its value.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        invalid = "; ".join(_sentence(one["loc"], one["msg"]) for one in error.errors())
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", invalid) from None
    except SettingsError as error:
        invalid = "; ".join(f"{name}: must be a JSON list" for name in _invalid_lists())
        raise CommandError(
            ExitCode.CONFIGURATION, "settings_invalid", invalid or str(error)
        ) from None
    if not _is_database_url(settings.database.url):
        detail = f"{_name_in_use('DATABASE__URL')}: must be an sqlite or postgresql address"
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", detail)
    try:
        parse_database_url(settings.database.url)
    except ValueError as error:  # such as one in memory
        detail = f"{_name_in_use('DATABASE__URL')}: {error}"
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", detail) from None
    has_own_database = "url" in (options or {}).get("database", {})
    for one in plain_variables(os.environ):
        is_overridden = one.name == DATABASE_URL and has_own_database
        note = (
            f"{one.name} is not used: this command names a database." if is_overridden else one.note
        )
        typer.echo(f"note: {note}", err=True)
    parts = {
        part: getattr(settings, part).model_copy(update=_without_none(values))
        for part, values in (options or {}).items()
    }
    settings = settings.model_copy(update={**parts, **_without_none({"role": role})})
    if (fault := settings.debug_fault) is not None:  # an option may name another address
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", fault)
    return settings


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    """Returns the variable, the error of its value, and the allowed values."""
    text = message.removeprefix("Value error, ")
    if not place:
        return text
    path = "__".join(map(str, place)).upper()
    allowed = next((one.allowed for one in variables() if one.name == f"{PREFIX}{path}"), None)
    name = _name_in_use(path)
    return f"{name}: {text}" if allowed is None else f"{name}: {text} (allowed: {allowed})"


def _name_in_use(path: str) -> str:
    """Returns the variable that gives a setting, such as DATABASE_URL for DATABASE__URL."""
    name = f"{PREFIX}{path}"
    plain = (one.name for one in plain_variables(os.environ) if one.target == name)
    return next(plain, name)


def _invalid_lists() -> list[str]:
    """Returns list variables that are not JSON: pydantic names only their part of the settings."""
    lists = {name for name, default in known_variables().items() if default == "()"}
    values = {name: value for name, value in os.environ.items() if name.upper() in lists}
    return sorted(name for name, value in values.items() if not _is_json(value))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_database_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for an invalid number
    except ValueError:
        return False
    return "://" in url and parts.scheme.partition("+")[0] in _DATABASES


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
