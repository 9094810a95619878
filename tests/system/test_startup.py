"""B01: a service whose database server is away at its start lives, says so and opens by itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from sqlalchemy import text

from app.cli.exit_codes import ExitCode
from app.foundation.data_status import DataSource
from app.foundation.http.startup_guard import STARTUP_STATE, StartupGuard, StartupState
from app.foundation.sql import migrations
from app.main import create_app
from app.settings import DatabaseVariables, KucoinVariables, Settings
from tests.cli.command import PATIENCE_S, ended, started
from tests.conftest import MakeDatabase
from tests.support import postgres
from tests.support.database_outage import reachable
from tests.support.harness import PREFIX, open_client
from tests.support.problem_assertions import problem
from tests.system.test_exchange_away import free_port

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there
on_postgres = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def settings(url: str) -> Settings:
    return Settings(
        kucoin=KucoinVariables(base_url=NOBODY, source=DataSource.SANDBOX, connect_timeout_s=0.5),
        database=DatabaseVariables(url=url, pool_wait_s=60.0),
        run_background_tasks=False,
    )


@asynccontextmanager
async def serving(given: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, list[Exception]]]:
    """A client, and why the service gave up, if it did."""
    app, given_up = create_app(given), list[Exception]()
    app.state.give_up = given_up.append
    async with open_client(app) as client:
        client.headers["Host"] = "127.0.0.1"
        yield client, given_up


async def component(client: httpx2.AsyncClient, name: str) -> dict[str, Any]:
    answer = await client.get(f"{PREFIX}/health")
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["components"]
    return next(one for one in found if one["name"] == name)


@on_postgres
async def test_B01_a_database_that_is_down_at_boot_is_waited_for(
    database_url: str, postgres_server: postgres.Server
) -> None:
    await reachable(postgres_server.room, database_url, on=False)
    async with serving(settings(database_url)) as (client, given_up):
        assert (await client.get("/livez")).status_code == 200
        for path in ("/readyz", f"{PREFIX}/portfolio", f"{PREFIX}/status"):
            refused = await client.get(path)
            problem(refused, 503, "database_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.headers["X-Service-Mode"] == "FROZEN"
        changed = await client.post(f"{PREFIX}/portfolio/initialize", json={})
        problem(changed, 503, "database_unavailable")
        database = await component(client, "database")
        assert (database["state"], database["cause"]) == ("down", "database_unavailable")
        async with asyncio.timeout(PATIENCE_S):  # it tries again and again
            while (await component(client, "task:opening"))["cause"] is None:
                await asyncio.sleep(0.05)
        assert (await component(client, "database"))["since"] == database["since"]

        await reachable(postgres_server.room, database_url, on=True)
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        assert (await client.get(f"{PREFIX}/portfolio")).json()["members"] == []
        assert (await component(client, "database"))["state"] == "up"
        switched = await client.put(
            f"{PREFIX}/portfolio/trading-switch", json={"enabled": False, "reason": "as a test"}
        )
        assert switched.status_code == 200, switched.text
        assert given_up == []


@on_postgres
async def test_B01_serve_stays_up_without_its_database_and_ends_with_what_waiting_cannot_heal(
    database_url: str, postgres_server: postgres.Server, make_database: MakeDatabase, tmp_path: Path
) -> None:
    database = make_database(database_url)
    await database.open()
    await database.bind_source(DataSource.KUCOIN)  # as will be seen once it can be looked at
    await database.close()
    await reachable(postgres_server.room, database_url, on=False)
    port = free_port()
    child = started(
        "serve", "--port", str(port), cwd=tmp_path, MYSYMBOLS_DATABASE__URL=database_url,
        MYSYMBOLS_KUCOIN__BASE_URL=NOBODY, MYSYMBOLS_KUCOIN__SOURCE="sandbox",
    )  # fmt: skip
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
        async with asyncio.timeout(PATIENCE_S):
            while (alive := await _asked(client, "/livez")) is None:
                await asyncio.sleep(0.05)
        assert alive == 200
        assert await _asked(client, "/readyz") == 503
    await reachable(postgres_server.room, database_url, on=True)
    said = await asyncio.to_thread(ended, child)
    assert said.code == ExitCode.CONFIGURATION
    assert "Traceback" not in said.err
    assert "sandbox" in said.err.splitlines()[-1]


@on_postgres
async def test_B11_with_the_schema_of_another_version_it_lives_and_is_not_ready(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url)
    await database.open()

    async def migrated_to(revision: str) -> None:
        async with database.write() as unit:
            await unit.connection.execute(
                text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
            )

    async def becomes(client: httpx2.AsyncClient, status: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get("/readyz")).status_code != status:
                await asyncio.sleep(0.05)
        assert (await client.get("/livez")).status_code == 200

    later, older = "9999", next(iter(migrations.script().walk_revisions("base", "head")))
    await migrated_to(later)
    async with serving(settings(database_url)) as (client, given_up):
        problem(await client.get("/readyz"), 503, "database_unavailable")
        assert "later version" in (await component(client, "database"))["detail"]
        await migrated_to(migrations.head())
        await becomes(client, 200)
        for other in (later, older.down_revision):
            await migrated_to(str(other))  # by another process, while this one runs
            await becomes(client, 503)
            assert (await component(client, "database"))["state"] == "down"
            await migrated_to(migrations.head())
            await becomes(client, 200)
    assert given_up == []
    await database.close()


async def _asked(client: httpx2.AsyncClient, path: str) -> int | None:
    try:
        return (await client.get(path)).status_code
    except httpx2.TransportError:
        return None


async def test_a_stream_is_refused_until_the_service_stands() -> None:
    passed: list[str] = []

    async def answering(scope: Any, *_: object) -> None:
        passed.append(scope["state"]["my_symbols"])

    async def nothing() -> Any:
        return {}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    opening = StartupState({})
    scope = {"type": "websocket", "path": f"{PREFIX}/stream", "state": {STARTUP_STATE: opening}}
    guard = StartupGuard(answering)
    await guard(scope, nothing, send)
    assert (passed, sent) == ([], [{"type": "websocket.close", "code": 1013}])
    opening.stands = {"my_symbols": "stands"}
    await guard(scope, nothing, send)
    assert passed == ["stands"]
