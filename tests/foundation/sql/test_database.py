"""Transactions that are whole, waits that end, failures that have a name."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event, text

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.health import PoolFacts
from app.foundation.sql.database import ATTEMPTS, Database, UnitOfWork
from app.foundation.sql.engines import DatabaseOptions, SlowStatement, parse_database_url
from app.foundation.sql.key_value import KeyValueRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from tests.conftest import PATIENT, MakeDatabase

_ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
_ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def _refusal(database: Database, *statements: str) -> ServiceError:
    async def carry_out(unit: UnitOfWork) -> None:
        for statement in statements:
            await unit.connection.execute(text(statement))

    with pytest.raises(ServiceError) as caught:
        await database.run(carry_out)
    return caught.value


async def test_a_failed_transaction_stores_and_publishes_nothing(
    database_url: str, make_database: MakeDatabase
) -> None:
    told: list[object] = []
    database = make_database(database_url, publish=told.append)
    await database.open()

    async def fail(unit: UnitOfWork) -> None:
        await unit.get(KeyValueRepository).put("a", 1)
        unit.publish_after_commit("never")
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(fail)
    async with database.write() as unit:
        assert await unit.get(KeyValueRepository).get("a") is None
        await unit.get(KeyValueRepository).put("a", 2)
        unit.publish_after_commit("first")
        unit.publish_after_commit("second")
        assert told == []
    assert told == ["first", "second"]
    await database.close()


async def test_a_failed_commit_publishes_nothing(
    database_url: str, make_database: MakeDatabase
) -> None:
    told: list[object] = []
    database = make_database(database_url, publish=told.append)
    await database.open()
    async with database.write() as unit:
        reference = "REFERENCES contracts (id) DEFERRABLE INITIALLY DEFERRED"
        await unit.connection.execute(text(f"CREATE TABLE late (id VARCHAR(36) {reference})"))

    async def insert(unit: UnitOfWork) -> None:
        await unit.connection.execute(text("INSERT INTO late VALUES ('none')"))
        unit.publish_after_commit("never")

    with pytest.raises(ServiceError):
        await database.run(insert)
    assert told == []
    assert database.checked_out == 0
    await database.close()


async def test_reading_sees_one_instant_and_cannot_write(database: Database) -> None:
    async with database.read() as reader:
        assert await reader.get(KeyValueRepository).get("a") is None
        async with database.write() as writer:
            await writer.get(KeyValueRepository).put("a", 1)
        assert await reader.get(KeyValueRepository).get("a") is None
    with pytest.raises(UnavailableError):
        async with database.read() as reader:
            await reader.get(KeyValueRepository).put("a", 2)
    async with database.read() as reader:
        assert await reader.get(KeyValueRepository).get("a") == 1


async def test_slow_statements_are_reported_without_their_values(
    database_url: str, make_database: MakeDatabase
) -> None:
    slow: list[SlowStatement] = []
    database = make_database(database_url, on_slow=slow.append, slow_statement_s=0.0)
    await database.open()
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("a", "secret")
    async with database.read() as unit:
        await unit.get(KeyValueRepository).get("a")
    await database.close()
    texts = [one.sql for one in slow]
    assert sum("INSERT INTO service_facts" in one for one in texts) == 1
    assert sum("SELECT service_facts" in one for one in texts) == 1
    assert all(one.seconds > 0 for one in slow)
    assert not any("secret" in one for one in texts)
    assert DatabaseOptions(url="").slow_statement_s == 0.1


async def test_every_statement_is_reported_if_the_options_say_so(
    database_url: str, make_database: MakeDatabase
) -> None:
    seen: list[tuple[str, float]] = []
    for is_logged in (True, False):
        seen.clear()
        database = make_database(database_url, log_statements=is_logged)
        database.on_statement = lambda sql, seconds: seen.append((sql, seconds))
        await database.open()
        async with database.write() as unit:
            await unit.get(KeyValueRepository).put("a", "secret")
        await database.close()
        texts = [sql for sql, _ in seen]
        assert any("INSERT INTO service_facts" in one for one in texts) is is_logged
        assert all(seconds >= 0 for _, seconds in seen)
        assert not any("secret" in one for one in texts)


async def test_the_pool_says_how_it_is_used(database_url: str, make_database: MakeDatabase) -> None:
    database = make_database(database_url, pool_size=12, pool_recycle_s=77, pool_pre_ping=False)
    await database.open()
    is_file = database.dialect == "sqlite"
    # SQLite: one connection writes, and at most ten read.
    name, size = ("sqlite", 11) if is_file else ("postgresql", 12)
    recycle_s, is_pre_pinged = (None, None) if is_file else (77, False)
    async with database.read(), database.write():
        assert database.pool == PoolFacts(name, size, 2, recycle_s, is_pre_pinged)
    assert database.pool.in_use == 0
    assert await database.size_bytes() > 100_000
    await database.close()


async def test_ordinary_statements_are_not_reported(
    database_url: str, make_database: MakeDatabase
) -> None:
    slow: list[SlowStatement] = []
    database = make_database(database_url, on_slow=slow.append, slow_statement_s=30.0)
    await database.open()
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("a", 1)
    await database.close()
    assert slow == []


def test_addresses_get_our_drivers_and_memory_is_refused() -> None:
    assert parse_database_url("sqlite:///x.db").drivername == "sqlite+aiosqlite"
    assert parse_database_url("postgresql://h/d").drivername == "postgresql+asyncpg"
    assert parse_database_url("postgres://h/d").drivername == "postgresql+asyncpg"
    for wrong in ("sqlite://", "sqlite:///:memory:", "mysql://h/d", "postgresql+psycopg://h/d"):
        with pytest.raises(ValueError, match=r"SQLite database in memory|is not supported"):
            parse_database_url(wrong)


async def test_a_closed_database_says_so(make_database: MakeDatabase, tmp_path: Path) -> None:
    database = make_database(f"sqlite:///{tmp_path}/x.sqlite3")
    with pytest.raises(UnavailableError) as caught:
        async with database.read():
            pass
    assert caught.value.code is Code.SHUTTING_DOWN
    await database.close()


@pytest.fixture
async def usual(database_url: str, make_database: MakeDatabase) -> AsyncIterator[Database]:
    """Set up as in production."""
    opened = make_database(database_url)
    await opened.open()
    yield opened
    await opened.close()


@_ON_SQLITE
async def test_sqlite_is_set_up_for_durability(usual: Database) -> None:
    async def pragma(unit: UnitOfWork, name: str) -> object:
        return (await unit.connection.execute(text(f"PRAGMA {name}"))).scalar()

    async with usual.write() as unit:
        assert await pragma(unit, "journal_mode") == "wal"
        assert await pragma(unit, "synchronous") == 2
        assert await pragma(unit, "foreign_keys") == 1
        assert await pragma(unit, "busy_timeout") == 5000
    async with usual.read() as unit:
        assert await pragma(unit, "query_only") == 1


@_ON_POSTGRES
async def test_postgres_is_set_up_with_limits(usual: Database) -> None:
    async def show(unit: UnitOfWork, name: str) -> object:
        return (await unit.connection.execute(text(f"SHOW {name}"))).scalar()

    async with usual.write() as unit:
        assert await show(unit, "lock_timeout") == "2s"
        assert await show(unit, "statement_timeout") == "5s"
        assert await show(unit, "idle_in_transaction_session_timeout") == "15s"
        assert await show(unit, "transaction_isolation") == "read committed"
    async with usual.read() as unit:
        assert await show(unit, "transaction_isolation") == "repeatable read"
        assert await show(unit, "transaction_read_only") == "on"
    async with usual.write(statement_timeout_s=60) as unit:
        assert await show(unit, "statement_timeout") == "1min"
    async with usual.write() as unit:
        assert await show(unit, "statement_timeout") == "5s"


async def test_B01_a_database_that_is_not_there(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    database = make_database(f"postgresql://postgres@/none?host={tmp_path}")
    await database.open()
    for attempt in (database.ping(), _refusal(database)):
        try:
            error = await attempt
        except UnavailableError as e:
            error = e
        assert error is not None
        assert error.code is Code.DATABASE_UNAVAILABLE
    assert database.checked_out == 0
    await database.close()


@_ON_POSTGRES
async def test_B02_a_connection_lost_on_the_way(database: Database) -> None:
    async def kill(unit: UnitOfWork) -> None:
        async with database.write() as other:
            pid = await unit.connection.execute(text("SELECT pg_backend_pid()"))
            end = text("SELECT pg_terminate_backend(:pid)")
            await other.connection.execute(end, {"pid": pid.scalar()})

    async def interrupted(unit: UnitOfWork) -> None:
        await unit.get(KeyValueRepository).put("a", 1)
        await kill(unit)
        await unit.get(KeyValueRepository).put("b", 2)

    with pytest.raises(UnavailableError) as caught:
        await database.run(interrupted)
    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    assert database.checked_out == 0
    assert database.is_unavailable, "the mode says so before anybody has looked"
    async with database.write() as unit:
        assert await unit.get(KeyValueRepository).get("a") is None
    assert not database.is_unavailable


@_ON_POSTGRES
async def test_B04_a_deadlock_is_begun_again(database: Database) -> None:
    runs: list[str] = []
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("a", 0)
        await unit.get(KeyValueRepository).put("b", 0)
    both = asyncio.Barrier(2)

    async def cross(unit: UnitOfWork, first: str, second: str) -> None:
        runs.append(first)
        await unit.connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
        await unit.get(KeyValueRepository).put(first, first)
        if len(runs) <= 2:
            await both.wait()  # now each has what the other wants
        await unit.get(KeyValueRepository).put(second, first)

    await asyncio.gather(
        database.run(lambda unit: cross(unit, "a", "b")),
        database.run(lambda unit: cross(unit, "b", "a")),
    )
    assert len(runs) == 3
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("a") == await unit.get(
            KeyValueRepository
        ).get("b")


@_ON_POSTGRES
@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_B04_repeated_conflicts_end_as_contention(database: Database, state: str) -> None:
    runs, drawn = 0, list[float]()

    def jitter() -> float:
        drawn.append(0.0)
        return 0.0

    database.jitter = jitter

    async def always(unit: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        await unit.get(KeyValueRepository).put(f"run-{runs}", runs)
        body = f"BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END"
        await unit.connection.execute(text(f"DO $$ {body} $$"))

    started = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        await database.run(always)
    assert caught.value.code is Code.DATABASE_CONTENTION
    assert caught.value.retry_after_s is not None
    assert runs == ATTEMPTS == 5
    assert len(drawn) == 4, "it waits between the attempts"
    assert time.monotonic() - started >= 4 * 0.01
    async with database.read() as unit:
        assert [await unit.get(KeyValueRepository).get(f"run-{n}") for n in range(1, 6)] == [
            None
        ] * 5


async def test_B04_permanent_errors_are_not_retried(database: Database) -> None:
    runs = 0

    async def wrong(unit: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        await unit.connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(UnavailableError) as caught:
        await database.run(wrong)
    assert (runs, caught.value.code) == (1, Code.DATABASE_UNAVAILABLE)


async def test_B06_a_full_pool_is_overload_and_not_death(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url, pool_size=1, pool_wait_s=0.2)
    await database.open()
    async with database.read():
        started = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            async with database.read():
                pass
        assert time.monotonic() - started >= 0.2
        await database.ping()
    assert caught.value.code is Code.OVERLOADED
    assert caught.value.retry_after_s is not None
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("a") is None
    assert DatabaseOptions(url="").pool_wait_s == 2.0
    await database.close()


async def test_looks_at_a_file_share_one_connection_until_another_file_has_its_name(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    path, made = tmp_path / "x.sqlite3", list[object]()
    database = make_database(f"sqlite:///{path}")
    await database.open()
    probe = database._require_open().probe.sync_engine
    event.listen(probe, "connect", lambda connection, _: made.append(connection))
    for _ in range(3):
        await database.ping()
    assert len(made) == 1
    path.unlink()
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(UnavailableError):
        await database.ping()
    path.unlink()
    await database.ping()
    assert len(made) == 2
    await database.close()


@_ON_POSTGRES
async def test_B07_locks_statements_and_idle_transactions_have_an_end(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(
        database_url, lock_timeout_s=0.5, statement_timeout_s=3.0, idle_in_transaction_s=1.0
    )
    await database.open()
    other = make_database(database_url, statement_timeout_s=60.0)
    await other.open()
    async with database.write() as unit:
        await unit.get(PortfolioRepository).load(for_update=True)
        error = await _refusal(database, "SELECT 1 FROM portfolio FOR UPDATE")
    assert error.code is Code.DATABASE_CONTENTION
    error = await _refusal(database, "SELECT pg_sleep(600)")
    assert error.code is Code.DATABASE_CONTENTION

    async def dawdle(unit: UnitOfWork) -> None:
        await unit.get(KeyValueRepository).put("a", 1)
        while await idle():
            await asyncio.sleep(0.05)
        await unit.get(KeyValueRepository).put("a", 2)

    async def idle() -> int:
        """Number of callers that wait within a transaction."""
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        async with other.read() as unit:
            return int((await unit.connection.execute(text(query))).scalar() or 0)

    with pytest.raises(UnavailableError) as caught:
        await database.run(dawdle)
    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    async with database.write(statement_timeout_s=60) as unit:
        await unit.connection.execute(text("SELECT pg_sleep(3.2)"))
        assert await unit.get(KeyValueRepository).get("a") is None
    assert database.checked_out == 0
    await database.close()
    await other.close()


@_ON_POSTGRES
@pytest.mark.parametrize("asks_first", [True, False])
async def test_B07_a_connection_that_the_server_has_ended_while_it_was_idle_costs_one_503_at_most(
    database: Database, database_url: str, make_database: MakeDatabase, *, asks_first: bool
) -> None:
    limits = {**PATIENT, "pool_size": 1, "pool_pre_ping": asks_first}
    idle = make_database(database_url, **limits)
    await idle.open()
    async with idle.write() as unit:
        # The usual end of what is idle for too long; within a transaction it does not count.
        await unit.connection.execute(text("SET idle_session_timeout = 20"))
        who = (await unit.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    there = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :who")
    left = 1
    while left:
        await asyncio.sleep(0.02)
        async with database.read() as unit:
            left = (await unit.connection.execute(there, {"who": who})).scalar_one()
    if not asks_first:
        error = await _refusal(idle, "SELECT 1")
        assert (error.code, error.retry_after_s) == (Code.DATABASE_UNAVAILABLE, 5)
        assert idle.checked_out == 0
    async with idle.write() as unit:
        await unit.get(KeyValueRepository).put("a", "said on another connection")
    await idle.close()


async def test_B08_a_full_disk_stops_writing_and_not_reading(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("a", "kept")
    if database.dialect == "sqlite":
        async with database.write() as unit:
            pages = (await unit.connection.execute(text("PRAGMA page_count"))).scalar()
            await unit.connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(UnavailableError) as caught:
            async with database.write() as unit:
                await unit.get(KeyValueRepository).put("b", "x" * 1_000_000)
        error: ServiceError = caught.value
    else:
        body = "BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END"
        error = await _refusal(database, f"DO $$ {body} $$")
    assert error.code is Code.STORAGE_FULL
    assert _is_refused(database)
    if database.dialect != "sqlite":
        full = "BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END"
        await _says(
            database,
            f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ {full} $$",
            "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON service_facts"
            " EXECUTE FUNCTION full_disk()",
        )
    await database.retry_writes()
    assert _is_refused(database), "small changes may fit in; a trial does not"
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("a") == "kept"
        assert await unit.get(KeyValueRepository).get("b") is None
    is_file = database.dialect == "sqlite"
    room = "PRAGMA max_page_count = 1000000" if is_file else "DROP FUNCTION full_disk CASCADE"
    await _says(database, room)
    assert _is_refused(database), "who changes something small has not tried"
    await database.retry_writes()
    assert not _is_refused(database)
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("write_probe") == "", (
            "nothing of the trial stays"
        )


def _is_refused(database: Database) -> bool:
    return database.refusal is not None


async def _says(database: Database, *statements: str) -> None:
    for statement in statements:
        async with database.write() as unit:
            await unit.connection.execute(text(statement))


@_ON_SQLITE
async def test_B09_a_file_that_stays_busy_is_contention(
    database_url: str, make_database: MakeDatabase
) -> None:
    database = make_database(database_url, busy_timeout_s=0.3)
    await database.open()
    with closing(sqlite3.connect(str(parse_database_url(database_url).database))) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        error = await _refusal(database, "SELECT 1")
        assert time.monotonic() - started >= 0.3
        async with database.read() as unit:
            assert await unit.get(KeyValueRepository).get("a") is None
    assert error.code is Code.DATABASE_CONTENTION
    assert DatabaseOptions(url="").busy_timeout_s == 5.0
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("a", 1)
    async with database.write() as unit:  # the queue inside the process is the same thing
        assert (await _refusal(database)).code is Code.DATABASE_CONTENTION
    await database.close()


async def test_B16_cancelled_at_any_moment_a_transaction_is_whole_or_not_there(
    database_url: str, make_database: MakeDatabase
) -> None:
    told: list[object] = []
    database = make_database(database_url, publish=told.append, pool_size=4)
    await database.open()

    async def change(number: int) -> None:
        async with database.write() as unit:
            await unit.get(KeyValueRepository).put(f"{number}-a", number)
            await unit.get(KeyValueRepository).put(f"{number}-b", number)
            unit.publish_after_commit(number)

    for wave in range(12):
        tasks = [asyncio.ensure_future(change(wave * 5 + at)) for at in range(5)]
        await asyncio.sleep(wave * 0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert database.checked_out == 0
    async with database.read() as unit:
        kept = await unit.connection.execute(text("SELECT key FROM service_facts"))
        keys = {str(key) for key in kept.scalars()}
    whole = {number for number in range(60) if f"{number}-a" in keys}
    assert keys == {f"{number}-{part}" for number in whole for part in "ab"}
    assert sorted(told, key=str) == sorted(whole, key=str)
    await change(99)
    await database.close()


async def test_a_transaction_has_one_repository_of_each_kind_and_the_next_has_others(
    database: Database,
) -> None:
    async with database.read() as unit:
        first = unit.get(PortfolioRepository)
        assert unit.get(PortfolioRepository) is first  # it remembers what it has locked
    async with database.read() as unit:
        assert unit.get(PortfolioRepository) is not first
