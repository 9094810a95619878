"""Breaking changes between two versions of JSON schemas, as a reader or a writer meets them."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_LIMITS = ("pattern", "format", "const", "minimum", "maximum", "maxLength", "minLength", "maxItems")


def breaking_changes(
    old: Schema, new: Schema, definitions: tuple[Schema, Schema], place: str, *, is_sent: bool
) -> list[str]:
    """Places where a program written for `old` may fail with `new`, each with its cause.

    `is_sent` is true for what the service sends and false for what it accepts; `definitions` are
    the `components.schemas` of both documents.
    """
    return list(dict.fromkeys(_compare(old, new, definitions, place, is_sent, frozenset())))


def _compare(
    old: Schema,
    new: Schema,
    definitions: tuple[Schema, Schema],
    place: str,
    is_sent: bool,
    seen: frozenset[tuple[Any, Any]],
) -> Iterator[str]:
    names = old.get("$ref"), new.get("$ref")
    if names != (None, None) and names in seen:
        return
    seen |= {names}
    before, after = (
        _resolved(one, part) for one, part in zip((old, new), definitions, strict=True)
    )
    types = _types(before, definitions[0]), _types(after, definitions[1])
    extra = types[1] - types[0] if is_sent else types[0] - types[1]
    if extra:
        yield f"{place}: {'may be' if is_sent else 'no longer'} {', '.join(sorted(extra))}"
    if before.get("enum") and not is_sent and set(before["enum"]) - set(after.get("enum", ())):
        yield f"{place}: accepts fewer values"
    for limit in _LIMITS:
        was, has = before.get(limit), after.get(limit)
        if was != has and (was is not None if is_sent else has is not None):
            yield f"{place}: another {limit}"
    yield from _properties(before, after, definitions, place, is_sent, seen)
    for part in ("items", "additionalProperties"):
        if isinstance(before.get(part), Mapping) and isinstance(after.get(part), Mapping):
            yield from _compare(before[part], after[part], definitions, f"{place}[]", is_sent, seen)
    for was in _alternatives(before):
        wanted = _types(was, definitions[0])
        same = [one for one in _alternatives(after) if _types(one, definitions[1]) == wanted]
        if len(same) == 1:
            yield from _compare(was, same[0], definitions, place, is_sent, seen)


def _properties(
    before: Schema,
    after: Schema,
    definitions: tuple[Schema, Schema],
    place: str,
    is_sent: bool,
    seen: frozenset[tuple[Any, Any]],
) -> Iterator[str]:
    was, has = before.get("properties", {}), after.get("properties", {})
    for name in was:
        if name not in has:
            yield f"{place}.{name}: removed"
        else:
            yield from _compare(was[name], has[name], definitions, f"{place}.{name}", is_sent, seen)
    needed = set(before.get("required", ())), set(after.get("required", ()))
    if is_sent:
        for name in sorted((needed[0] - needed[1]) & has.keys()):
            yield f"{place}.{name}: may be missing"
    else:
        for name in sorted(needed[1] - needed[0]):
            yield f"{place}.{name}: required"


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def _alternatives(schema: Schema) -> list[Schema]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def _types(schema: Schema, definitions: Schema) -> set[str]:
    schema = _resolved(schema, definitions)
    if "type" in schema:
        found = {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    elif parts := _alternatives(schema):
        found = set().union(*(_types(one, definitions) for one in parts))
    else:
        found = {"string"} if "const" in schema or "enum" in schema else set(_TYPES)
    return found | {"integer"} if "number" in found else found
