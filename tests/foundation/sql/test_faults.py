"""Driver failures are translated to domain errors."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.foundation.sql.errors import translate
from tests.conftest import MakeDatabase


class _StateError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("as the driver says")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("40001", Code.DATABASE_CONTENTION),
        ("40P01", Code.DATABASE_CONTENTION),
        ("55P03", Code.DATABASE_CONTENTION),
        ("57014", Code.DATABASE_CONTENTION),
        ("53100", Code.STORAGE_FULL),
        ("53300", Code.OVERLOADED),
        ("25006", Code.DATABASE_UNAVAILABLE),
        ("08006", Code.DATABASE_UNAVAILABLE),
        ("57P01", Code.DATABASE_UNAVAILABLE),
        ("42P01", Code.DATABASE_UNAVAILABLE),
        ("22003", Code.INTERNAL_ERROR),
    ],
)
def test_states_of_postgres_have_a_code(state: str, code: Code) -> None:
    error = translate(DBAPIError("SELECT 1", {}, _StateError(state)))
    assert error is not None
    assert error.code is code
    assert "driver" not in error.detail
    assert isinstance(error, UnavailableError) == (error.retry_after_s is not None)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_BUSY, Code.DATABASE_CONTENTION),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Code.DATABASE_CONTENTION),
        (sqlite3.SQLITE_FULL, Code.STORAGE_FULL),
        (sqlite3.SQLITE_NOMEM, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_IOERR_WRITE, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_CORRUPT, Code.DATABASE_UNAVAILABLE),
        (sqlite3.SQLITE_CANTOPEN, Code.DATABASE_UNAVAILABLE),
    ],
)
def test_numbers_of_sqlite_have_a_code(number: int, code: Code) -> None:
    driver = sqlite3.OperationalError("as the driver says")
    driver.sqlite_errorcode = number
    error = translate(OperationalError("SELECT 1", {}, driver))
    assert error is not None
    assert error.code is code


def test_errors_in_own_sql_are_not_translated() -> None:
    assert translate(DBAPIError("SELEC 1", {}, _StateError("42601"))) is None
    assert translate(OperationalError("", {}, sqlite3.OperationalError("syntax error"))) is None
    assert translate(KeyError("x")) is None
    lost = DBAPIError("", {}, Exception("gone"), connection_invalidated=True)
    error = translate(lost)
    assert error is not None
    assert error.code is Code.DATABASE_UNAVAILABLE


async def test_a_file_that_is_no_database(make_database: MakeDatabase, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite3"
    path.write_bytes(b"this is not a database" * 100)
    database: Database = make_database(f"sqlite:///{path}")
    await database.open()
    with pytest.raises(UnavailableError) as caught:
        async with database.read():
            pass
    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    with pytest.raises(UnavailableError):
        await database.ping()
    await database.close()
    assert path.read_bytes() == b"this is not a database" * 100
