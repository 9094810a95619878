"""The audit finds any flipped bit and any missing event, even without the triggers."""

# ruff: noqa: S608  # column names come from the table, numbers from the test

import os
import sqlite3
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.foundation.errors import Code, NotFoundError, ServiceError, UnavailableError
from app.foundation.sql.database import Database
from app.operations.domain.history_audit import UNRECORDED, HistoryFindings
from app.operations.storage.audit import verify_history
from app.portfolio.storage.tables import portfolio_history
from tests.support.trading_desk import SYMBOLS, WHO, Desk

CASES = int(os.environ.get("MYTESTS_TAMPERINGS", "24"))
COLUMNS = tuple(column.name for column in portfolio_history.columns)
TRIGGERS = ("portfolio_history_no_update", "portfolio_history_no_delete")
sqlite_only = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


async def lived(desk: Desk) -> int:
    """A history with every kind of event and letters from beyond ASCII; its length."""
    await desk.filled(5)
    await desk.portfolio.add(SYMBOLS[7], "gründlich geprüft ✓", WHO)
    await desk.portfolio.replace(SYMBOLS[2], SYMBOLS[9], "better", WHO)
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    await desk.configuration.put({"max_weight_percentage": 30}, "wider", WHO)
    desk.score({SYMBOLS[1]: 0.2, SYMBOLS[9]: 0.97})
    desk.later(days=2)
    desk.score({SYMBOLS[1]: 0.2, SYMBOLS[9]: 0.97})
    await desk.rebalancing.rebalance(WHO)
    events = await desk.queries.history(None, 500)
    return len(events)


def file_of(url: str) -> Path:
    return Path(str(make_url(url).database))


async def test_a_history_that_was_lived_is_whole(desk: Desk, database_url: str) -> None:
    assert (await verify_history(database_url)).ok
    length = await lived(desk)
    found = await verify_history(database_url)
    assert (found.ok, found.events, found.breaks) == (True, length, ())
    assert found.state == (await desk.portfolio.view()).portfolio


@sqlite_only
async def test_B17_any_flipped_bit_is_found_in_a_file(desk: Desk, database_url: str) -> None:
    length = await lived(desk)
    dice = Random(11)
    with closing(sqlite3.connect(file_of(database_url), isolation_level=None)) as file:
        for trigger in TRIGGERS:
            file.execute(f"DROP TRIGGER {trigger}")
        for turn in range(CASES):
            seq, column = dice.randint(1, length), COLUMNS[turn % len(COLUMNS)]
            kind, row, raw = file.execute(
                f"SELECT typeof({column}), rowid, CAST({column} AS BLOB)"
                " FROM portfolio_history WHERE seq = ?",
                (seq,),
            ).fetchone()
            if raw is None:
                continue
            at, bit = dice.randrange(len(raw)), 1 << dice.randrange(8)
            flipped = bytes([*raw[:at], raw[at] ^ bit, *raw[at + 1 :]])
            as_kind = "INTEGER" if kind == "integer" and flipped.isdigit() else "TEXT"
            change = f"UPDATE portfolio_history SET {column} = CAST(? AS {{}}) WHERE rowid = ?"
            try:
                file.execute(change.format(as_kind), (flipped, row))
            except sqlite3.IntegrityError:  # a number that is taken, or none at all
                continue
            found = await verify_history(database_url)
            assert not found.ok, (seq, column, raw, flipped)
            # A number that moved leaves a hole; anything else breaks where it stands.
            assert column == "seq" or found.first_break == seq, (column, found.breaks)
            file.execute(change.format(kind), (raw, row))
    assert (await verify_history(database_url)).ok


@sqlite_only
async def test_B17_a_number_that_has_become_bytes_which_are_no_text_is_found_in_a_file(
    desk: Desk, database_url: str
) -> None:
    await lived(desk)
    with closing(sqlite3.connect(file_of(database_url), isolation_level=None)) as file:
        for trigger in TRIGGERS:
            file.execute(f"DROP TRIGGER {trigger}")
        file.execute("UPDATE portfolio_history SET seq = CAST(x'B1' AS TEXT) WHERE seq = 1")
    found = await verify_history(database_url)
    assert not found.ok


@sqlite_only
async def test_B17_any_missing_event_is_found_in_a_file(desk: Desk, database_url: str) -> None:
    length = await lived(desk)
    await desk.database.close()
    before = file_of(database_url).read_bytes()
    for first in range(1, length + 1):
        for count in (1, length):
            with closing(sqlite3.connect(file_of(database_url), isolation_level=None)) as file:
                file.execute("DROP TRIGGER portfolio_history_no_delete")
                file.execute(
                    "DELETE FROM portfolio_history WHERE seq >= ? AND seq < ?",
                    (first, first + count),
                )
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            found = await verify_history(database_url)
            assert found.first_break == first
            file_of(database_url).write_bytes(before)
    assert (await verify_history(database_url)).ok
    await desk.database.open()


async def _with(database: Database, url: str, sql: str, given: Any) -> HistoryFindings | None:
    """Result of the audit after the change; None if the database refused the change."""
    try:
        async with database.write() as unit:
            changed = await unit.connection.execute(text(sql), given)
            assert changed.rowcount == 1
    except ServiceError:
        return None
    return await verify_history(url)


def _bent(value: Any, dice: Random) -> Any:
    """The same value with one bit of it turned, as far as the column's type can hold it."""
    if isinstance(value, int):
        return value ^ (1 << dice.randrange(8))
    if not isinstance(value, str):
        return value + timedelta(microseconds=1 << dice.randrange(20))
    while True:
        raw = bytearray(value.encode())
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        with suppress(UnicodeDecodeError):
            if (bent := raw.decode()) and "\x00" not in bent:
                return bent


@postgres_only
async def test_B17_any_flipped_bit_is_found_on_postgresql(desk: Desk, database_url: str) -> None:
    length = await lived(desk)
    database, dice = desk.database, Random(12)
    async with database.write() as unit:
        await unit.connection.execute(text("ALTER TABLE portfolio_history DISABLE TRIGGER USER"))
    for turn in range(CASES):
        seq, column = dice.randint(1, length), COLUMNS[turn % len(COLUMNS)]
        async with database.read() as unit:
            wanted = text(f"SELECT {column} FROM portfolio_history WHERE seq = :seq")
            value = (await unit.connection.execute(wanted, {"seq": seq})).scalar_one()
        if value is None:
            continue
        bent = _bent(value, dice)
        change = f"UPDATE portfolio_history SET {column} = :new WHERE {column} = :old AND seq = :at"
        there = {"new": bent, "old": value, "at": seq}
        found = await _with(database, database_url, change, there)
        if found is None:
            continue
        assert not found.ok, (seq, column, value, bent)
        assert column == "seq" or found.first_break == seq, (column, found.breaks)
        back = {"new": value, "old": bent, "at": bent if column == "seq" else seq}
        assert await _with(database, database_url, change, back) is not None
    assert (await verify_history(database_url)).ok


@postgres_only
async def test_B17_any_missing_event_is_found_on_postgresql(desk: Desk, database_url: str) -> None:
    length = await lived(desk)
    async with desk.database.write() as unit:
        for sql in (
            "ALTER TABLE portfolio_history DISABLE TRIGGER USER",
            "CREATE TABLE kept AS SELECT * FROM portfolio_history",
        ):
            await unit.connection.execute(text(sql))
    for first in range(1, length + 1):
        for count in (1, length):
            span = {"first": first, "last": first + count - 1}
            where = "WHERE seq BETWEEN :first AND :last"
            async with desk.database.write() as unit:
                delete = text(f"DELETE FROM portfolio_history {where}")
                await unit.connection.execute(delete, span)
            assert (await verify_history(database_url)).first_break == first
            async with desk.database.write() as unit:
                again = text(f"INSERT INTO portfolio_history SELECT * FROM kept {where}")
                await unit.connection.execute(again, span)
    assert (await verify_history(database_url)).ok


async def _execute(desk: Desk, sql: str) -> None:
    async with desk.database.write() as unit:
        await unit.connection.exec_driver_sql(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE portfolio SET version = version + 1",
        "UPDATE portfolio SET cash_u = 12345",
        "UPDATE portfolio_members SET weight_u = weight_u + 1 WHERE rank = 1",
        "UPDATE portfolio_members SET inclusion_reason = 'other' WHERE rank = 1",
        "DELETE FROM portfolio_members WHERE rank = 2",
        'UPDATE service_facts SET value = \'{"seq":1,"hash":"x"}\' WHERE key = \'history_head\'',
        "UPDATE service_facts SET value = 'nonsense' WHERE key = 'history_head'",
        "DELETE FROM service_facts WHERE key = 'history_head'",
    ],
)
async def test_a_state_or_record_changed_by_hand_is_found(
    desk: Desk, database_url: str, sql: str
) -> None:
    await lived(desk)
    await _execute(desk, sql)
    assert not (await verify_history(database_url)).ok


async def test_a_history_from_before_the_record_of_its_end_says_so_until_the_next_change(
    desk: Desk, database_url: str
) -> None:
    """An older version kept neither the end nor the events; what it wrote is all that is left."""
    length = await lived(desk)
    await _execute(desk, "DELETE FROM service_facts WHERE key = 'history_head'")
    await _execute(desk, "DELETE FROM events")
    found = await verify_history(database_url)
    assert (found.ok, found.events, found.caveat) == (True, length, UNRECORDED)
    await _execute(desk, "UPDATE portfolio SET version = version + 1")
    assert not (await verify_history(database_url)).ok
    await _execute(desk, "UPDATE portfolio SET version = version - 1")
    await desk.portfolio.remove(SYMBOLS[1], "out", WHO)
    found = await verify_history(database_url)
    assert (found.ok, found.caveat) == (True, None)
    await _execute(desk, "DELETE FROM service_facts WHERE key = 'history_head'")
    assert not (await verify_history(database_url)).ok


async def test_a_database_without_the_table_of_events_can_be_verified(
    desk: Desk, database_url: str
) -> None:
    length = await lived(desk)
    await _execute(desk, "DELETE FROM service_facts WHERE key = 'history_head'")
    await _execute(desk, "DROP TABLE events")
    found = await verify_history(database_url)
    assert (found.ok, found.events, found.caveat) == (True, length, UNRECORDED)


async def test_B17_nothing_is_built_on_a_chain_that_was_cut(desk: Desk, database_url: str) -> None:
    length = await lived(desk)
    on = "" if desk.database.dialect == "sqlite" else " ON portfolio_history"
    await _execute(desk, f"DROP TRIGGER portfolio_history_no_delete{on}")
    await _execute(desk, f"DELETE FROM portfolio_history WHERE seq = {length}")
    with pytest.raises(UnavailableError) as caught:
        await desk.portfolio.remove(SYMBOLS[1], "out", WHO)
    assert caught.value.code is Code.HISTORY_TAMPERED
    found = await verify_history(database_url)
    assert (found.events, found.first_break) == (length - 1, length)


@sqlite_only
async def test_it_is_only_read(desk: Desk, database_url: str) -> None:
    """Also while the service has the file open, and while it has not."""
    await lived(desk)
    assert (await verify_history(database_url)).ok
    await desk.database.close()
    before = file_of(database_url).read_bytes()
    assert (await verify_history(database_url)).ok
    assert file_of(database_url).read_bytes() == before
    await desk.database.open()


@sqlite_only
async def test_a_missing_history_is_reported(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await verify_history(f"sqlite+aiosqlite:///{tmp_path}/missing.sqlite3")
    assert not (tmp_path / "missing.sqlite3").exists()
    (tmp_path / "empty.sqlite3").touch()
    with pytest.raises(UnavailableError):
        await verify_history(f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3")
    with pytest.raises(UnavailableError):
        await verify_history(f"postgresql+asyncpg://nobody@/none?host={tmp_path}")
