"""Reads the settings for a program: options override the environment, errors are sentences."""

import json
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.exit_codes import CommandError, ExitCode
from app.foundation.sql.engines import parse_database_url
from app.settings import PREFIX, ProcessRole, Settings, known_variables, variables

_DATABASES: Final = frozenset({"sqlite", "postgresql", "postgres"})


def read_settings(
    options: Mapping[str, Mapping[str, Any]] | None = None, role: ProcessRole | None = None
) -> Settings:
    """The settings of the environment, with `options` (part -> name -> value) laid over them.

    Raises CommandError (78) that names each wrong variable, never its value.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = "; ".join(_sentence(one["loc"], one["msg"]) for one in error.errors())
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", wrong) from None
    except SettingsError as error:
        wrong = "; ".join(f"{name}: a JSON list is needed" for name in _no_json()) or str(error)
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", wrong) from None
    if not _usable(settings.database.url):
        detail = f"{PREFIX}DATABASE__URL: an sqlite or postgresql address is needed"
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", detail)
    try:
        parse_database_url(settings.database.url)
    except ValueError as error:  # such as one in memory
        detail = f"{PREFIX}DATABASE__URL: {error}"
        raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", detail) from None
    parts = {
        part: getattr(settings, part).model_copy(update=_given(values))
        for part, values in (options or {}).items()
    }
    return settings.model_copy(update={**parts, **_given({"role": role})})


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    """The variable, what is wrong with its value, and the values that it takes."""
    said = message.removeprefix("Value error, ")
    if not place:
        return said
    name = f"{PREFIX}{'__'.join(map(str, place))}".upper()
    allowed = next((one.allowed for one in variables() if one.name == name), None)
    return f"{name}: {said}" if allowed is None else f"{name}: {said} (allowed: {allowed})"


def _no_json() -> list[str]:
    """The lists of the environment that cannot be read: pydantic names only their part."""
    lists = {name for name, default in known_variables().items() if default == "()"}
    given = {name: value for name, value in os.environ.items() if name.upper() in lists}
    return sorted(name for name, value in given.items() if not _is_json(value))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return False
    return "://" in url and parts.scheme.partition("+")[0] in _DATABASES


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
