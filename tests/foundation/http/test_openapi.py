"""The OpenAPI document is complete: every operation says what it does and how it can fail."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

import app
from app.container.application import ROUTERS, create_api
from app.foundation.errors import Code
from app.foundation.http.openapi import TAGS
from app.foundation.http.openapi_fields import UNIT, UNITS, says_unit
from app.foundation.http.protocol import USUAL_STATUS
from tests.support.harness import make_api, open_client, openapi_document
from tests.support.problem_assertions import problem

Operation = dict[str, Any]
pytestmark = pytest.mark.xdist_group("openapi")  # the document takes a second: made once


@pytest.fixture(scope="session")
def document() -> Operation:
    return openapi_document()


@pytest.fixture(scope="session")
def operations(document: Operation) -> list[tuple[str, Operation]]:
    """Path and what is said of each operation there."""
    found = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
    assert len(found) > 60
    return found


def test_every_operation_explains_itself(operations: list[tuple[str, Operation]]) -> None:
    for path, operation in operations:
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path
        assert set(operation["tags"]) <= {tag["name"] for tag in TAGS}
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description") or parameter["schema"].get("description"), parameter


def test_every_operation_names_its_errors(operations: list[tuple[str, Operation]]) -> None:
    for path, operation in operations:
        responses = operation["responses"]
        assert any(status.startswith("2") for status in responses), path
        errors = {status: found for status, found in responses.items() if int(status) >= 400}
        assert "500" in errors, path
        for found in errors.values():
            assert found["content"].keys() == {"application/problem+json"}, path
            schema = found["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, path
            named = re.findall(r"`([a-z0-9_]+)`", found["description"])
            assert named, path
            assert set(named) <= set(Code), path
        if operation["tags"] != ["probes"]:
            assert errors.keys() >= {"400", "405", "414", "422", "431", "500", "503"}, path
        if "requestBody" in operation:
            assert errors.keys() >= {"400", "413", "415", "422"}, path
            assert operation["requestBody"]["content"].keys() == {"application/json"}, path
        if "{" in path:
            assert "404" in errors, path
        for status in ("429", "503"):
            assert status not in errors or "Retry-After" in errors[status]["headers"], path
        if operation.get("security"):
            assert "`rate_limited`" in errors["429"]["description"], path
            assert errors["429"]["headers"].keys() >= {"RateLimit", "RateLimit-Policy"}, path


def test_every_answer_is_a_model(operations: list[tuple[str, Operation]]) -> None:
    """Bare dictionaries would bypass the guard against infinities."""
    for path, operation in operations:
        for status, found in operation["responses"].items():
            content = found.get("content", {}).get("application/json")
            if content is None or int(status) >= 300:
                continue
            schema = content["schema"]
            part = schema.get("items", schema)
            assert "$ref" in part or {"$ref", "anyOf"} & part.keys(), path


def test_every_request_body_is_closed(document: Operation) -> None:
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            refs = re.findall(r"#/components/schemas/([A-Za-z0-9_\-]+)", str(schema))
            assert refs, path
            assert all(schemas[name]["additionalProperties"] is False for name in refs), path


# First word of an operationId by method. POST has any verb: its commands differ most.
READING_VERBS = {"get", "list", "export", "check", "calculate", "explain", "stream", "scrape"}
VERBS = {
    "get": READING_VERBS,
    "put": {"set", "update", "replace", "change"},
    "patch": {"update"},
    "delete": {"delete", "revoke", "end", "log"},
}


def test_operation_ids_are_a_verb_and_its_object(document: Operation) -> None:
    ids = []
    for methods in document["paths"].values():
        for method, operation in methods.items():
            name = operation["operationId"]
            assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name), name
            verb = name.partition("_")[0]
            assert verb not in READING_VERBS - {"check", "calculate"} or method == "get", name
            assert verb in VERBS.get(method, {verb}), name
            ids.append(name)
    assert len(ids) == len(set(ids))


def fields_of(document: Operation) -> Iterator[tuple[str, Operation]]:
    """Name and shape of every field of every schema, and of every parameter."""
    for name, schema in document["components"]["schemas"].items():
        for field, shape in schema.get("properties", {}).items():
            yield f"{name}.{field}", shape
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                described = {**parameter["schema"], "description": parameter["description"]}
                yield f"{path} {parameter['name']}", described


def numbers_in(shape: Operation) -> bool:
    """Whether a field is a number, a decimal string, or a list or map of them."""
    parts = [*shape.get("anyOf", ()), shape.get("items"), shape.get("additionalProperties")]
    if any(numbers_in(part) for part in parts if isinstance(part, dict)):
        return True
    is_decimal = shape.get("pattern", "").startswith("^-?(0|[1-9]") or UNIT in shape
    return shape.get("type") in {"integer", "number"} or is_decimal


def test_every_field_is_described(document: Operation) -> None:
    missing = [name for name, shape in fields_of(document) if not shape.get("description")]
    assert missing == []


def test_every_number_names_its_unit(document: Operation) -> None:
    """The unit is a member for programs and a part of the description for people."""
    numbers = [(name, shape) for name, shape in fields_of(document) if numbers_in(shape)]
    assert len(numbers) > 500
    assert [name for name, shape in numbers if shape.get(UNIT) not in UNITS] == []
    mute = [name for name, shape in numbers if not says_unit(shape["description"], shape[UNIT])]
    assert [name for name in mute if UNITS[dict(numbers)[name][UNIT]]] == []


def examples_of(operation: Operation) -> Iterator[tuple[str, Operation, object]]:
    """Place, schema and example of all parts of an operation that must have one."""
    for parameter in operation.get("parameters", ()):
        if parameter.get("required"):
            yield parameter["name"], parameter["schema"], parameter["example"]
    parts = {"body": operation.get("requestBody", {}), **operation["responses"]}
    for place, part in parts.items():
        for kind, content in part.get("content", {}).items():
            if kind == "application/problem+json":
                assert content["examples"], place
            elif kind == "application/json":
                yield place, content["schema"], content["example"]


def test_every_operation_has_valid_examples(document: Operation) -> None:
    problem_schema = {"$ref": "#/components/schemas/Problem"}
    schemas, examples = {}, {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for place, schema, example in examples_of(operation):
                name = f"{method} {path} {place}"
                schemas[name], examples[name] = schema, example
    for code, one in document["components"]["examples"].items():
        schemas[code], examples[code] = problem_schema, one["value"]
    assert document["components"]["examples"].keys() == set(Code)
    assert len(examples) > 250
    whole = {"properties": schemas, "components": document["components"]}
    errors = jsonschema_rs.validator_for(whole, validate_formats=True).iter_errors(examples)
    assert [(one.instance_path, one.message) for one in errors] == []


def test_the_document_names_its_server_and_explains_its_tags(document: Operation) -> None:
    assert [server["url"] for server in document["servers"]] == ["/"]
    assert all(server["description"] for server in document["servers"])
    assert all(len(tag["description"]) > 10 for tag in document["tags"])
    used = {
        tag
        for methods in document["paths"].values()
        for one in methods.values()
        for tag in one["tags"]
    }
    assert used == {tag["name"] for tag in document["tags"]}


def test_the_risk_score_is_documented_as_one_where_high_is_good(document: Operation) -> None:
    places = [shape for name, shape in fields_of(document) if name.endswith(".risk_score")]
    assert places
    assert all("high is good" in shape["description"].lower() for shape in places)


def test_the_problem_lists_every_code_once(document: Operation) -> None:
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == [code.value for code in Code]
    assert set(USUAL_STATUS) == set(Code)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_codes_in_the_code_are_codes_of_the_registry() -> None:
    """Every raised Code exists; no response bypasses validation."""
    for path in Path(next(iter(app.__path__))).rglob("*.py"):
        text = path.read_text()
        named = set(re.findall(r"\bCode\.([A-Z0-9_]+)\b", text))
        assert named <= set(Code.__members__), path
        assert "model_construct" not in text, path


def test_no_schema_is_called_by_where_its_code_lies(document: Operation) -> None:
    """Two models of one name would both get the names of their modules."""
    assert not [name for name in document["components"]["schemas"] if "__" in name]


def test_references_resolve(document: Operation) -> None:
    schemas = document["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/([^']+)", str(document)):
        assert name in schemas


async def test_docs_can_be_switched_off() -> None:
    async with open_client(make_api(docs=False)) as client:
        for path in ("/docs", "/openapi.json", "/docs-assets/swagger-ui.css", "/redoc"):
            problem(await client.get(path), 404, "not_found")


async def test_the_docs_page_asks_for_nothing_from_elsewhere(document: Operation) -> None:
    async with open_client(make_api()) as client:
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        found = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
        assert found
        for address in found:
            assert address.startswith("/docs-assets/")
            asset = await client.get(address)
            assert asset.status_code == 200
            assert len(asset.content) > 1000
        assert "//" not in re.sub(r"</?[a-z!][^>]*>", "", page.text).replace("//-", "")
        policy = page.headers["content-security-policy"]
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        assert "'sha256-" in policy
        assert (await client.get("/openapi.json")).json() == document


def test_the_product_is_named(document: Operation) -> None:
    assert document["info"]["title"] == "My Symbols"
    assert document["openapi"].startswith("3.1")
    assert document["tags"] == list(TAGS)
    assert create_api.__doc__
    assert ROUTERS


async def test_the_document_is_served_as_json(client: httpx2.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"


async def test_E03_the_document_is_made_beside_the_event_loop() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with open_client(make_api()) as client:
        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        answer = await client.get("/openapi.json")
        counting.cancel()
    assert answer.json()["openapi"].startswith("3.")
    assert turns > 100  # a few, were it made on the loop
