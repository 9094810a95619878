"""The settings as a JSON document: judged as a whole, with every fault named at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, cast

from app.configuration.domain.model import FULL_PERCENT, Configuration
from app.configuration.domain.sections import Family, Policy
from app.foundation.errors import Code, RefusedError


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong: where (dotted key), a stable word for what, and a sentence."""

    loc: str
    type: str
    message: str


class ConfigurationRefusedError(RefusedError):
    """The settings cannot be taken; `complaints` lists everything that is wrong at once."""

    def __init__(self, code: Code, complaints: tuple[Complaint, ...]) -> None:
        super().__init__(code, "; ".join(complaint.message for complaint in complaints))
        self.complaints = complaints


def validate(changes: Mapping[str, object], present: Configuration) -> Configuration:
    """`present` with `changes` applied, one version higher, or every reason why not.

    `changes` is a JSON object in the shape of `as_document`; keys that are not named keep their
    value. Raises ConfigurationRefusedError: validation_failed for keys, types and bounds,
    constraints_infeasible where single values are right but cannot hold together.
    """
    complaints: list[Complaint] = []
    proposed: Configuration = _apply(changes, present, "", complaints)
    if complaints:
        raise ConfigurationRefusedError(Code.VALIDATION_FAILED, tuple(complaints))
    judged = _together(proposed)
    infeasible = tuple(one for one in judged if one.type == "infeasible")
    if judged:
        code = Code.CONSTRAINTS_INFEASIBLE if infeasible else Code.VALIDATION_FAILED
        raise ConfigurationRefusedError(code, judged)
    return replace(proposed, version=present.version + 1)


def _apply(changes: Mapping[str, object], present: Any, path: str, out: list[Complaint]) -> Any:
    known = {one.name: one for one in fields(present) if one.name != "version"}
    taken: dict[str, object] = {}
    for key, value in changes.items():
        loc = path + echoed_key(key)
        if key not in known:
            out.append(Complaint(loc, "unknown_key", f"{loc} is not a setting"))
            continue
        current = getattr(present, key)
        if is_dataclass(current):
            if isinstance(value, Mapping):
                taken[key] = _apply(value, current, f"{loc}.", out)
            else:
                out.append(Complaint(loc, "object_type", f"{loc} must be an object"))
            continue
        if key in _BY_NAME:
            taken[key] = _by_name(value, *_BY_NAME[key], loc, out)
            continue
        if key == "fixed_weights":
            taken[key] = _fixed(value, loc, out)
            continue
        if isinstance(current, Mapping):
            taken[key] = _weights(value, current, loc, out)
            continue
        taken[key] = _value(value, current, known[key].metadata, loc, out)
    return replace(present, **taken)


def echoed_key(key: str) -> str:
    """The key if it could be one of ours; arbitrary text is never given back."""
    return key if len(key) <= 64 and key.isascii() and key.isidentifier() else "?"


def _weights(
    value: object, present: Mapping[Family, float], loc: str, out: list[Complaint]
) -> Mapping[Family, float]:
    if not isinstance(value, Mapping):
        out.append(Complaint(loc, "object_type", f"{loc} must be an object"))
        return present
    weights = dict(present)
    for key, weight in value.items():
        inner = f"{loc}.{echoed_key(key)}"
        if key not in set(Family):
            out.append(Complaint(inner, "unknown_key", f"{inner} is not a family"))
            continue
        family = Family(key)
        weights[family] = cast("float", _value(weight, present[family], _SHARE, inner, out))
    return MappingProxyType(weights)


def _by_name(
    value: object, usual: Policy | bool | float, what: str, loc: str, out: list[Complaint]
) -> Mapping[str, Any]:
    """Values by a name that others give, as a whole: one that is not named has the usual one."""
    if not isinstance(value, Mapping):
        out.append(Complaint(loc, "object_type", f"{loc} must be an object"))
        return MappingProxyType({})
    found: dict[str, object] = {}
    for name, one in value.items():
        if not 0 < len(name) <= _LONGEST_NAME:
            out.append(Complaint(f"{loc}.?", "unknown_key", f"{loc} must name {what}"))
            continue
        found[name] = _value(one, usual, _SHARE, f"{loc}.?", out)
    return MappingProxyType(dict(sorted(found.items())))


def _fixed(value: object, loc: str, out: list[Complaint]) -> Mapping[str, Decimal]:
    """Weights by standard symbol, as a whole: a symbol that is not named has none."""
    if not isinstance(value, Mapping):
        out.append(Complaint(loc, "object_type", f"{loc} must be an object"))
        return MappingProxyType({})
    weights: dict[str, Decimal] = {}
    for symbol, weight in value.items():
        if not _SYMBOL.fullmatch(symbol):
            message = f"{loc} must name standard symbols such as BTCUSDT"
            out.append(Complaint(f"{loc}.?", "unknown_key", message))
            continue
        bounds = {"low": Decimal(0), "high": FULL_PERCENT}
        inner = f"{loc}.{symbol}"
        weights[symbol] = cast("Decimal", _value(weight, Decimal(0), bounds, inner, out))
    return MappingProxyType(dict(sorted(weights.items())))


def _value(
    value: object, current: object, bounds: Mapping[str, Any], loc: str, out: list[Complaint]
) -> object:
    """`value` as the type of `current` within its bounds; `current` where it is refused."""
    read = next((reader for kind, reader in _READERS if isinstance(current, kind)), _exact)
    try:
        return read(value, current, bounds)
    except _RefusedValueError as e:
        message = f"{loc} {e.message}"
        out.append(Complaint(loc, e.type, message))
        return current


class _RefusedValueError(ValueError):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.type = kind
        self.message = message


def _choice(value: object, current: object, _bounds: Mapping[str, Any]) -> StrEnum:
    kind = type(cast("StrEnum", current))
    names = [one.value for one in kind]
    if value not in names:
        raise _RefusedValueError("enum", f"must be one of {', '.join(names)}")
    return kind(value)


def _currencies(value: object, _current: object, _bounds: Mapping[str, Any]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _RefusedValueError("list_type", "must be a list of at least one currency")
    if not all(isinstance(one, str) and one.isascii() and one.isalnum() for one in value):
        raise _RefusedValueError("string_type", "must hold names of currencies")
    return tuple(dict.fromkeys(one.upper() for one in value))


def _flag(value: object, _current: object, _bounds: Mapping[str, Any]) -> bool:
    if not isinstance(value, bool):
        raise _RefusedValueError("bool_type", "must be true or false")
    return value


def _exact(value: object, _current: object, bounds: Mapping[str, Any]) -> Decimal:
    number = _number(value, bounds, (int, float, Decimal, str))
    if number != number.quantize(Decimal("0.000001")):
        raise _RefusedValueError("decimal_places", "has more than six decimals")
    return number


def _whole(value: object, _current: object, bounds: Mapping[str, Any]) -> int:
    number = _number(value, bounds, (int, float, Decimal))
    if number != int(number):
        raise _RefusedValueError("int_type", "must be a whole number")
    return int(number)


def _real(value: object, _current: object, bounds: Mapping[str, Any]) -> float:
    return float(_number(value, bounds, (int, float, Decimal)))


def _number(value: object, bounds: Mapping[str, Any], kinds: tuple[type, ...]) -> Decimal:
    """Bounds first: converting a number with a million digits would be an attack."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise _RefusedValueError("number_type", "must be a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise _RefusedValueError("number_type", "must be a number") from None
    if not number.is_finite():
        raise _RefusedValueError("finite_number", "must be a finite number")
    low, high = bounds["low"], bounds["high"]
    if not low <= number <= high:
        raise _RefusedValueError("out_of_range", f"must lie between {low} and {high}")
    return number


_SYMBOL: Final = re.compile(r"[A-Z0-9]{2,40}(-[A-Z0-9]{1,12})?", re.ASCII)
# A signal says no more of its type or its source.
_LONGEST_NAME: Final = 64
_SHARE: Final = {"low": 0.0, "high": 1.0}
_BY_NAME: Final[Mapping[str, tuple[Policy | bool | float, str]]] = MappingProxyType(
    {
        "policies": (Policy.PROPOSE, "types of signals"),
        "sources": (True, "sources of signals"),
        "factor_weights": (1.0, "factors"),
    }
)
_READERS: Final = (
    (StrEnum, _choice),
    (tuple, _currencies),
    (bool, _flag),  # before int, which a bool is as well
    (int, _whole),
    (float, _real),
)


def _together(proposed: Configuration) -> tuple[Complaint, ...]:
    """What is wrong although every single value is in range."""
    count = proposed.max_portfolio_symbols
    low, high = proposed.min_weight_percentage, proposed.max_weight_percentage
    total = sum(proposed.family_weights.values())
    works = (FULL_PERCENT / count).quantize(Decimal("0.000001"), rounding="ROUND_FLOOR")
    given = sum(proposed.rebalancing.fixed_weights.values(), Decimal(0))
    rules = (
        (
            given > FULL_PERCENT,
            Complaint(
                "rebalancing.fixed_weights",
                "infeasible",
                f"rebalancing.fixed_weights must sum to at most 100, not {given}",
            ),
        ),
        (
            abs(total - 1.0) > 1e-9,
            Complaint("family_weights", "sum", f"family_weights must sum to 1, not {total:g}"),
        ),
        (
            proposed.leave_score > proposed.enter_score,
            Complaint("leave_score", "order", "leave_score must not exceed enter_score"),
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
                f"with {count} symbols min_weight_percentage must be at most {works.normalize():f}",
            ),
        ),
    )
    return tuple(complaint for broken, complaint in rules if broken)


def as_document(configuration: Configuration) -> dict[str, Any]:
    """JSON-able settings without the version; exact numbers as decimal text."""
    return {
        one.name: _plain(getattr(configuration, one.name))
        for one in fields(configuration)
        if one.name != "version"
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


# Settings that there were once: stored versions may name them.
_RETIRED: Final = {"replacement": frozenset({"noise_runs"})}


def from_document(document: Mapping[str, object], version: int) -> Configuration:
    """The stored settings of `version`; keys born later take their default."""
    present = {
        name: {key: one for key, one in value.items() if key not in _RETIRED.get(name, ())}
        if isinstance(value, Mapping)
        else value
        for name, value in document.items()
    }
    return replace(validate(present, Configuration()), version=version)
