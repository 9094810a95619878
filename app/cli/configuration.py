"""Settings for the commands that need them: errors as sentences, options over the environment."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.exits import CommandError, Exit
from app.settings import PREFIX, Role, Settings

_DATABASES: Final = frozenset({"sqlite", "postgresql", "postgres"})


def read_settings(
    options: Mapping[str, Mapping[str, Any]] | None = None, role: Role | None = None
) -> Settings:
    """The settings of the environment, with `options` (part -> name -> value) laid over them.

    Raises CommandError (78) that names each wrong variable, never its value.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = "; ".join(_sentence(one["loc"], one["msg"]) for one in error.errors())
        raise CommandError(Exit.CONFIGURATION, "settings_invalid", wrong) from None
    except SettingsError as error:
        raise CommandError(Exit.CONFIGURATION, "settings_invalid", str(error)) from None
    if not _usable(settings.database.url):
        detail = f"{PREFIX}DATABASE__URL: an sqlite or postgresql address is needed"
        raise CommandError(Exit.CONFIGURATION, "settings_invalid", detail)
    parts = {
        part: getattr(settings, part).model_copy(update=_given(values))
        for part, values in (options or {}).items()
    }
    return settings.model_copy(update={**parts, **_given({"role": role})})


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    if not place:
        return message.removeprefix("Value error, ")
    return f"{PREFIX}{'__'.join(map(str, place)).upper()}: {message}"


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return False
    return "://" in url and parts.scheme.partition("+")[0] in _DATABASES


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
