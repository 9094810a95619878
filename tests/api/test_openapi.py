"""The OpenAPI document is complete: every operation says what it does and how it can fail."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

import app
from app.api.application import ROUTERS, create_api
from app.api.docs import TAGS
from app.api.problems import USUAL_STATUS
from app.domain.errors import Code
from tests.api.harness import make_api, open_client, openapi_document
from tests.api.judging import problem

DOCUMENT = openapi_document()
OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_operation_explains_itself(path: str, method: str, operation: dict[str, Any]) -> None:
    del method
    assert operation["summary"]
    assert operation["description"], path
    assert operation["tags"]
    assert set(operation["tags"]) <= {tag["name"] for tag in TAGS}
    for parameter in operation.get("parameters", ()):
        assert parameter.get("description") or parameter["schema"].get("description"), parameter


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_operation_names_its_errors(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    del method
    responses = operation["responses"]
    assert any(status.startswith("2") for status in responses)
    errors = {status: found for status, found in responses.items() if int(status) >= 400}
    assert "500" in errors
    for found in errors.values():
        assert found["content"].keys() == {"application/problem+json"}
        schema = found["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
        named = re.findall(r"`([a-z0-9_]+)`", found["description"])
        assert named
        assert set(named) <= set(Code)
    if operation["tags"] != ["probes"]:
        assert errors.keys() >= {"400", "405", "414", "422", "431", "500", "503"}
    if "requestBody" in operation:
        assert errors.keys() >= {"400", "413", "415", "422"}
        assert operation["requestBody"]["content"].keys() == {"application/json"}
    if "{" in path:
        assert "404" in errors
    for status in ("429", "503"):
        assert status not in errors or "Retry-After" in errors[status]["headers"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_answer_is_a_model(path: str, method: str, operation: dict[str, Any]) -> None:
    """Bare dictionaries would bypass the guard against infinities."""
    del method
    for status, found in operation["responses"].items():
        content = found.get("content", {}).get("application/json")
        if content is None or int(status) >= 300:
            continue
        schema = content["schema"]
        part = schema.get("items", schema)
        assert "$ref" in part or {"$ref", "anyOf"} & part.keys(), path


def test_every_request_body_is_closed() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            refs = re.findall(r"#/components/schemas/([A-Za-z0-9_\-]+)", str(schema))
            assert refs, path
            assert all(schemas[name]["additionalProperties"] is False for name in refs), path


def test_operation_ids_are_unique() -> None:
    ids = [operation.values[2]["operationId"] for operation in OPERATIONS]  # type: ignore[index]  # a document
    assert len(ids) == len(set(ids))


def test_the_problem_lists_every_code_once() -> None:
    codes = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == [code.value for code in Code]
    assert set(USUAL_STATUS) == set(Code)
    assert "HTTPValidationError" not in DOCUMENT["components"]["schemas"]


def test_codes_in_the_code_are_codes_of_the_registry() -> None:
    """Every Code that is raised anywhere exists; nobody builds answers around validation."""
    for path in Path(next(iter(app.__path__))).rglob("*.py"):
        text = path.read_text()
        named = set(re.findall(r"\bCode\.([A-Z0-9_]+)\b", text))
        assert named <= set(Code.__members__), path
        assert "model_construct" not in text, path


def test_references_resolve() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/([^']+)", str(DOCUMENT)):
        assert name in schemas


async def test_docs_can_be_switched_off() -> None:
    async with open_client(make_api(docs=False)) as client:
        for path in ("/docs", "/openapi.json", "/docs-assets/swagger-ui.css", "/redoc"):
            problem(await client.get(path), 404, "not_found")


async def test_the_docs_page_asks_for_nothing_from_elsewhere() -> None:
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
        assert (await client.get("/openapi.json")).json() == DOCUMENT


def test_the_product_is_named() -> None:
    assert DOCUMENT["info"]["title"] == "My Symbols"
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["tags"] == list(TAGS)
    assert create_api.__doc__
    assert ROUTERS


async def test_the_document_is_served_as_json(client: httpx2.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
