"""Declaration of business settings: one dataclass field holds type, default, bounds and text."""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from decimal import Decimal
from typing import Any, Final

Number = int | float | Decimal
MONEY: Final = "quote currency"  # unit of an amount
_KEY: Final = "setting"


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """Declaration of one setting beside its type and default.

    `minimum` and `maximum` are the closed interval of a number, or of each number of a map.
    `keys` describes the keys of a map.
    """

    description: str
    minimum: Number | None = None
    maximum: Number | None = None
    unit: str = ""
    keys: str = ""


@dataclass(frozen=True, slots=True)
class SettingEntry:
    """One setting with its dotted path in the document."""

    path: str
    type: Any
    default: Any
    info: SettingInfo


def setting(
    default: Any,
    description: str,
    minimum: Number | None = None,
    maximum: Number | None = None,
    *,
    unit: str = "",
    keys: str = "",
) -> Any:
    """Returns a dataclass field; a callable default is a factory for each new instance."""
    info = SettingInfo(description, minimum, maximum, unit, keys)
    if callable(default):
        return field(default_factory=default, metadata={_KEY: info})
    return field(default=default, metadata={_KEY: info})


def setting_info(declared: "Field[Any]") -> SettingInfo:
    """Returns the declaration of a setting. Raises KeyError for any other field."""
    info: SettingInfo = declared.metadata[_KEY]
    return info


def is_section(kind: Any) -> bool:
    """Returns True for a dataclass, which groups settings."""
    return isinstance(kind, type) and is_dataclass(kind)


def setting_fields(section: Any) -> "tuple[Field[Any], ...]":
    """Returns settings and groups of a section (a class or an instance) in declaration order."""
    return tuple(one for one in fields(section) if one.name != "version")


def entries(section: Any, prefix: str = "") -> Iterator[SettingEntry]:
    """Yields every setting of an instance and its groups; defaults are the instance's values."""
    for declared in setting_fields(section):
        value, path = getattr(section, declared.name), prefix + declared.name
        if is_dataclass(value):
            yield from entries(value, f"{path}.")
        else:
            yield SettingEntry(path, declared.type, value, setting_info(declared))
