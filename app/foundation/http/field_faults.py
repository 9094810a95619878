"""Explains faults of a request: what each field expects, what kind of value came, an example."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from app.foundation.errors import FieldFault
from app.foundation.http.openapi_fields import BOUND_NAMES, REF, Schemas, complete_field, example_of

Location = tuple[str | int, ...]
PARTS: Final = ("body", "path", "query", "header")
MAX_FAULTS: Final = 32  # of one response
_MAX_ALLOWED: Final = 100
_MAX_SHOWN: Final = 8
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}", re.ASCII)
_DECIMAL_START: Final = "^-?(0|[1-9]"
_CONSTRAINTS: Final = (
    *("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength"),
    *("maxLength", "minItems", "maxItems", "pattern", "format"),
)
# Kinds that the expectation of the field explains; any other kind has a sentence of its own.
_BY_EXPECTATION: Final = re.compile(
    r"missing|enum|literal_error|decimal_text|timezone_required|finite_number|string_pattern.*"
    r"|string_too_.*|(?:greater|less)_than.*|.*_type|.*_parsing|.*_parsing_size|date.*|object"
)
_REMOVED: Final = frozenset({"extra_forbidden", "repeated", "cursor"})
_KINDS: Final = (
    (type(None), "null"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)
_NO_SCHEMA: Final[Mapping[str, Any]] = {}


def kind_of(value: object) -> str:
    """Returns the JSON kind of a value; the value itself is never shown."""
    return next((kind for type_, kind in _KINDS if isinstance(value, type_)), "other")


@dataclass(frozen=True, slots=True)
class RequestShape:
    """Schemas of the parameters and of the body of one operation."""

    parameters: Mapping[tuple[str, str], Mapping[str, Any]]  # by part and name in lower case
    body: Mapping[str, Any]
    schemas: Schemas

    @classmethod
    def from_operation(cls, operation: Mapping[str, Any], schemas: Schemas) -> "RequestShape":
        content = operation.get("requestBody", {}).get("content", {})
        return cls(
            {
                (one["in"], one["name"].lower()): _completed(one)
                for one in operation.get("parameters", ())
            },
            content.get("application/json", {}).get("schema", _NO_SCHEMA),
            schemas,
        )

    def field(self, loc: Location) -> Mapping[str, Any]:
        """Returns the schema at a location; an empty one if there is none."""
        part, *rest = loc
        if part != "body":
            name = str(rest[0]).lower() if rest else ""
            return self.parameters.get((str(part), name), _NO_SCHEMA)
        shape: Mapping[str, Any] = self.body
        for step in rest:
            shape = self._step(shape, step)
        return shape

    def names(self, loc: Location) -> tuple[str, ...]:
        """Returns the names that are known beside a location, in the order of the document."""
        part, *rest = loc
        if part != "body":
            return tuple(name for place, name in self.parameters if place == part)
        shapes = self._alternatives(self.field(("body", *rest[:-1])))
        return tuple(dict.fromkeys(name for one in shapes for name in one.get("properties", ())))

    def locate(self, name: str) -> Location:
        """Returns the location of a field of the command, in the body or a parameter."""
        steps = tuple(name.split("."))
        if steps[0] in self.names(("body", "")):
            return ("body", *steps)
        found = (place for place, known in self.parameters if known == name.lower())
        return (next(found, "body"), *steps)

    def _step(self, shape: Mapping[str, Any], step: str | int) -> Mapping[str, Any]:
        for one in self._alternatives(shape):
            inner = one.get("items") if isinstance(step, int) else _member(one, step)
            if isinstance(inner, Mapping):
                return inner
        return shape  # the tag of a union is a part of pydantic's location only

    def _alternatives(self, shape: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yields the plain schemas that a schema stands for, null excepted."""
        if "$ref" in shape:
            yield from self._alternatives(self.schemas[shape["$ref"].removeprefix(REF)])
            return
        choices = [*shape.get("anyOf", ()), *shape.get("oneOf", ())]
        if not choices:
            if shape.get("type") != "null":
                yield shape
            return
        for one in choices:
            yield from self._alternatives(one)

    def explain(self, fault: FieldFault) -> dict[str, Any]:
        """Returns one entry of `errors`: location, kind, message, expectation, example."""
        loc = fault.loc if fault.loc[:1] and fault.loc[0] in PARTS else self.locate(_dotted(fault))
        remedy = "remove" if fault.type in _REMOVED else "add" if fault.type == "missing" else ""
        entry: dict[str, Any] = {"loc": [_safe(part) for part in loc], "type": fault.type}
        shape = self.field(loc)
        if fault.bounds:
            first = next(self._alternatives(shape), _NO_SCHEMA)
            # An example of the type may be outside of the bounds of this field.
            shape = {name: part for name, part in first.items() if name != "examples"}
            shape |= fault.bounds
        allowed = list(fault.allowed)
        if fault.type == "extra_forbidden":
            allowed = list(self.names(loc))
            message = _unknown(str(loc[-1]), allowed)
        else:
            expected = self.expectation(shape)
            allowed = allowed or self._values(shape)
            message = _message(fault, expected)
            entry |= {"expected": expected} if expected else {}
        entry["message"] = message
        if fault.received is not None:
            entry["received"] = fault.received
        if allowed:
            entry["allowed"] = allowed[:_MAX_ALLOWED]
        entry["remedy"] = remedy or "replace"
        if entry["remedy"] != "remove" and shape:
            entry |= self._constraints(shape)
            entry |= self._example(shape, loc)
        return entry

    def expectation(self, shape: Mapping[str, Any]) -> str:
        """Returns what a field accepts, in words; empty for anything."""
        texts = [_expectation(one) for one in self._alternatives(shape)]
        return " or ".join(dict.fromkeys(text for text in texts if text))

    def _values(self, shape: Mapping[str, Any]) -> list[str]:
        shapes = list(self._alternatives(shape))
        return [str(value) for one in shapes for value in (*_enum(one), *_enum(_items(one)))]

    def _constraints(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        first = next(self._alternatives(shape), _NO_SCHEMA)
        found = {name: first[name] for name in _CONSTRAINTS if name in first and name != "enum"}
        return {"constraints": found} if found else {}

    def _example(self, shape: Mapping[str, Any], loc: Location) -> dict[str, Any]:
        if any(_is_secret(one) for one in self._alternatives(shape)):
            return {}
        name = next((part for part in reversed(loc) if isinstance(part, str)), "")
        return {"example": example_of(shape, self.schemas, name)}


def _completed(parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    shape = dict(parameter["schema"])
    complete_field(parameter["name"], shape)
    return shape


def bounds_of(context: Mapping[str, Any]) -> Mapping[str, float]:
    """Returns the bounds in the context of a pydantic error; the context never has the value."""
    found = {name: context[key] for key, name in BOUND_NAMES.items() if key in context}
    numbers = {name: _number_of(bound) for name, bound in found.items()}
    return {name: bound for name, bound in numbers.items() if bound is not None}


def _number_of(bound: object) -> float | None:
    """Returns a bound as a number; that of a decimal comes as the text of its constructor."""
    try:
        number = float(str(bound).removeprefix("Decimal('").removesuffix("')"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


NO_SHAPE: Final = RequestShape({}, _NO_SCHEMA, {})


def sentence(entries: Sequence[Mapping[str, Any]]) -> str:
    """Returns one sentence about the first faults of a request."""
    shown = [
        f"{'.'.join(str(part) for part in entry['loc'])} {entry['message']}"
        for entry in entries[:_MAX_SHOWN]
    ]
    return "Invalid request: " + "; ".join(shown) + "."


def _message(fault: FieldFault, expected: str) -> str:
    if fault.type == "missing":
        return f"is missing; expected {expected}" if expected else "is missing"
    if fault.message and not (expected and _BY_EXPECTATION.fullmatch(fault.type)):
        text = fault.message.removeprefix("Value error, ").rstrip(".")
        return f"is refused: {text}"
    received = f"; received {fault.received}" if fault.received else ""
    return f"must be {expected or 'valid'}{received}"


def _unknown(name: str, allowed: Sequence[str]) -> str:
    close = get_close_matches(name, allowed, n=1) if _SAFE_NAME.fullmatch(name) else []
    hint = f"; did you mean {close[0]}?" if close else ""
    known = f"; known are {', '.join(allowed[:_MAX_SHOWN])}" if allowed and not hint else ""
    return f"is not known here{hint.rstrip('?')}{known}"


def _expectation(shape: Mapping[str, Any]) -> str:
    values = _enum(shape)
    if values:
        return f"one of {', '.join(map(str, values))}" if len(values) > 1 else str(values[0])
    kind = shape.get("type")
    if kind in {"integer", "number"}:
        return f"{'an integer' if kind == 'integer' else 'a number'}{_bounds(shape)}"
    if kind == "string":
        return _text_expectation(shape)
    if kind == "array":
        inner = _expectation(_items(shape))
        each = f", each {inner}" if inner else ""
        return f"a list{_size(shape, 'minItems', 'maxItems', 'entries')}{each}"
    return {"boolean": "true or false", "object": "an object"}.get(str(kind), "")


def _text_expectation(shape: Mapping[str, Any]) -> str:
    if shape.get("format") == "date-time":
        return "an ISO 8601 time with a time zone, such as 2026-03-01T12:00:00Z"
    if shape.get("format") == "date":
        return "a day in ISO 8601 form, such as 2026-03-01"
    pattern = shape.get("pattern", "")
    if pattern.startswith(_DECIMAL_START):
        return f'a decimal number as text, such as "1234.5"{_bounds(shape)}'
    size = _size(shape, "minLength", "maxLength", "characters")
    return f"a text{size}" + (f" that matches {pattern}" if pattern else "")


def _bounds(shape: Mapping[str, Any]) -> str:
    words = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    if "minimum" in shape and "maximum" in shape:
        return f" from {_number(shape['minimum'])} to {_number(shape['maximum'])}"
    found = [f"{word} {_number(shape[key])}" for key, word in words if key in shape]
    return f" {' and '.join(found)}" if found else ""


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _size(shape: Mapping[str, Any], low: str, high: str, noun: str) -> str:
    if high not in shape:
        return f" of at least {shape[low]} {noun}" if low in shape else ""
    return f" of {shape.get(low, 0)} to {shape[high]} {noun}"


def _enum(shape: Mapping[str, Any]) -> list[Any]:
    return [shape["const"]] if "const" in shape else list(shape.get("enum", ()))


def _items(shape: Mapping[str, Any]) -> Mapping[str, Any]:
    items: Mapping[str, Any] = shape.get("items", _NO_SCHEMA)
    return items


def _member(shape: Mapping[str, Any], name: str) -> Any:
    return shape.get("properties", {}).get(name) or shape.get("additionalProperties")


def _is_secret(shape: Mapping[str, Any]) -> bool:
    return bool(shape.get("writeOnly")) or shape.get("format") == "password"


def _dotted(fault: FieldFault) -> str:
    return ".".join(str(part) for part in fault.loc)


def _safe(part: str | int) -> str | int:
    if isinstance(part, int):
        return part
    return part if _SAFE_NAME.fullmatch(part) else "?"
