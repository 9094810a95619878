"""Variables without the prefix that other services read too: DATABASE_URL and SECRET_KEY."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_settings import EnvSettingsSource

from app.security.domain.keys import pepper_fault
from app.settings.declarations import PREFIX

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


class PlainVariableSource(EnvSettingsSource):
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
