"""B04 to B09: what a caller hears while the database is in trouble; nothing is lost by it."""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from sqlalchemy import make_url, text

from app.foundation.data_status import DataStatus
from app.foundation.errors import UnavailableError
from app.foundation.health import Mode
from app.foundation.sql.database import ATTEMPTS, Database
from app.foundation.sql.engines import DatabaseOptions, parse_database_url
from app.foundation.sql.key_value import KeyValueRepository
from app.market.services.service_mode import MarketLevel, create_current_mode
from app.operations.api import system_routes as system
from app.operations.services.health import StatusService
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.services.membership import PortfolioService
from app.portfolio.storage.portfolio import PortfolioRepository
from app.trading.api import routes as portfolio_trading
from app.trading.services.position_sizing import Trading
from app.trading.services.safety import Safety
from tests.conftest import PATIENT, MakeDatabase
from tests.operations.services.test_status import World
from tests.processes.worker_processes import proven
from tests.support import postgres
from tests.support.harness import PREFIX, serve
from tests.support.network_cut import Cut, cutting
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, Desk

_ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
_ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
MODULES = (portfolio, portfolio_changes, portfolio_trading, system)
HELD = 9


@dataclass(frozen=True)
class Manned:
    """The part of the service that these routes use."""

    portfolio: PortfolioService
    status: StatusService
    trading: Trading
    safety: Safety


class FreshMarket:
    """All of it is fresh."""

    def stale_symbols(self) -> int:
        return 0

    def level_with(self, stale_symbols: int) -> MarketLevel:
        return MarketLevel(DataStatus.FRESH, stale_symbols)


@dataclass
class Front:
    """A service with `HELD` members: what it is asked over HTTP, and its database beside it."""

    client: httpx2.AsyncClient
    reached: Database  # as the service reaches it
    near: Database  # the same one, patiently

    async def add(self, key: str, symbol: str = SYMBOLS[HELD]) -> httpx2.Response:
        return await self.client.post(
            f"{PREFIX}/portfolio/add-symbol",
            json={"symbol": symbol},
            headers={"Idempotency-Key": key},
        )

    async def refused(self, key: str, code: str) -> None:
        """A change is answered with 503 and when to come back, and nothing of it stays."""
        before = await self.changes()
        assert problem(await self.add(key), 503, code)["retry_after_s"] >= 1
        assert self.reached.checked_out == 0
        assert await self.changes() == before

    async def carried_out(self, key: str) -> None:
        """The change with this key happens now, for the first time and once."""
        before = await self.changes()
        answer = await self.add(key)
        assert answer.status_code == 201, answer.text
        assert "idempotency-replayed" not in answer.headers
        assert (await self.add(key)).headers["idempotency-replayed"] == "true"
        assert await self.changes() == before + 1

    async def changes(self) -> int:
        """How often the portfolio was changed; its whole history is proven sound."""
        state, _ = await proven(self.near)
        return state.version

    async def reads(self) -> Any:
        answer = await self.client.get(f"{PREFIX}/portfolio")
        assert answer.status_code == 200, answer.text
        return answer.json()["size"]

    async def decides_by(self, mode: Mode) -> None:
        """Decision path and header say this mode; neither looks at the database again."""
        may = await self.client.get(f"{PREFIX}/portfolio/symbols/{SYMBOLS[0]}/should-trade")
        safe = await self.client.get(f"{PREFIX}/portfolio/safety")
        assert (may.status_code, safe.status_code) == (200, 200)
        assert {one.headers["x-service-mode"] for one in (may, safe)} == {mode.value}
        is_normal = mode is Mode.NORMAL
        assert (may.json()["trade"], safe.json()["is_safe"]) == (is_normal, is_normal)
        assert may.json()["reason"].startswith(f"the mode is {mode.value}") is not is_normal

    async def has_one_mode(self, mode: Mode) -> None:
        """Health, every header and the decision path say this mode, once health has looked."""
        health = await self.client.get(f"{PREFIX}/health")
        told = (health.json()["mode"], health.headers["x-service-mode"])
        assert told == (mode.value, mode.value)
        await self.decides_by(mode)

    async def says(self, *statements: str) -> None:
        """Statements of somebody else, each committed."""
        for statement in statements:
            async with self.near.write() as unit:
                await unit.connection.execute(text(statement))


@asynccontextmanager
async def front(
    near: Database, make: MakeDatabase, url: str, **limits: float
) -> AsyncIterator[Front]:
    """The service with these limits of its database, beside those of a patient one."""
    await Desk(near).filled(HELD)
    async with AsyncExitStack() as stack:
        reached = near
        if limits:
            reached = make(url, **{**PATIENT, **limits})
            await reached.open()
            stack.push_async_callback(reached.close)
        desk = await Desk(reached).open()

        async def ping() -> None:
            await reached.ping()
            await reached.retry_writes()

        mode = create_current_mode(FreshMarket(), reached, time.monotonic)
        desk.mode = mode
        status = replace(
            World().status(), ping_database=ping, refusal=lambda: reached.refusal, mode=mode
        )
        manned = Manned(desk.portfolio, status, desk.trading, desk.safety)
        state = {"my_symbols": manned, "mode": mode}
        client = await stack.enter_async_context(serve([one.router for one in MODULES], state))
        yield Front(client, reached, near)
        assert reached.checked_out == 0


@_ON_POSTGRES
async def test_B04_who_loses_against_others_is_begun_again_five_times_before_the_caller_hears_of_it(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    async with front(database, make_database, database_url) as here:
        # A sequence is not rolled back: it counts the attempts, and both kinds of loss take turns.
        await here.says(
            "CREATE SEQUENCE attempts MINVALUE -10",
            """CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE attempt bigint := nextval('attempts');
            BEGIN
                IF attempt <= 0 AND attempt % 2 = 0 THEN RAISE EXCEPTION USING ERRCODE = '40001';
                ELSIF attempt <= 0 THEN RAISE EXCEPTION USING ERRCODE = '40P01';
                END IF;
                RETURN NEW;
            END $$""",
            "CREATE TRIGGER lost BEFORE UPDATE ON portfolio FOR EACH ROW EXECUTE FUNCTION lose()",
        )

        async def lose(times: int) -> None:
            await here.says(f"SELECT setval('attempts', {1 - times}, false)")

        async def attempts(since: int) -> int:
            async with here.near.read() as unit:
                last = await unit.connection.execute(text("SELECT last_value FROM attempts"))
                return int(last.scalar_one()) + since

        await lose(ATTEMPTS)
        await here.refused("k", "database_contention")
        assert await attempts(ATTEMPTS) == ATTEMPTS == 5
        await lose(ATTEMPTS - 1)
        await here.carried_out("k")
        assert await attempts(ATTEMPTS - 1) == ATTEMPTS


@_ON_POSTGRES
async def test_B06_with_every_connection_in_use_callers_hear_of_overload_and_health_goes_on(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    # A patient one has set it up: how long a connection takes is not what is tested.
    limits = {"pool_size": 1, "pool_wait_s": 0.2}
    async with front(database, make_database, database_url, **limits) as here:
        async with here.reached.read():
            problem(await here.add("k"), 503, "overloaded")
            problem(await here.client.get(f"{PREFIX}/portfolio"), 503, "overloaded")
            assert (await here.client.get("/readyz")).json()["state"] == "up"
        assert await here.reads() == HELD
        await here.carried_out("k")
    assert DatabaseOptions(url="").pool_wait_s == 2.0


@_ON_POSTGRES
async def test_B07_locks_and_statements_that_take_too_long_are_given_up(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    limits = {"lock_timeout_s": 0.5, "statement_timeout_s": 3.0}
    async with front(database, make_database, database_url, **limits) as here:
        async with here.near.write() as unit:
            await unit.get(PortfolioRepository).load(for_update=True)
            problem(await here.add("k"), 503, "database_contention")
            assert await here.reads() == HELD, "who reads does not wait for who writes"
        await here.says(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$",
            "CREATE TRIGGER slow BEFORE INSERT ON portfolio_history"
            " FOR EACH ROW EXECUTE FUNCTION dawdle()",
        )
        await here.refused("k", "database_contention")
        await here.says("DROP TRIGGER slow ON portfolio_history")
        await here.carried_out("k")


@_ON_POSTGRES
async def test_B07_a_transaction_in_which_nothing_is_said_any_more_is_ended(
    database: Database,
    database_url: str,
    make_database: MakeDatabase,
    postgres_server: postgres.Server,
) -> None:
    async with cutting(postgres_server.room) as way:
        url = way.url(str(make_url(database_url).database))
        async with front(database, make_database, url, idle_in_transaction_s=2.0) as here:
            way.arm(Cut.SILENT, 1)  # the key is claimed in the same transaction
            await here.refused("k", "database_unavailable")
            assert way.cuts == 1
            await here.carried_out("k")


async def fill(database: Database) -> None:
    for number in range(1_000):
        async with database.write() as unit:
            await unit.get(KeyValueRepository).put(f"ballast-{number}", "x" * 200)


@_ON_SQLITE
async def test_B08_on_a_full_disk_changes_hear_of_it_and_reads_go_on(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    async with front(database, make_database, database_url) as here:

        async def disk(pages: int) -> None:
            async with database.write() as unit:
                await unit.connection.execute(text(f"PRAGMA max_page_count = {pages}"))

        async with database.read() as unit:
            used = (await unit.connection.execute(text("PRAGMA page_count"))).scalar_one()
        await here.has_one_mode(Mode.NORMAL)
        await disk(int(used))
        # Somebody takes what is left of the last pages.
        with pytest.raises(UnavailableError):
            await fill(database)
        await here.decides_by(Mode.HALTED)
        await here.has_one_mode(Mode.HALTED)
        await here.refused("k", "storage_full")
        assert await here.reads() == HELD
        shown = await here.client.get("/readyz")
        assert (shown.status_code, shown.headers["x-service-mode"]) == (200, "HALTED")
        told = shown.json()
        assert (told["state"], told["cause"]) == ("degraded", "storage_full")
        assert "free space" in told["next_step"]
        health = (await here.client.get(f"{PREFIX}/health")).json()
        assert (health["mode"], health["status"]) == ("HALTED", "degraded")
        await disk(1_000_000)
        await here.decides_by(Mode.HALTED)
        shown = await here.client.get("/readyz")
        assert (shown.json()["state"], shown.headers["x-service-mode"]) == ("up", "NORMAL")
        await here.decides_by(Mode.NORMAL)
        await here.has_one_mode(Mode.NORMAL)
        await here.carried_out("k")


@_ON_SQLITE
async def test_B09_while_somebody_else_writes_the_file_changes_hear_of_it_and_reads_go_on(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url, **{**PATIENT, "busy_timeout_s": 0.3, "pool_wait_s": 0.3})
    await database.open()
    async with front(database, make_database, database_url) as here:
        with closing(sqlite3.connect(str(parse_database_url(database_url).database))) as other:
            other.execute("BEGIN IMMEDIATE")
            await here.refused("k", "database_contention")
            shown = await here.client.get("/readyz")
            assert (shown.status_code, shown.headers["x-service-mode"]) == (200, "HALTED")
            assert shown.json()["cause"] == "database_locked"
            health = (await here.client.get(f"{PREFIX}/health")).json()
            assert (health["mode"], health["status"]) == ("HALTED", "degraded")
            assert await here.reads() == HELD
        assert (await here.client.get("/readyz")).json()["state"] == "up"
        await here.carried_out("k")
    await database.close()
