"""Row I24: whatever the body, no 5xx and no error that is not a problem document.

MYTESTS_HOSTILE_BODIES sets how many bodies are tried; the ordinary run tries a few thousand.
"""

import json
import os
import random

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope

from app.foundation.http.permissions import AUTHENTICATOR
from tests.support.harness import OPEN, make_api, open_client
from tests.support.hostile_inputs import mutated
from tests.support.problem_assertions import well_formed
from tests.support.sample_routes import sample_router

API = make_api(routers=[sample_router()])
SEED = 20261121
BODIES = int(os.environ.get("MYTESTS_HOSTILE_BODIES", "1200"))
PATHS = ("orders", "optional", "versioned")
JSON = "application/json"


def judge(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        assert response.status_code < 500, response.text
        well_formed(response)
    else:
        json.loads(response.text, parse_constant=pytest.fail)


async def test_I24_mutated_bodies_never_break_anything() -> None:
    rng = random.Random(SEED)
    statuses: set[int] = set()
    async with open_client(API) as client:
        for _ in range(BODIES):
            body, name = mutated(rng), rng.choice(PATHS)
            send = client.put if name == "versioned" else client.post
            try:
                response = await send(
                    f"/api/symbol-mgmt/samples/{name}", content=body, headers={"Content-Type": JSON}
                )
                judge(response)
            except Exception as error:
                raise AssertionError(f"seed {SEED}: {body!r}") from error
            statuses.add(response.status_code)
    assert statuses >= {200, 201, 400, 422}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["symbol", "weight", "lots", "amount", "at", "reason", "firm", "x"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=VALUES, declared=st.sampled_from([JSON, "text/plain", "", "application/json;x=1"]))
async def test_I24_any_document_gets_an_answer(document: object, declared: str) -> None:
    async with open_client(API) as client:
        response = await client.post(
            "/api/symbol-mgmt/samples/orders",
            content=json.dumps(document).encode(),
            headers={"Content-Type": declared},
        )
    judge(response)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=st.binary(max_size=60), path=st.binary(max_size=30), is_encoded=st.booleans())
async def test_I24_any_address_gets_an_answer(
    query: bytes, path: bytes, *, is_encoded: bool
) -> None:
    if is_encoded:
        query, path = (b"".join(b"%%%02x" % byte for byte in raw) for raw in (query, path))
    for raw_path, raw_query in (
        (b"/api/symbol-mgmt/samples/items", query),
        (b"/api/symbol-mgmt/samples/items", b"prefix=" + query),
        (b"/api/symbol-mgmt/samples/symbols/" + path, b""),
        (path, query),
    ):
        judge(await ask(raw_path, raw_query))


async def ask(raw_path: bytes, query: bytes) -> httpx2.Response:
    """One GET with exactly these bytes, which an ordinary client would refuse to send."""
    scope: Scope = {
        "type": "http", "method": "GET", "http_version": "1.1", "scheme": "http", "headers": [],
        "path": raw_path.decode("latin-1"), "raw_path": raw_path, "query_string": query,
        "server": ("s", 1), "client": ("127.0.0.1", 2), "root_path": "",
        "state": {AUTHENTICATOR: OPEN},
    }  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await API(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx2.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)
