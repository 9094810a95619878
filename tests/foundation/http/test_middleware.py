"""The border around every request: ids, limits, headers, the log line and the metrics."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.foundation.health import Mode
from app.foundation.http.middleware import RequestMiddleware
from app.foundation.http.permissions import AUTHENTICATOR, public
from app.foundation.metrics import Metrics
from app.telemetry.logging import configure_logging
from tests.support.harness import OPEN, make_api, open_client, serve
from tests.support.problem_assertions import located, problem
from tests.support.sample_routes import sample_router

SAMPLES = "/api/symbol-mgmt/samples"


async def test_each_request_has_an_id() -> None:
    async with serve([sample_router()]) as client:
        first = await client.get(f"{SAMPLES}/items")
        second = await client.get(f"{SAMPLES}/items")
        assert first.headers["x-request-id"] == "request-00000001"
        assert second.headers["x-request-id"] == "request-00000002"
        given = {"X-Request-ID": "caller-Chosen_0001"}
        refused = await client.get("/nowhere", headers=given)
        assert refused.json()["request_id"] == "caller-Chosen_0001"
        seen = await client.put(f"{SAMPLES}/versioned", json={}, headers=given)
        assert seen.json()["details"]["request_id"] == "caller-Chosen_0001"


@pytest.mark.parametrize("text", ["short", "x" * 65, "with space", "semi;colon", 'quote"d-id-12'])
async def test_an_unfit_id_is_replaced(client: httpx2.AsyncClient, text: str) -> None:
    twice = [("X-Request-ID", "given-once-1"), ("X-Request-ID", "given-twice-2")]
    for headers in ([("X-Request-ID", text)], twice):
        response = await client.get(f"{SAMPLES}/items", headers=headers)
        (sent,) = response.headers.get_list("x-request-id")
        assert sent.startswith("request-")


async def test_answers_carry_security_headers(client: httpx2.AsyncClient) -> None:
    paths = (f"{SAMPLES}/items", "/nowhere", f"{SAMPLES}/crash", "/openapi.json", "/docs", "/livez")
    for path in (*paths, "/docs-assets/swagger-ui.css", "/" + "x" * 9_000):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        if path == "/docs":
            assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
            assert policy.endswith("frame-ancestors 'none'")
        else:
            assert policy == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "camera=()" in headers["permissions-policy"]
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers, "the connection has no TLS"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


async def test_I17_large_heads(client: httpx2.AsyncClient) -> None:
    response = await client.get(f"{SAMPLES}/items", headers={"X-Filler": "x" * 65_536})
    problem(response, 431, "headers_too_large")
    many = [(f"X-Filler-{number}", "x" * 100) for number in range(400)]
    problem(await client.get(f"{SAMPLES}/items", headers=many), 431, "headers_too_large")
    response = await client.get(f"{SAMPLES}/items?prefix=" + "x" * 60_000)
    problem(response, 414, "uri_too_long")
    response = await client.get(f"{SAMPLES}/symbols/" + "x" * 60_000)
    problem(response, 414, "uri_too_long")
    fitting = {"X-Filler": "x" * 16_000}
    assert (await client.get(f"{SAMPLES}/items", headers=fitting)).status_code == 200


async def test_cors_is_off_unless_origins_are_configured() -> None:
    origin = {"Origin": "https://desk.example", "Access-Control-Request-Method": "POST"}
    async with serve([sample_router()]) as client:
        response = await client.options(f"{SAMPLES}/orders", headers=origin)
        problem(response, 405, "method_not_allowed")
        response = await client.get(f"{SAMPLES}/items", headers=origin)
        assert not [name for name in response.headers if name.startswith("access-control")]
    async with serve([sample_router()], cors_origins=("https://desk.example",)) as client:
        response = await client.options(f"{SAMPLES}/orders", headers=origin)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://desk.example"
        told = await client.get(f"{SAMPLES}/items", headers={"Origin": "https://desk.example"})
        exposed = told.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Idempotency-Replayed", "Preference-Applied"} <= set(exposed)
        for stranger in ("null", "https://desk.example.evil", "http://desk.example", "*"):
            headers = {**origin, "Origin": stranger}
            for answer in (
                await client.options(f"{SAMPLES}/orders", headers=headers),
                await client.get(f"{SAMPLES}/items", headers=headers),
            ):
                assert "access-control-allow-origin" not in answer.headers


@asynccontextmanager
async def logged(form: str = "json") -> AsyncIterator[tuple[httpx2.AsyncClient, io.StringIO]]:
    stream = io.StringIO()
    configure_logging(level="info", form=form, stream=stream)  # type: ignore[arg-type]  # a form
    try:
        async with serve([sample_router()]) as client:
            yield client, stream
    finally:
        structlog.reset_defaults()


async def test_one_canonical_line_per_request() -> None:
    async with logged() as (client, stream):
        await client.get(f"{SAMPLES}/symbols/BTCUSDT?amount=5")
        await client.get(f"{SAMPLES}/symbols/BTCUSDT?amount=x")
        await client.get("/nowhere/secret-in-path?name=secret-in-query")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["route"], line["status"], line.get("code")) for line in lines] == [
        (f"{SAMPLES}/symbols/{{symbol}}", 200, None),
        (f"{SAMPLES}/symbols/{{symbol}}", 422, "validation_failed"),
        ("unmatched", 404, "not_found"),
    ]
    assert {line["event"] for line in lines} == {"request"}
    assert {line["method"] for line in lines} == {"GET"}
    # The clock is read at the request, the start of the response and its end.
    assert all(line["ms"] == 2.0 and line["request_id"] for line in lines)
    assert "secret-in" not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
async def test_S14_a_request_cannot_forge_a_log_line(form: str) -> None:
    async with logged(form) as (client, stream):
        attack = "A%0d%0a%1b%5b31mforged%22%7d"
        await client.get(
            f"{SAMPLES}/symbols/{attack}", headers={"X-Request-ID": "a\x1b[31m\x0bforged"}
        )
        await client.get(f"{SAMPLES}/items?prefix={attack}", headers={"User-Agent": "x\x1bforged"})
        await client.post(f"{SAMPLES}/orders", json={"symbol": "\r\n\x1b[31mforged"})
    assert len(stream.getvalue().splitlines()) == 3
    assert "\x1b" not in stream.getvalue()
    assert "forged" not in stream.getvalue()


async def test_metrics_count_by_route_template() -> None:
    metrics = Metrics()
    async with serve([sample_router()], metrics=metrics) as client:
        await client.get(f"{SAMPLES}/symbols/A")
        await client.get(f"{SAMPLES}/symbols/B")
        await client.get(f"{SAMPLES}/crash")
        await client.request("BREW", "/a/teapot")
        text = (await client.get(f"{SAMPLES}/items")).text
    text = metrics.render().decode()
    total, seconds = "mysymbols_http_requests_total", "mysymbols_http_request_seconds_count"
    one = f'method="GET",route="{SAMPLES}/symbols/{{symbol}}"'
    for line in (
        f'{total}{{{one},status="200"}} 2.0',
        f'{total}{{method="GET",route="{SAMPLES}/crash",status="500"}} 1.0',
        f'{total}{{method="OTHER",route="unmatched",status="404"}} 1.0',
        f"{seconds}{{{one}}} 2.0",
        "mysymbols_http_requests_in_flight 0.0",
    ):
        assert line in text
    assert "/symbols/A" not in text


async def test_a_response_time_ends_where_the_response_starts() -> None:
    """An event stream stays open for hours and is no slow response."""
    now, metrics = 0.0, Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now
        now += 0.25
        await send({"type": "http.response.start", "status": 200, "headers": []})
        now += 3_600.0
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        del message

    middleware = RequestMiddleware(app, metrics, lambda: "id", lambda: now)
    await middleware(
        {
            "type": "http", "method": "GET", "path": "/a", "raw_path": b"/a", "query_string": b"",
            "headers": [], "http_version": "1.1", "scheme": "http",
        },
        receive,
        send,
    )  # fmt: skip
    assert metrics.response_times.quantiles().p99_s == 0.25
    assert 'seconds_sum{method="GET",route="unmatched"} 3600.25' in metrics.render().decode()


async def test_a_caller_that_leaves_is_logged_as_gone() -> None:
    api = make_api(routers=[sample_router()])
    scope: Scope = {
        "type": "http", "method": "POST", "path": f"{SAMPLES}/orders", "query_string": b"",
        "raw_path": f"{SAMPLES}/orders".encode(), "http_version": "1.1", "scheme": "http",
        "headers": [(b"content-type", b"application/json")], "server": ("s", 1),
        "client": ("127.0.0.1", 2), "state": {AUTHENTICATOR: OPEN},
    }  # fmt: skip
    events: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        return events.pop() if events else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        del message

    with structlog.testing.capture_logs() as lines:
        await api(scope, receive, send)
    assert [(line["event"], line["status"]) for line in lines] == [("request", 499)]


async def test_the_lifespan_passes_through_and_its_state_arrives() -> None:
    closed = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        yield {"my_symbols": "service"}
        closed.append(True)

    messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    api = make_api()
    api.router.lifespan_context = lifespan
    state: dict[str, object] = {}
    await api({"type": "lifespan", "state": state}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert state == {"my_symbols": "service"}
    assert closed


async def test_conditions_and_idempotency_keys() -> None:
    async with open_client(make_api(routers=[sample_router()])) as client:
        path = f"{SAMPLES}/versioned"

        async def version(**headers: str) -> httpx2.Response:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.put(path, json={}, headers=names)

        assert (await version()).json()["symbol"] == "None"
        assert (await version(If_Match="*")).json()["symbol"] == "None"
        assert (await version(If_Match='"12"')).json()["symbol"] == "12"
        problem(await version(If_Match='"abc"'), 412, "precondition_failed")
        problem(await version(If_Match='W/"12"'), 412, "precondition_failed")
        for text in ("12", '"1", "2"', "", '"', '"1'):
            body = problem(await version(If_Match=text), 422, "validation_failed")
            assert located(body) == [{"loc": ["header", "If-Match"], "type": "etag"}]
        fresh = await client.get(path)
        assert (fresh.status_code, fresh.headers["etag"]) == (200, '"12"')
        for tags in ('"12"', '"1", W/"12"', "*"):
            held = await client.get(path, headers={"If-None-Match": tags})
            assert (held.status_code, held.content) == (304, b"")
        assert (await client.get(path, headers={"If-None-Match": '"11"'})).status_code == 200


async def test_idempotency_keys_are_visible_ascii_and_stand_for_one_request() -> None:
    async with serve([sample_router()]) as client:
        path = f"{SAMPLES}/orders"

        async def mark(body: str, key: str | bytes) -> httpx2.Response:
            headers = [(b"Content-Type", b"application/json")]
            raw = key if isinstance(key, bytes) else key.encode()
            return await client.post(
                path, content=body.encode(), headers=[*headers, (b"Idempotency-Key", raw)]
            )

        async def seen(body: str) -> str:
            return str((await mark(body, "k" * 255)).json()["details"]["fingerprint"])

        first = await seen('{"symbol":"A","lots":2}')
        assert first == await seen(' {"lots" : 2, "symbol": "\\u0041"} ')
        assert first != await seen('{"symbol":"A","lots":3}')
        for key in ("", "k" * 256, "with space", "tab\tbed", "ключ", b"\xff"):
            body = problem(await mark('{"symbol":"A"}', key), 422, "validation_failed")
            assert located(body) == [
                {"loc": ["header", "Idempotency-Key"], "type": "idempotency_key"}
            ]
        twice = [("Idempotency-Key", "first"), ("Idempotency-Key", "second")]
        problem(
            await client.post(path, json={"symbol": "A"}, headers=twice), 422, "validation_failed"
        )


async def test_HEAD_is_a_GET_without_the_body(client: httpx2.AsyncClient) -> None:
    own = {"x-request-id", "date"}
    paths = ("items", "items?limit=x", "orders", "versioned", "errors/unavailable", "crash", "bare")
    for path in (*(f"{SAMPLES}/{name}" for name in paths), "/livez", "/nowhere", "/openapi.json"):
        read, asked = await client.get(path), await client.head(path)
        assert asked.status_code == read.status_code, path
        assert asked.content == b""
        for name in read.headers.keys() - own:
            if read.status_code < 400 or name != "content-length":  # a problem names its request
                assert asked.headers[name] == read.headers[name], (path, name)
    assert (await client.get(f"{SAMPLES}/orders")).json()["symbol"] == "", "nothing was changed"


async def test_a_HEAD_is_counted_as_HEAD_and_ends_a_stream() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"data: tick\n\n"
            await asyncio.sleep(0)

    router = APIRouter(prefix="/samples")
    router.add_api_route(
        "/stream", public(lambda: StreamingResponse(endless(), media_type="text/event-stream"))
    )
    metrics = Metrics()
    async with serve([router], metrics=metrics) as client, asyncio.timeout(60):
        answer = await client.head(f"{SAMPLES}/stream")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b""
    assert sent < 100
    counted = metrics.http_requests.labels("HEAD", f"{SAMPLES}/stream", "200")
    assert counted._value.get() == 1.0


@pytest.mark.parametrize("mode", list(Mode))
async def test_every_answer_tells_the_mode_of_the_service(mode: Mode) -> None:
    async with serve([sample_router()], {"mode": lambda: mode}) as client:
        for path in (f"{SAMPLES}/items", f"{SAMPLES}/crash", "/livez", "/nowhere", "/metrics"):
            assert (await client.get(path)).headers["x-service-mode"] == mode.value
        assert (await client.post(f"{SAMPLES}/orders")).headers["x-service-mode"] == mode.value
        refused = await client.get("/livez", headers={"Host": "evil.example"})
        assert refused.headers["x-service-mode"] == mode.value
    async with serve([sample_router()]) as client:  # nobody knows it
        assert "x-service-mode" not in (await client.get("/livez")).headers
