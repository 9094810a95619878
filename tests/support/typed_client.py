"""Generates a typed Python client from an OpenAPI document: models, and a method per operation."""

import json
import keyword
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

Document = Mapping[str, Any]
METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})
_TEXTS: Final = {"date-time": "datetime", "date": "date_"}
_PLAIN: Final = {"integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_HEAD: Final = '''"""Client generated from {title} {version}; generate it again, do not edit it."""

from __future__ import annotations

from datetime import date as date_
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from httpx2 import AsyncClient
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Model(BaseModel):
    """Object with the documented fields, and others only where the document allows them."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())


class ProblemError(Exception):
    """Answer with an error; `problem` is its document, None where it has none."""

    def __init__(self, status: int, problem: Problem | None) -> None:
        super().__init__(f"{{status}} {{None if problem is None else problem.detail}}")
        self.status, self.problem = status, problem


def _sent(value: Any) -> Any:
    if isinstance(value, datetime | date_):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else value


'''
_CLIENT: Final = '''

class Client:
    """One method per operation; a refused call raises ProblemError."""

    def __init__(self, http: AsyncClient) -> None:
        self._http = http

    async def _call(
        self,
        method: str,
        path: str,
        answers: dict[int, Any],
        query: dict[str, Any],
        headers: dict[str, Any],
        body: Any = None,
        body_type: Any = None,
    ) -> Any:
        sent = {name: _sent(one) for name, one in headers.items() if one is not None}
        content = None
        if body is not None:
            content = TypeAdapter(body_type).dump_json(body, by_alias=True, exclude_unset=True)
            sent["Content-Type"] = "application/json"
        asked = {name: _sent(one) for name, one in query.items() if one is not None}
        answer = await self._http.request(
            method, path, params=asked, headers=sent, content=content
        )
        if answer.status_code >= 400:
            is_problem = answer.headers["content-type"].startswith("application/problem+json")
            problem = Problem.model_validate_json(answer.content) if is_problem else None
            raise ProblemError(answer.status_code, problem)
        expected = answers[answer.status_code]
        if expected is None:
            return None
        if expected is str:
            return answer.text
        return TypeAdapter(expected).validate_json(answer.content)
'''


def generate_client(document: Document) -> str:
    """Returns the source of a module with the class `Client` and a class per schema.

    It needs httpx2 and pydantic. Raises ValueError for a schema that it cannot express.
    """
    info = document["info"]
    parts = [_HEAD.format(title=info["title"], version=info["version"])]
    schemas = document["components"]["schemas"]
    parts += [_definition(name, schema) for name, schema in sorted(schemas.items())]
    parts.append(_CLIENT)
    for path, operations in document["paths"].items():
        for method in sorted(METHODS & operations.keys()):
            parts.append(_method(path, method, operations[method]))
    return "".join(parts)


def type_of(schema: Document) -> str:
    """Returns the Python type of a schema. Raises ValueError for one it cannot express."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None:
        return f"Literal[{', '.join(map(repr, allowed))}]"
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(one) for one in schema["anyOf"]))
    kind = schema.get("type")
    if kind == "string":
        return _TEXTS.get(schema.get("format", ""), "str")
    if kind == "array":
        return f"list[{type_of(schema.get('items', {}))}]"
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"dict[str, {'Any' if isinstance(values, bool) else type_of(values)}]"
    if kind is None and not {"allOf", "oneOf", "not"} & schema.keys():
        return "Any"
    if kind not in _PLAIN:
        raise ValueError(f"no Python type for {sorted(schema)} of type {kind}")
    return _PLAIN[kind]


def _definition(name: str, schema: Document) -> str:
    if "properties" not in schema:
        return f"{name} = {type_of(schema)}\n\n\n"
    is_closed = schema.get("additionalProperties") is False
    bases = "Model" if is_closed else 'Model, extra="allow"'
    lines = [f"class {name}({bases}):\n"]
    required = set(schema.get("required", ()))
    for field, part in schema["properties"].items():
        named, kind = _identifier(field), type_of(part)
        aliases = f'validation_alias="{field}", serialization_alias="{field}"'
        if field in required:
            value = "" if named == field else f" = Field({aliases})"
        else:
            kind = " | ".join(dict.fromkeys([*kind.split(" | "), "None"]))
            value = " = None" if named == field else f" = Field(default=None, {aliases})"
        lines.append(f"    {named}: {kind}{value}\n")
    return "".join(lines) + "\n\n"


def _method(path: str, method: str, operation: Document) -> str:
    """Returns a method: parameters of the path by position, all others by name."""
    places: dict[str, list[tuple[str, str]]] = {"path": [], "query": [], "header": []}
    by_position, by_name = ["self"], list[str]()
    for one in operation.get("parameters", ()):
        named, kind = _identifier(one["name"]), type_of(one["schema"])
        places[one["in"]].append((one["name"], named))
        if one["in"] == "path":
            by_position.append(f"{named}: {kind}")
        elif one.get("required"):
            by_name.append(f"{named}: {kind}")
        else:
            kind = " | ".join(dict.fromkeys([*kind.split(" | "), "None"]))
            by_name.append(f"{named}: {kind} = None")
    body = ""
    if (asked := operation.get("requestBody")) is not None:
        kind = type_of(asked["content"]["application/json"]["schema"])
        by_position.append(f"body: {kind}" if asked.get("required") else f"body: {kind} = None")
        body = f", body, {kind}"
    answers = {
        int(code): _answer(answer)
        for code, answer in operation["responses"].items()
        if code.startswith("2")
    }
    returned = " | ".join(dict.fromkeys(answers.values()))
    table = ", ".join(f"{code}: {kind}" for code, kind in answers.items())
    filled = re.sub(
        r"\{(\w+)\}", lambda one: f"{{quote(str({_identifier(one[1])}), safe='')}}", path
    )
    query, headers = (
        "{" + ", ".join(f'"{name}": {named}' for name, named in places[place]) + "}"
        for place in ("query", "header")
    )
    signature = ", ".join([*by_position, *(["*", *by_name] if by_name else [])])
    # A local name gives the answer its type, so that mypy checks every caller.
    return (
        f"\n    async def {operation['operationId']}({signature}) -> {returned}:\n"
        f"        answer: {returned} = await self._call(\n"
        f'            "{method.upper()}", f"{filled}", {{{table}}}, {query}, {headers}{body}\n'
        f"        )\n"
        f"        return answer\n"
    )


def _answer(answer: Document) -> str:
    content = answer.get("content") or {}
    if "application/json" in content:
        return type_of(content["application/json"].get("schema", {}))
    return "str" if content or "schema" in answer else "None"


def _identifier(name: str) -> str:
    plain = re.sub(r"\W", "_", name).lower() if not name.isidentifier() else name
    return f"{plain}_" if keyword.iskeyword(plain) else plain


if __name__ == "__main__":  # python -m tests.support.typed_client < docs/openapi.json
    sys.stdout.write(generate_client(json.load(sys.stdin)))
