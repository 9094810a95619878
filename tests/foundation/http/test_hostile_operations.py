"""Row I24 on the product itself: every operation, hostile bodies and values, no bug comes out.

There is no exchange here, so 503 with a reason is an honest answer; 500 never is.
"""

import json
import logging
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.main import create_app
from tests.support.harness import PREFIX, open_client, openapi_document
from tests.support.hostile_inputs import VALUES, mutated
from tests.support.problem_assertions import well_formed
from tests.support.service_in_process import UNLIMITED
from tests.test_main import settings

pytestmark = pytest.mark.long
SEED = 20261122
CALLS = int(os.environ.get("MYTESTS_HOSTILE_CALLS", "25"))  # to each operation
OPERATIONS = [
    (method, path, operation)
    for path, methods in openapi_document()["paths"].items()
    for method, operation in methods.items()
    if path.startswith(PREFIX)
]


@pytest.fixture
async def product(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    given = settings(tmp_path).model_copy(update={"limits": UNLIMITED})
    async with open_client(create_app(given)) as client:
        yield client
    root.handlers[:], root.level = handlers, level


def judge(response: httpx2.Response) -> None:
    if response.status_code < 400:
        if response.content:
            json.loads(response.text, parse_constant=pytest.fail)
        return
    body = well_formed(response)
    assert response.status_code < 500 or (
        response.status_code == 503 and body["code"] != "internal_error"
    ), response.text


async def call(
    client: httpx2.AsyncClient, rng: random.Random, method: str, path: str, about: dict[str, Any]
) -> httpx2.Response:
    names = [part for part in about.get("parameters", ()) if part["in"] == "query"]
    query = {part["name"]: rng.choice(VALUES) for part in names if rng.random() < 0.6}
    segments = [
        httpx2.QueryParams({"v": rng.choice(VALUES)}).__str__()[2:] if "{" in part else part
        for part in path.split("/")
    ]
    sent: dict[str, Any] = {"params": query}
    if "requestBody" in about:
        sent |= {"content": mutated(rng), "headers": {"Content-Type": "application/json"}}
    return await client.request(method.upper(), "/".join(segments).replace("+", "%20"), **sent)


async def test_I24_no_operation_breaks(product: httpx2.AsyncClient) -> None:
    rng = random.Random(SEED)
    assert len(OPERATIONS) > 20
    for method, path, about in OPERATIONS:
        for _ in range(CALLS):
            response = await call(product, rng, method, path, about)
            try:
                judge(response)
            except AssertionError as error:
                request = response.request
                text = f"{request.method} {request.url} {request.content!r}"
                raise AssertionError(f"seed {SEED}: {text}\n{response.text}") from error
