"""The application as a server runs it, put together from settings."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from app.cli.programs.settings import read_settings
from app.container.startup import open_service
from app.foundation.data_status import DataSource
from app.foundation.errors import Code, UnavailableError
from app.foundation.health import Mode
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.foundation.sql.key_value import KeyValueRepository
from app.main import create_app
from app.security.services.sealing import new_sealing_key
from app.settings import (
    DatabaseVariables,
    HttpVariables,
    KucoinVariables,
    LimitVariables,
    NotificationVariables,
    SecurityVariables,
    Settings,
    secret_values,
)
from tests.cli.command import here
from tests.support.harness import PREFIX, open_client
from tests.support.problem_assertions import problem

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there
NEW_KEY, OLD_KEY = (f"canary{new_sealing_key()[6:]}" for _ in range(2))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def settings(folder: Path, *, source: DataSource = DataSource.SANDBOX, **http: object) -> Settings:
    return Settings(
        kucoin=KucoinVariables(base_url=NOBODY, source=source, connect_timeout_s=0.5),
        database=DatabaseVariables(url=f"sqlite+aiosqlite:///{folder}/test.sqlite3"),
        http=HttpVariables(**{"allowed_hosts": ("service",), **http}),
        limits=LimitVariables(open_mode_per_s=1_000_000),
        run_background_tasks=False,
    )


@asynccontextmanager
async def running(given: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(create_app(given)) as client:
        yield client


async def test_allowed_hosts_are_the_configured_names_and_the_bound_one(
    tmp_path: Path,
) -> None:
    given = settings(tmp_path, host="Bound.Example", allowed_hosts=("desk",))
    url = given.database.url
    key = ("keys", "create", "admin", "--role", "admin")  # another address needs one
    created = await asyncio.to_thread(lambda: here(*key, MYSYMBOLS_DATABASE__URL=url))
    assert created.code == 0
    async with running(given) as client:
        for name, status in {"bound.example": 200, "desk": 200, "service": 421}.items():
            answer = await client.get("/livez", headers={"Host": name})
            assert answer.status_code == status


async def test_S17_the_open_mode_is_named_until_the_first_key_ends_it(tmp_path: Path) -> None:
    async with running(settings(tmp_path)) as client:
        assert (await client.get(f"{PREFIX}/health")).json()["access"] == "open"
        assert "Open mode" in (await client.get("/docs")).text
        assert (await client.get("/readyz")).json()["last_success_at"] is not None
        wanted = {"name": "eye", "role": "viewer"}
        created = await client.post(f"{PREFIX}/keys", json=wanted)
        key = {"X-API-Key": created.json()["secret"]}
        guarded = ("/metrics", "/docs", "/openapi.json", "/asyncapi.json")
        for path in (f"{PREFIX}/health", f"{PREFIX}/portfolio", *guarded):
            problem(await client.get(path), 401, "unauthenticated")
            assert (await client.get(path, headers=key)).status_code == 200
        assert (await client.get(f"{PREFIX}/health", headers=key)).json()["access"] == "keys"
        page = await client.get("/docs", headers=key)
        assert "Open mode" not in page.text
        assert "swagger-ui" in page.text
        hidden, shown = await client.get("/readyz"), await client.get("/readyz", headers=key)
        assert (hidden.status_code, hidden.json()["state"]) == (200, "up")
        assert {name for name, value in hidden.json().items() if value is not None} == {
            "name", "state",
        }  # fmt: skip
        assert shown.json()["last_success_at"] is not None
        assert (await client.get("/livez", headers={"X-API-Key": "wrong"})).status_code == 200
    local_key = tmp_path / "test-local.key"
    async with running(settings(tmp_path)) as client:
        local = {"X-API-Key": local_key.read_text().strip()}
        assert (await client.get(f"{PREFIX}/keys", headers=local)).status_code == 200


async def test_limits_proxies_and_allowed_addresses_come_from_the_settings(
    tmp_path: Path,
) -> None:
    network = ip_network("198.51.100.0/24")
    given = settings(
        tmp_path, trusted_proxies=(ip_network("127.0.0.1"),), allowed_addresses=(network,)
    ).model_copy(update={"limits": LimitVariables(open_mode_per_s=3, address_per_s=2)})
    given = given.model_copy(
        update={"limits": given.limits.model_copy(update={"streams_per_principal": 4})}
    )
    assert create_app(given).state.stream_slots.per_principal == 4
    async with running(given) as client:
        answers = [await client.get(f"{PREFIX}/health") for _ in range(20)]
        assert answers[0].status_code == 200
        refused = next(answer for answer in answers if answer.status_code == 429)
        found = problem(refused, 429, "rate_limited", extra=frozenset({"limit"}))
        assert found["limit"] == "open_mode"
        assert refused.headers["ratelimit-policy"] == '"open_mode";q=3;w=1'
        for address, status in {"198.51.100.7": 401, "198.51.101.7": 403}.items():
            named = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
            answer = await client.get(f"{PREFIX}/health", headers=named)
            assert answer.status_code == status
            assert "strict-transport-security" in answer.headers


async def test_the_bound_of_all_streams_comes_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSYMBOLS_LIMITS__STREAMS", "2")
    given = settings(tmp_path).model_copy(update={"limits": read_settings().limits})
    failures: list[Exception] = []
    async with open_service(given, Metrics(), failures.append) as state:
        stream = state["my_symbols"].stream
        with stream.reader("sse"), stream.reader("websocket"):
            with pytest.raises(UnavailableError) as refused, stream.reader("sse"):
                pass
            assert refused.value.code is Code.OVERLOADED
        with stream.reader("sse"):
            pass
    assert failures == []


async def test_it_starts_and_stays_up_without_an_exchange(tmp_path: Path) -> None:
    async with running(settings(tmp_path)) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json()["state"] == "up"
        health = (await client.get(f"{PREFIX}/health")).json()
        assert (health["data_source"], health["data_status"]) == ("sandbox", "unavailable")
        assert {one["name"]: one["state"] for one in health["components"]}[
            "security_events"
        ] == "up"
        assert health["mode"] == "FROZEN"
        status = (await client.get(f"{PREFIX}/status")).json()
        assert status["scoring"] is None
        assert status["portfolio"]["size"] == 0
        assert status["portfolio"]["cash_percentage"] == 100.0
        text = (await client.get("/metrics")).text
        assert 'mysymbols_service_info{data_source="sandbox"' in text
        assert "/api/symbol-mgmt/health" in (await client.get("/openapi.json")).text


async def test_B08_the_service_halts_while_its_disk_is_full(tmp_path: Path) -> None:
    given_up: list[Exception] = []
    async with open_service(settings(tmp_path), Metrics(), given_up.append) as state:
        status = state["my_symbols"].status
        database: Database = state["my_symbols"].portfolio.database

        async def disk(pages: int) -> None:
            async with database.write() as unit:
                await unit.connection.execute(text(f"PRAGMA max_page_count = {pages}"))

        decides_by = state["my_symbols"].trading.contexts.mode
        assert state["mode"]() is Mode.FROZEN, "there is no market here"
        await disk(1)  # as many as there are
        with pytest.raises(UnavailableError):
            async with database.write() as unit:
                await unit.get(KeyValueRepository).put("ballast", "x" * 1_000_000)
        assert state["mode"]() is Mode.HALTED, "as every answer says, before anybody has looked"
        assert decides_by().mode is Mode.HALTED
        assert (await status.health()).mode is Mode.HALTED
        await disk(1_000_000)
        assert (state["mode"](), decides_by().mode) == (Mode.HALTED, Mode.HALTED)
        assert (await status.health()).mode is Mode.FROZEN, "there is no market here"
        assert (state["mode"](), decides_by().mode) == (Mode.FROZEN, Mode.FROZEN), "at once"


async def test_S11_the_service_refuses_private_receivers_of_every_kind_unless_it_is_set_so(
    tmp_path: Path,
) -> None:
    given = settings(tmp_path)
    allowed = NotificationVariables(allow_private_addresses=True)
    receivers = {
        "webhook": ("https://127.0.0.1/x", "https://192.0.0.192/x"),
        "apprise": (
            "mailto://127.0.0.1:8165?to=you@example.com&mode=insecure",
            "mailto://example.com?smtp=169.254.169.254",
            "json://127.0.0.1/x",
        ),
    }
    wanted = [(kind, url) for kind, urls in receivers.items() for url in urls]
    for one, status in ((given, 422), (given.model_copy(update={"notifications": allowed}), 201)):
        async with running(one) as client:
            for number, (kind, url) in enumerate(wanted):
                body = {"name": f"c-{number}", "kind": kind, "url": url, "secret": "s" * 16}
                answer = await client.post(f"{PREFIX}/notifications/channels", json=body)
                assert answer.status_code == status, (url, answer.text)


async def test_sample_data_needs_the_sandbox_and_its_answer(tmp_path: Path) -> None:
    async with running(settings(tmp_path)) as client:
        response = await client.post(f"{PREFIX}/initialize-sample-data")
        problem(response, 503, "exchange_unavailable")
    other = tmp_path / "live"
    other.mkdir()
    async with running(settings(other, source=DataSource.KUCOIN)) as client:
        response = await client.post(f"{PREFIX}/initialize-sample-data")
        problem(response, 409, "sandbox_only")


async def test_docs_and_cors_follow_the_settings(tmp_path: Path) -> None:
    given = settings(tmp_path, docs=False, cors_origins=("https://desk.example",))
    async with running(given) as client:
        problem(await client.get("/docs"), 404, "not_found")
        response = await client.get("/livez", headers={"Origin": "https://desk.example"})
        assert response.headers["access-control-allow-origin"] == "https://desk.example"


async def test_a_cursor_is_valid_in_every_process_on_the_database(tmp_path: Path) -> None:
    async def page(client: httpx2.AsyncClient, **query: str) -> httpx2.Response:
        return await client.get(f"{PREFIX}/portfolio/history", params={"limit": "1", **query})

    first = settings(tmp_path)
    async with running(first) as client:
        for number in range(2):
            switch = {"enabled": number == 1, "reason": "x"}
            await client.put(f"{PREFIX}/portfolio/trading-switch", json=switch)
        cursor = (await page(client)).json()["next_cursor"]
        assert (await page(client, cursor=cursor)).json()["items"][0]["sequence"] == 1
    async with running(first) as client:  # other cursors are refused, or this would say nothing
        problem(await page(client, cursor=cursor[:-4] + "AAAA"), 422, "validation_failed")
        assert (await page(client, cursor=cursor)).json()["items"][0]["sequence"] == 1


def test_S13_every_secret_of_the_settings_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    given = settings(tmp_path, cursor_secret=SecretStr("canary-cursor")).model_copy(
        update={
            "database": DatabaseVariables(url="postgresql+asyncpg://me:canary%2Fdb@db/x"),
            "security": SecurityVariables(sealing_keys=SecretStr(f"{NEW_KEY}, {OLD_KEY}")),
        }
    )
    secrets = ["canary-cursor", "canary%2Fdb", "canary/db", NEW_KEY, OLD_KEY]
    assert secret_values(given) == [
        *secrets[1:3],
        secrets[0],
        f"{NEW_KEY}, {OLD_KEY}",
        *secrets[3:],
    ]
    create_app(given)
    structlog.get_logger().info(" ".join(secrets), given=given)
    assert stream.getvalue()
    assert "canary" not in stream.getvalue()
