"""SQLite in few turns of its thread: the same rows, errors and counts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.storage.quick_sqlite import QuickConnection, quick_connection

ROWS = 1_000


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


async def turns(connection: AsyncConnection, sql: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a statement with its rows has the thread work."""
    count = 0
    taken = QuickConnection._execute

    async def counted(self: QuickConnection, *work: object) -> object:
        nonlocal count
        count += 1
        return await taken(self, *work)  # type: ignore[no-untyped-call]  # as it is there

    with monkeypatch.context() as patch:
        patch.setattr(QuickConnection, "_execute", counted)
        (await connection.execute(text(sql))).all()
    return count


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
