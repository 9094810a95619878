"""Schema migrations: upgrade, downgrade and the revision of a database."""

import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, NullPool, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from alembic import command
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.errors import (
    CONNECT_ERRORS,
    schema_too_new_error,
    schema_too_old_error,
    translate,
)

LOCK_NUMBER: Final = 6_057_912_301  # of the advisory lock on PostgreSQL; an arbitrary number
_PLACES: Final = (
    Path(__file__).parent / "alembic",  # an installed wheel
    Path(__file__).parents[3] / "alembic",  # a checkout
)


async def upgrade(url: str, revision: str = "head") -> None:
    """Migrates to `revision` in one transaction; does nothing if the database is there already.

    Raises UnavailableError if the database is unreachable, SchemaTooNewError for a database of a
    later version of the service, SchemaTooOldError for one from before 0.2.0.
    """
    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Reverts migrations until `revision` is the last one; "base" reverts all."""
    await _run(url, lambda config: command.downgrade(config, revision))


async def current(url: str) -> str | None:
    """Returns the revision of the database; None if it is missing or was never migrated."""
    if _is_missing_file(parse_database_url(url)):
        return None
    async with connect(url, begin="BEGIN") as connection:
        return await connection.run_sync(
            lambda sync: MigrationContext.configure(sync).get_current_revision()
        )


@cache
def head() -> str:
    """Returns the revision that this version of the service needs."""
    newest = script().get_current_head()
    if newest is None:
        raise LookupError("there are no migrations")
    return newest


def script() -> ScriptDirectory:
    """Returns the directory of all migrations."""
    return ScriptDirectory.from_config(configuration())


def is_known(revision: str) -> bool:
    """Returns True if this version has the migration; a later version's is unknown."""
    scripts = ScriptDirectory.from_config(configuration()).walk_revisions()
    return any(script.revision == revision for script in scripts)


def is_before_first_release(revision: str) -> bool:
    """Returns True for revisions before version 0.2.0, which no version upgrades."""
    return re.fullmatch(r"0[01][0-9]{2}", revision) is not None


def configuration() -> Config:
    """Returns Alembic's configuration for the installed place of the migrations."""
    config = Config()
    place = next((path for path in _PLACES if (path / "env.py").is_file()), _PLACES[-1])
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@asynccontextmanager
async def connect(url: str, begin: str = "BEGIN IMMEDIATE") -> AsyncIterator[AsyncConnection]:
    """Yields a connection in one transaction, without the service's time limits."""
    address = parse_database_url(url)
    driver: dict[str, Any] = {"server_settings": {"lock_timeout": "60000"}}
    if address.get_backend_name() == "sqlite":
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
        driver = {"isolation_level": None, "timeout": 60}
    engine = create_async_engine(address, poolclass=NullPool, connect_args=driver)
    if address.get_backend_name() == "sqlite":
        # With the driver's own transactions, half a migration could be committed.
        event.listen(engine.sync_engine, "connect", _set_journal_mode)
        event.listen(engine.sync_engine, "begin", lambda sync: sync.exec_driver_sql(begin))
    try:
        async with engine.begin() as connection:
            yield connection
    except (SQLAlchemyError, *CONNECT_ERRORS) as e:
        raise translate(e) or UnavailableError(
            Code.DATABASE_UNAVAILABLE, "the database refused a migration"
        ) from e
    finally:
        await engine.dispose()


def _set_journal_mode(connection: Any, _: object) -> None:
    """Sets WAL mode, which is stored in the file and cannot change inside a transaction.

    SQLite does not wait for it: if the file is in use, the other process sets the mode.
    """
    cursor = connection.cursor()
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _is_missing_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()


async def _run(url: str, task: Callable[[Config], None]) -> None:
    def migrate(connection: Connection) -> None:
        present = MigrationContext.configure(connection).get_current_revision()
        if present is not None and not is_known(present):
            raise (
                schema_too_old_error()
                if is_before_first_release(present)
                else schema_too_new_error()
            )
        config = configuration()
        config.attributes["connection"] = connection
        task(config)

    async with connect(url) as connection:
        await connection.run_sync(migrate)
