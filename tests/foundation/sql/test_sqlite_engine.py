"""SQLite through SQLAlchemy's own driver: rows, counts, errors and what a failure leaves behind."""

from pathlib import Path

import pytest
from sqlalchemy import text

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.engines import DatabaseOptions
from app.foundation.sql.facts import FactRepository
from app.operations.domain.event_codec import drafts_of

ROWS = 1_000
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@ON_SQLITE
@pytest.mark.parametrize("limit", [0, 1, 255, 256, 257, ROWS])
async def test_all_rows_arrive_in_their_order(database: Database, limit: int) -> None:
    numbers = text(
        "WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n < :last)"
        " SELECT n FROM t LIMIT :limit"
    ).bindparams(last=ROWS - 1, limit=limit)
    async with database.read() as unit:
        found = await unit.connection.execute(numbers)
        assert found.scalars().all() == list(range(limit))


@ON_SQLITE
async def test_a_read_after_a_commit_sees_it_on_every_connection(database: Database) -> None:
    for value in range(3):
        async with database.write() as unit:
            await unit.get(FactRepository).put("a", value)
        async with database.read() as unit:
            assert await unit.get(FactRepository).get("a") == value


@ON_SQLITE
async def test_a_failed_statement_undoes_the_whole_transaction(database: Database) -> None:
    twice = text("INSERT INTO service_facts VALUES ('once', '1')")

    async def write_twice(unit: UnitOfWork) -> None:
        await unit.connection.execute(twice)
        await unit.connection.execute(twice)

    async def give_up(unit: UnitOfWork) -> None:
        await unit.get(FactRepository).put("once", 2)
        raise ZeroDivisionError

    with pytest.raises(ServiceError, match="refused by the database"):
        await database.run(write_twice)
    with pytest.raises(ZeroDivisionError):
        await database.run(give_up)
    async with database.read() as unit:
        assert await unit.get(FactRepository).get("once") is None


@ON_SQLITE
async def test_a_reading_transaction_refuses_to_write(database: Database) -> None:
    with pytest.raises(UnavailableError, match="only be read"):
        async with database.read() as unit:
            await unit.get(FactRepository).put("a", 1)


async def test_a_file_that_is_no_database_is_reported_each_time(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"this is not a database" * 100)
    options = DatabaseOptions(f"sqlite+aiosqlite:///{path}")
    database = Database(options, monotonic=lambda: 0.0, jitter=lambda: 0.0, drafts_of=drafts_of)
    await database.open()
    for _ in range(3):
        with pytest.raises(UnavailableError, match="no SQLite database") as caught:
            async with database.read():
                pass
        assert caught.value.code is Code.DATABASE_UNAVAILABLE
    await database.close()
