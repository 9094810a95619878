"""JSON document of the settings: applies changes by declared types and validates them together."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, Final, get_args, get_origin

from app.configuration.domain.fields import (
    MONEY,
    SettingInfo,
    is_section,
    setting_fields,
    setting_info,
)
from app.configuration.domain.model import FULL_PERCENT, Configuration
from app.foundation.errors import Code, RefusedError

MAX_NAME_LENGTH: Final = 64  # of a signal type or source
PLACES: Final = 6  # decimals of an exact number


@dataclass(frozen=True, slots=True)
class Complaint:
    """One invalid setting: its dotted path, a stable kind of error, and a sentence."""

    loc: str
    type: str
    message: str


class ConfigurationRefusedError(RefusedError):
    """Invalid settings; `complaints` lists every error at once."""

    def __init__(self, code: Code, complaints: tuple[Complaint, ...]) -> None:
        super().__init__(code, "; ".join(complaint.message for complaint in complaints))
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class SettingChange:
    """Value of one key before and after a change; None if that version lacks the key."""

    key: str
    old: Any
    new: Any


def validate(
    changes: Mapping[str, object], present: Configuration, *, is_whole: bool = False
) -> Configuration:
    """Returns `present` with `changes` applied, one version higher.

    `changes` is a JSON object in the shape of `as_document`; omitted keys keep their value, but
    with `is_whole` every omitted key is an error. Raises ConfigurationRefusedError with every
    error: validation_failed for keys, types and bounds, constraints_infeasible for valid values
    that contradict each other.
    """
    complaints = _missing(changes, present, "") if is_whole else []
    proposed: Configuration = _apply(changes, present, "", complaints)
    if complaints:
        raise ConfigurationRefusedError(Code.VALIDATION_FAILED, tuple(complaints))
    contradictions = _contradictions(proposed)
    if contradictions:
        infeasible = any(one.type == "infeasible" for one in contradictions)
        code = Code.CONSTRAINTS_INFEASIBLE if infeasible else Code.VALIDATION_FAILED
        raise ConfigurationRefusedError(code, contradictions)
    return replace(proposed, version=present.version + 1)


def echoed_key(key: str) -> str:
    """Returns the key if it could be a setting, else "?": arbitrary text is never echoed."""
    return key if len(key) <= 64 and key.isascii() and key.isidentifier() else "?"


class _InvalidValueError(ValueError):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.type = kind
        self.message = message


def _missing(document: Mapping[str, object], present: Any, path: str) -> list[Complaint]:
    """Returns a complaint for each setting that the document lacks, at every depth.

    A map whose keys the operator chooses has no required keys.
    """
    out: list[Complaint] = []
    section: type = type(present)
    for name, (kind, _) in _fields_by_name(section).items():
        loc, value, current = path + name, document.get(name), getattr(present, name)
        if name not in document:
            out.append(Complaint(loc, "missing", f"{loc} is missing"))
        elif not isinstance(value, Mapping):
            continue  # `_apply` judges the value
        elif is_dataclass(current):
            out += _missing(value, current, f"{loc}.")
        elif issubclass(get_args(kind)[0], StrEnum):
            names = (f"{loc}.{key}" for key in get_args(kind)[0] if key not in value)
            out += (Complaint(one, "missing", f"{one} is missing") for one in names)
    return out


def _apply(changes: Mapping[str, object], present: Any, path: str, out: list[Complaint]) -> Any:
    """Returns the section `present` with changes; appends errors to `out`."""
    section: type = type(present)
    known = _fields_by_name(section)
    values: dict[str, object] = {}
    for key, value in changes.items():
        loc = path + echoed_key(key)
        if key not in known:
            out.append(Complaint(loc, "unknown_key", f"{loc} is not a setting"))
            continue
        kind, info = known[key]
        current = getattr(present, key)
        if not is_dataclass(current) and get_origin(kind) is not Mapping:
            values[key] = _value(value, kind, info, loc, out)
        elif not isinstance(value, Mapping):
            out.append(Complaint(loc, "object_type", f"{loc} must be an object"))
        elif is_dataclass(current):
            values[key] = _apply(value, current, f"{loc}.", out)
        else:
            values[key] = _map(value, current, kind, info, loc, out)
    return replace(present, **values)


@cache
def _fields_by_name(section: type) -> Mapping[str, tuple[Any, SettingInfo]]:
    return {one.name: (one.type, setting_info(one)) for one in setting_fields(section)}


def _map(
    value: Mapping[str, object],
    current: Mapping[str, object],
    kind: Any,
    info: SettingInfo,
    loc: str,
    out: list[Complaint],
) -> Mapping[Any, object]:
    """Returns the map; missing keys keep their value only if the keys are an enumeration."""
    key_kind, value_kind = get_args(kind)
    if issubclass(key_kind, StrEnum):
        merged: dict[Any, object] = dict(current)
        for key, inner in value.items():
            place = f"{loc}.{echoed_key(key)}"
            if key not in set(key_kind):
                out.append(Complaint(place, "unknown_key", f"{place} is not a setting"))
                continue
            merged[key_kind(key)] = _value(inner, value_kind, info, place, out)
        return MappingProxyType(merged)
    values: dict[str, object] = {}
    for key, inner in value.items():
        if not _is_key(key, info):
            example = " such as BTCUSDT" if info.keys == "symbols" else ""
            message = f"{loc} must name {info.keys}{example}"
            out.append(Complaint(f"{loc}.?", "unknown_key", message))
            continue
        place = f"{loc}.{key if info.keys == 'symbols' else '?'}"
        values[key] = _value(inner, value_kind, info, place, out)
    return MappingProxyType(dict(sorted(values.items())))


def _is_key(key: str, info: SettingInfo) -> bool:
    if info.keys == "symbols":
        return _SYMBOL.fullmatch(key) is not None
    return 0 < len(key) <= MAX_NAME_LENGTH


def _value(value: object, kind: Any, info: SettingInfo, loc: str, out: list[Complaint]) -> object:
    """Returns `value` as an instance of `kind` within its bounds; None if it is invalid."""
    read = next(reader for known, reader in _READERS if issubclass(get_origin(kind) or kind, known))
    try:
        return read(value, kind, info)
    except _InvalidValueError as e:
        out.append(Complaint(loc, e.type, f"{loc} {e.message}"))
        return None


def _choice(value: object, kind: Any, _info: SettingInfo) -> StrEnum:
    names = [one.value for one in kind]
    if value not in names:
        raise _InvalidValueError("enum", f"must be one of {', '.join(names)}")
    choice: StrEnum = kind(value)
    return choice


def _currencies(value: object, _kind: Any, _info: SettingInfo) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _InvalidValueError("list_type", "must be a list of at least one currency")
    if not all(isinstance(one, str) and one.isascii() and one.isalnum() for one in value):
        raise _InvalidValueError("string_type", "must hold names of currencies")
    return tuple(dict.fromkeys(one.upper() for one in value))


def _flag(value: object, _kind: Any, _info: SettingInfo) -> bool:
    if not isinstance(value, bool):
        raise _InvalidValueError("bool_type", "must be true or false")
    return value


def _exact(value: object, _kind: Any, info: SettingInfo) -> Decimal:
    number = _number(value, info, (int, float, Decimal, str))
    if number != round(number, PLACES):
        raise _InvalidValueError("decimal_places", "has more than six decimals")
    return number


def _whole(value: object, _kind: Any, info: SettingInfo) -> int:
    number = _number(value, info, (int, float, Decimal))
    if number != int(number):
        raise _InvalidValueError("int_type", "must be a whole number")
    return int(number)


def _real(value: object, _kind: Any, info: SettingInfo) -> float:
    return float(_number(value, info, (int, float, Decimal)))


def _number(value: object, info: SettingInfo, kinds: tuple[type, ...]) -> Decimal:
    """Checks bounds before any conversion: a number with a million digits would take seconds."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise _InvalidValueError("number_type", "must be a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise _InvalidValueError("number_type", "must be a number") from None
    if not number.is_finite():
        raise _InvalidValueError("finite_number", "must be a finite number")
    if info.minimum is None or info.maximum is None:
        return number
    if not info.minimum <= number <= info.maximum:
        raise _InvalidValueError(
            "out_of_range", f"must lie between {info.minimum} and {info.maximum}"
        )
    return number


_SYMBOL: Final = re.compile(r"[A-Z0-9]{2,40}(-[A-Z0-9]{1,12})?", re.ASCII)
_READERS: Final[tuple[tuple[type, Any], ...]] = (
    (StrEnum, _choice),
    (tuple, _currencies),
    (bool, _flag),  # before int: a bool is an int
    (int, _whole),
    (float, _real),
    (Decimal, _exact),
)


def _contradictions(proposed: Configuration) -> tuple[Complaint, ...]:
    """Returns contradictions between settings whose single values are in range."""
    count = proposed.max_portfolio_symbols
    low, high = proposed.min_weight_percentage, proposed.max_weight_percentage
    total = sum(proposed.family_weights.values())
    limit = (FULL_PERCENT / count).quantize(Decimal("0.000001"), rounding="ROUND_FLOOR")
    fixed = sum(proposed.rebalancing.fixed_weights.values(), Decimal(0))
    rules = (
        (
            fixed > FULL_PERCENT,
            Complaint(
                "rebalancing.fixed_weights",
                "infeasible",
                f"rebalancing.fixed_weights must sum to at most 100, not {fixed}",
            ),
        ),
        (
            abs(total - 1.0) > 1e-9,
            Complaint("family_weights", "sum", f"family_weights must sum to 1, not {total:g}"),
        ),
        (
            proposed.exit_score > proposed.entry_score,
            Complaint("exit_score", "order", "exit_score must not exceed entry_score"),
        ),
        (
            low > high,
            Complaint(
                "min_weight_percentage",
                "infeasible",
                f"min_weight_percentage must be at most max_weight_percentage, {high}",
            ),
        ),
        (
            low * count > FULL_PERCENT,
            Complaint(
                "min_weight_percentage",
                "infeasible",
                f"with {count} symbols min_weight_percentage must be at most {limit.normalize():f}",
            ),
        ),
    )
    return tuple(complaint for is_broken, complaint in rules if is_broken)


def as_document(configuration: Configuration) -> dict[str, Any]:
    """Returns the settings as JSON values without the version; exact numbers as decimal text."""
    return {
        one.name: _plain(getattr(configuration, one.name)) for one in setting_fields(configuration)
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, StrEnum) else value


def as_typed_document(document: Mapping[str, object]) -> dict[str, Any]:
    """Returns a stored document with exact numbers as JSON numbers; amounts of money stay text.

    It reads the documents of every version of the service: an unknown key passes unchanged.
    """
    return _typed_section(document, Configuration)


def _typed_section(document: Mapping[str, object], section: type) -> dict[str, Any]:
    known = _fields_by_name(section)
    return {
        key: _typed(value, *known[key]) if key in known else value
        for key, value in document.items()
    }


def _typed(value: object, kind: Any, info: SettingInfo) -> Any:
    if is_section(kind):
        return _typed_section(value, kind) if isinstance(value, Mapping) else value
    if get_origin(kind) is Mapping and isinstance(value, Mapping):
        return {key: _typed(inner, get_args(kind)[1], info) for key, inner in value.items()}
    is_number = kind is Decimal and info.unit != MONEY and isinstance(value, str)
    return float(value) if is_number else value  # type: ignore[arg-type]  # text of a Decimal


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[SettingChange, ...]:
    """Returns the keys whose values differ between two documents, in order of their dotted path."""
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    return tuple(
        SettingChange(key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def _leaves(document: Mapping[str, object], path: str) -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def from_document(document: Mapping[str, object], version: int) -> Configuration:
    """Returns the stored settings of `version`; missing keys take their default."""
    return replace(validate(document, Configuration()), version=version)
