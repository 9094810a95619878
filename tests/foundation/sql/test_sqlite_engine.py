"""SQLite through SQLAlchemy's own driver: rows, counts, errors and what a failure leaves behind."""

from pathlib import Path

import pytest
from sqlalchemy import text

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.engines import DatabaseOptions
from app.foundation.sql.key_value import KeyValueRepository
from app.operations.domain.event_codec import encode_event
from tests.conftest import PATIENT, MakeDatabase

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
            await unit.get(KeyValueRepository).put("a", value)
        async with database.read() as unit:
            assert await unit.get(KeyValueRepository).get("a") == value


@ON_SQLITE
async def test_a_failed_statement_undoes_the_whole_transaction(database: Database) -> None:
    twice = text("INSERT INTO service_facts VALUES ('once', '1')")

    async def write_twice(unit: UnitOfWork) -> None:
        await unit.connection.execute(twice)
        await unit.connection.execute(twice)

    async def give_up(unit: UnitOfWork) -> None:
        await unit.get(KeyValueRepository).put("once", 2)
        raise ZeroDivisionError

    with pytest.raises(ServiceError, match="the database rejected"):
        await database.run(write_twice)
    with pytest.raises(ZeroDivisionError):
        await database.run(give_up)
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("once") is None


@ON_SQLITE
async def test_a_reading_transaction_refuses_to_write(database: Database) -> None:
    with pytest.raises(UnavailableError, match="read-only"):
        async with database.read() as unit:
            await unit.get(KeyValueRepository).put("a", 1)


async def test_the_change_mark_tells_commits_of_any_process_alone(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    other = make_database(database_url, **PATIENT)  # as the command line opens it
    await other.open(is_exclusive=False)

    async def put(into: Database, value: int) -> None:
        async with into.write() as unit:
            await unit.get(KeyValueRepository).put("a", value)

    async def put_and_fail(unit: UnitOfWork) -> None:
        await unit.get(KeyValueRepository).put("a", -1)
        raise ZeroDivisionError

    mark = await database.change_mark()
    if database.dialect != "sqlite":
        assert mark is None, "unknown: the poller reads"
        await other.close()
        return
    for value, writer in enumerate((database, other, database, other)):
        assert mark is not None
        async with database.read() as unit:
            await unit.get(KeyValueRepository).get("a")
        await database.ping()
        with pytest.raises(ZeroDivisionError):
            await database.run(put_and_fail)
        assert await database.change_mark() == mark, "reads and rollbacks change nothing"
        await put(writer, value)
        await database.ping()  # on the same connection: it hides no change
        changed = await database.change_mark()
        assert changed != mark
        mark = changed
    await other.close()
    with pytest.raises(UnavailableError):
        await other.change_mark()


@ON_SQLITE
async def test_the_change_mark_of_another_connection_or_file_is_another_one(
    database: Database, database_url: str
) -> None:
    before = await database.change_mark()
    _put_back_a_copy(Path(database_url.partition(":///")[2]))
    after = await database.change_mark()
    assert None not in {before, after}
    assert after != before


def _put_back_a_copy(path: Path) -> None:
    copy = path.with_name("copy.sqlite3")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


async def test_a_file_that_is_no_database_is_reported_each_time(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"this is not a database" * 100)
    options = DatabaseOptions(f"sqlite+aiosqlite:///{path}")
    database = Database(
        options, monotonic=lambda: 0.0, jitter=lambda: 0.0, encode_event=encode_event
    )
    await database.open()
    for _ in range(3):
        with pytest.raises(UnavailableError, match="not an SQLite database") as caught:
            async with database.read():
                pass
        assert caught.value.code is Code.DATABASE_UNAVAILABLE
    await database.close()
