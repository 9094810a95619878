"""SQLite in few turns of its thread: the same rows, errors and counts."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import DatabaseError

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.foundation.errors import ServiceError
from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.foundation.sql.quick_sqlite import ALONG, QuickConnection, quick_connection
from app.foundation.sql.unit_of_work import UnitOfWork

ROWS = 1_000
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/quick.sqlite3",
        connect_args={"isolation_level": None, "async_creator_fn": quick_connection},
    )
    async with engine.connect() as opened:
        await opened.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        await opened.execute(text("INSERT INTO t VALUES (:n)"), [{"n": n} for n in range(ROWS)])
        yield opened
    await engine.dispose()


@contextmanager
def turns_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """One for each time that somebody waits for the thread."""
    count: list[None] = []
    taken = QuickConnection._execute

    async def counted(self: QuickConnection, *work: object) -> object:
        count.append(None)
        return await taken(self, *work)  # type: ignore[no-untyped-call]  # as it is there

    with monkeypatch.context() as patch:
        patch.setattr(QuickConnection, "_execute", counted)
        yield count


async def turns(connection: AsyncConnection, sql: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a statement with its rows has the thread work."""
    with turns_counted(monkeypatch) as count:
        (await connection.execute(text(sql))).all()
    return len(count)


async def test_a_statement_with_few_rows_is_one_turn(
    connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.execute(text("SELECT 1"))  # what begins the transaction is not counted
    assert await turns(connection, "SELECT n FROM t LIMIT 50", monkeypatch) == 1


@pytest.mark.parametrize("limit", [0, 1, 255, 256, 257, ROWS])
async def test_all_rows_arrive_in_their_order(connection: AsyncConnection, limit: int) -> None:
    wanted = text("SELECT n FROM t ORDER BY n LIMIT :limit").bindparams(limit=limit)
    assert (await connection.execute(wanted)).scalars().all() == list(range(limit))
    async with connection.stream(wanted) as streamed:
        assert [row.n async for row in streamed] == list(range(limit))


async def test_a_stream_that_is_left_half_read_leaves_nothing_open(
    connection: AsyncConnection,
) -> None:
    async with connection.stream(text("SELECT n FROM t ORDER BY n")) as streamed:
        assert (await anext(aiter(streamed))).n == 0
    await connection.execute(text("DROP TABLE t"))  # refused while a statement is under way


async def test_counts_and_errors_are_those_of_the_database(connection: AsyncConnection) -> None:
    changed = await connection.execute(text("DELETE FROM t WHERE n >= 990"))
    assert changed.rowcount == 10
    with pytest.raises(IntegrityError):
        await connection.execute(text("INSERT INTO t VALUES (1)"))
    with pytest.raises(IntegrityError):
        await connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": 2}, {"n": 3}])
    with pytest.raises(OperationalError):
        await connection.execute(text("SELECT nothing FROM t"))
    assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar_one() == 990


@ON_SQLITE
async def test_a_transaction_that_only_reads_is_one_turn_for_each_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for begun in (database.read, database.write):
        async with begun() as unit:
            await unit.get(FactRepository).get("warm")  # the connection is open then
    with turns_counted(monkeypatch) as count:
        async with database.read() as unit:
            await unit.get(FactRepository).get("a")
        assert len(count) == 1
        async with database.write():
            pass
        assert len(count) == 1  # in which nothing is done, nothing begins
    # It has ended all the same: what is committed since is seen by the next on this connection.
    async with database.write() as unit:
        await unit.get(FactRepository).put("a", 1)
    async with database.read() as unit:
        assert await unit.get(FactRepository).get("a") == 1


@ON_SQLITE
async def test_what_nobody_waits_for_goes_along_in_its_order_and_is_committed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.write() as unit:
        await unit.get(FactRepository).get("warm")  # the connection is open then
    with turns_counted(monkeypatch) as count:
        async with database.write() as unit:
            await unit.get(FactRepository).put("a", 1)
            await unit.get(FactRepository).put("a", 2)
            assert not count
            assert await unit.get(FactRepository).get("a") == 2
            await unit.get(FactRepository).put("a", 3)
        assert len(count) == 2  # for the question, and for the commit
    async with database.read() as unit:
        assert await unit.get(FactRepository).get("a") == 3


@ON_SQLITE
async def test_what_goes_along_and_fails_is_told_to_who_waits_next_and_nothing_of_it_stays(
    database: Database,
) -> None:
    twice = text("INSERT INTO service_facts VALUES ('once', '1')").execution_options(**ALONG)

    async def written_twice(unit: UnitOfWork) -> None:
        await unit.connection.execute(twice)
        await unit.connection.execute(twice)

    async def written_and_asked(unit: UnitOfWork) -> None:
        await written_twice(unit)
        await unit.get(FactRepository).get("anything")

    async def given_up(unit: UnitOfWork) -> None:
        await unit.get(FactRepository).put("once", 2)
        raise ZeroDivisionError

    for work in (written_twice, written_and_asked):
        with pytest.raises(ServiceError, match="refused by the database"):
            await database.run(work)
    with pytest.raises(ZeroDivisionError):
        await database.run(given_up)
    async with database.write() as unit:
        assert await unit.get(FactRepository).get("once") is None


async def test_what_cannot_be_opened_has_come_to_its_end_when_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"this is not a database" * 100)
    connection = quick_connection(str(path), pragmas=("journal_mode=WAL",))
    with pytest.raises(DatabaseError, match="not a database"):
        await connection
    # Otherwise its thread would tell a loop that may be gone by then.
    assert connection.ended is not None
    assert connection.ended.done()
