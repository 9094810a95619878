"""HTTP models of the business settings, generated from their declarations."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, Field, create_model

from app.configuration.domain.document import MAX_NAME_LENGTH, PLACES, as_document
from app.configuration.domain.fields import (
    MONEY,
    SettingInfo,
    is_section,
    setting_fields,
    setting_info,
)
from app.configuration.domain.model import Configuration
from app.foundation.http.openapi_fields import UNIT
from app.foundation.http.request_body import Body, DecimalIn
from app.foundation.http.schemas import ChangeRequest, MoneyString, Out, example

_MAX_KEYS: Final = 256
_UNITS: Final = {
    "s": "seconds",
    "%": "per cent",
    "pp": "percentage points",
    "bp": "basis points",
    "z": "standard deviations",
    "fraction": "fraction",
}


def describe(info: SettingInfo) -> str:
    """Returns the description of a setting with its unit."""
    if not info.unit:
        return info.description
    if info.unit == "fraction":
        return f"{info.description} As a fraction."
    return f"{info.description} In {_UNITS.get(info.unit, info.unit)}."


@cache
def view_model(section: type) -> type[Out]:
    """Returns the response model of a section, named like it."""
    return create_model(
        section.__name__, __base__=Out, __doc__=section.__doc__, **_view_fields(section)
    )


@cache
def update_model(section: type, *, is_whole: bool = False) -> type[Body]:
    """Returns the request model of a section; null is rejected.

    Every setting is optional, or with `is_whole` required.
    """
    name = f"{section.__name__}{_suffix(is_whole)}"
    fields = _update_fields(section, is_whole)
    return create_model(name, __base__=Body, __doc__=section.__doc__, **fields)


def _suffix(is_whole: bool) -> str:
    return "Document" if is_whole else "Update"


def _view_fields(section: type) -> dict[str, Any]:
    return {
        one.name: (_view_type(one.type, setting_info(one)), _field(one.type, setting_info(one)))
        for one in setting_fields(section)
    }


def _update_fields(section: type, is_whole: bool) -> dict[str, Any]:
    return {
        one.name: (
            _update_type(one.name, one.type, setting_info(one), is_whole),
            _given(setting_info(one), is_whole),
        )
        for one in setting_fields(section)
    }


def _field(kind: Any, info: SettingInfo) -> Any:
    bounds = _schema_bounds(info) if _is_plain_number(kind, info) else {}
    extra = {**bounds, **_schema_unit(info)}
    return Field(description=describe(info), json_schema_extra=extra or None)


def _schema_unit(info: SettingInfo) -> dict[str, Any]:
    """Returns the unit of a number for the document; a number without one is a plain number."""
    if info.minimum is None:
        return {}
    return {UNIT: _UNITS.get(info.unit, info.unit) or "number"}


def _is_plain_number(kind: Any, info: SettingInfo) -> bool:
    """Returns True for a JSON number: maps hold several numbers, money is text."""
    return get_origin(kind) is None and not (kind is Decimal and info.unit == MONEY)


def _schema_bounds(info: SettingInfo) -> dict[str, Any]:
    if info.minimum is None or info.maximum is None:
        return {}
    return {"minimum": _plain(info.minimum), "maximum": _plain(info.maximum)}


def _plain(number: float | Decimal) -> float:
    return float(number) if isinstance(number, Decimal) else number


def _given(info: SettingInfo, is_whole: bool) -> Any:
    if is_whole:
        return Field(description=describe(info), json_schema_extra=_schema_unit(info))

    def without_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)
        schema.update(_schema_unit(info))

    return Field(None, description=describe(info), json_schema_extra=without_default)


def _view_type(kind: Any, info: SettingInfo) -> Any:
    if is_section(kind):
        return view_model(kind)
    if get_origin(kind) is Mapping:
        key, value = get_args(kind)
        return _map_type(key, _view_type(value, info))
    if get_origin(kind) is tuple:
        return list[str]
    if kind is Decimal:
        return MoneyString if info.unit == MONEY else float
    return kind


def _update_type(name: str, kind: Any, info: SettingInfo, is_whole: bool) -> Any:
    if is_section(kind):
        return update_model(kind, is_whole=is_whole)
    if get_origin(kind) is Mapping:
        key, value = get_args(kind)
        inner = _update_type(name, value, info, is_whole)
        if issubclass(key, StrEnum):
            return _enumerated(name, tuple(key), inner, info, is_whole)
        name_text = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
        return Annotated[_map_type(name_text, inner), Field(max_length=_MAX_KEYS)]
    if get_origin(kind) is tuple:
        return Annotated[list[str], Field(min_length=1)]
    if issubclass(kind, StrEnum):
        return Annotated[kind, Field(strict=False)]
    if info.minimum is None or info.maximum is None:
        return kind
    if kind is Decimal:
        low, high = Decimal(info.minimum), Decimal(info.maximum)
        return Annotated[DecimalIn, Field(ge=low, le=high, decimal_places=PLACES)]
    return Annotated[kind, Field(ge=info.minimum, le=info.maximum)]


def _map_type(key: Any, value: Any) -> Any:
    return dict.__class_getitem__((key, value))


def _enumerated(
    name: str, keys: tuple[StrEnum, ...], inner: Any, info: SettingInfo, is_whole: bool
) -> type[BaseModel]:
    """Returns a model for a map with known keys, so that an unknown key is reported by its path."""
    title = "".join(part.capitalize() for part in name.split("_"))
    shape: dict[str, Any] = {key.value: (inner, _given(info, is_whole)) for key in keys}
    return create_model(f"{title}{_suffix(is_whole)}", __base__=Body, **shape)


class EvictionRequest(ChangeRequest):
    """Permission to remove members that the new settings leave no place for."""

    evict_lowest: bool = Field(
        False,
        description="If fewer members are allowed than exist: remove those with the lowest scores"
        " in the same change, except pinned ones. Without it, such a change is a 409.",
    )


class ConfigurationRequest(EvictionRequest):
    """Settings in the shape of GET; null is refused."""

    version: int | None = Field(None, description="If given, it must be the current version.")

    def changes(self) -> dict[str, Any]:
        """Returns the settings of the request body."""
        own_fields = ConfigurationRequest.model_fields.keys()
        return self.model_dump(exclude_unset=True, exclude=set(own_fields))


class PartialConfiguration(ConfigurationRequest):
    """Some settings in the shape of GET."""

    model_config = example({"entry_score": 0.62, "exit_score": 0.55, "reason": "fewer trades"})


class WholeConfiguration(ConfigurationRequest):
    """All settings in the shape of GET."""

    model_config = example(as_document(Configuration()))


class RollbackRequest(EvictionRequest):
    """Version whose settings become the next version."""

    version: int = Field(ge=1, description="Version to return to.", examples=[3])


ConfigurationUpdate: Final = create_model(
    "ConfigurationUpdate",
    __base__=PartialConfiguration,
    __doc__="Changed settings in the shape of GET; omitted ones keep their value.",
    **_update_fields(Configuration, is_whole=False),
)
SettingsUpdate: Final = create_model(
    "SettingsUpdate",
    __base__=Body,
    __doc__="Changed settings in the shape of GET; omitted ones keep their value.",
    **_update_fields(Configuration, is_whole=False),
)
ConfigurationDocument: Final = create_model(
    "ConfigurationDocument",
    __base__=WholeConfiguration,
    __doc__="Every setting in the shape of GET; a missing one is refused.",
    **_update_fields(Configuration, is_whole=True),
)
ConfigurationView: Final = create_model(
    "Configuration",
    __base__=Out,
    __doc__=Configuration.__doc__,
    version=(int, Field(description="Version number, from 1; each change adds one.")),
    **_view_fields(Configuration),
)


def to_view(settings: Configuration) -> Out:
    """Converts settings to the response model."""
    return ConfigurationView.model_validate(settings, from_attributes=True)
