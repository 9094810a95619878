"""A server that takes reads alone for a while, as a replica does before it is promoted."""

import asyncio

import pytest
from sqlalchemy import text

from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from tests.support.trading_desk import WHO, Desk

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


async def _turned(database: Database, *, read_only: bool, ends: bool = True) -> None:
    """Makes new connections read-only or not, and `ends` those that there are."""
    word = "on" if read_only else "off"
    async with database.read() as unit:
        name = (await unit.connection.execute(text("SELECT current_database()"))).scalar_one()
    async with database._require_open().probe.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SET default_transaction_read_only = off"))
        await connection.execute(
            text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {word}')
        )
        if ends:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )


async def _is_refused(database: Database) -> bool:
    await database.retry_writes()
    return database.refusal is not None


async def test_B12_while_the_server_is_read_only_changes_are_503_and_reads_go_on(
    database: Database,
) -> None:
    desk = await Desk(database).filled(3)
    members = await desk.members()
    await _turned(database, read_only=True)

    with pytest.raises(UnavailableError) as caught:
        await desk.portfolio.remove(members[-1], "a test", WHO)
    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    assert caught.value.retry_after_s
    assert await desk.members() == members  # a dead connection was noticed before its use
    assert database.checked_out == 0
    assert await _is_refused(database), "it is still read-only"

    # No connection is ended: the first that turns out to be one that may only read renews all.
    await asyncio.gather(*(desk.members() for _ in range(3)))
    await _turned(database, read_only=False, ends=False)
    await database.retry_writes()
    assert not await _is_refused(database)
    await desk.portfolio.remove(members[-1], "a test", WHO)
    assert await desk.members() == members[:-1]
