"""Bringing a database to the schema of this version, and saying which one it has."""

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
from app.foundation.sql.engines import url_of
from app.foundation.sql.errors import CONNECT_ERRORS, too_new, too_old, translated

LOCK_NUMBER: Final = 6_057_912_301  # of our advisory lock on PostgreSQL; any number that is ours
_PLACES: Final = (
    Path(__file__).parent / "alembic",  # an installed wheel
    Path(__file__).parents[3] / "alembic",  # a checkout
)


async def upgrade(url: str, revision: str = "head") -> None:
    """Migrates to `revision` in one transaction; nothing happens if it is there already.

    Raises UnavailableError where the database cannot be reached, SchemaTooNewError for a database
    of a later version of the service, SchemaTooOldError for one from before 0.2.0.
    """
    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Takes migrations back until `revision` is the last ("base": none is left)."""
    await _run(url, lambda config: command.downgrade(config, revision))


async def current(url: str) -> str | None:
    """The revision of the database; None where it was never migrated, or is not there yet."""
    if _is_missing_file(url_of(url)):
        return None
    async with connected(url, begin="BEGIN") as connection:
        return await connection.run_sync(
            lambda sync: MigrationContext.configure(sync).get_current_revision()
        )


@cache
def head() -> str:
    """The revision that this version of the service needs."""
    newest = script().get_current_head()
    if newest is None:
        raise LookupError("there are no migrations")
    return newest


def script() -> ScriptDirectory:
    """All migrations."""
    return ScriptDirectory.from_config(configuration())


def knows(revision: str) -> bool:
    """Whether this version has that migration; if not, the database belongs to a later one."""
    scripts = ScriptDirectory.from_config(configuration()).walk_revisions()
    return any(script.revision == revision for script in scripts)


def is_before_first_release(revision: str) -> bool:
    """Whether the revision is of the history before version 0.2.0, which no version upgrades."""
    return re.fullmatch(r"00[0-9]{2}", revision) is not None


def configuration() -> Config:
    """Alembic's configuration, from wherever the migrations are installed."""
    config = Config()
    place = next((one for one in _PLACES if (one / "env.py").is_file()), _PLACES[-1])
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@asynccontextmanager
async def connected(url: str, begin: str = "BEGIN IMMEDIATE") -> AsyncIterator[AsyncConnection]:
    """A connection in one transaction, committed at the end; without the service's time limits."""
    address = url_of(url)
    driver: dict[str, Any] = {"server_settings": {"lock_timeout": "60000"}}
    if address.get_backend_name() == "sqlite":
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
        driver = {"isolation_level": None, "timeout": 60}
    engine = create_async_engine(address, poolclass=NullPool, connect_args=driver)
    if address.get_backend_name() == "sqlite":
        # With the driver's own transactions, half a migration could stay behind.
        event.listen(engine.sync_engine, "connect", _journal)
        event.listen(engine.sync_engine, "begin", lambda sync: sync.exec_driver_sql(begin))
    try:
        async with engine.begin() as connection:
            yield connection
    except (SQLAlchemyError, *CONNECT_ERRORS) as e:
        raise translated(e) or UnavailableError(
            Code.DATABASE_UNAVAILABLE, "the database refused a migration"
        ) from e
    finally:
        await engine.dispose()


def _journal(connection: Any, _: object) -> None:
    """The mode stays with the file; it cannot be changed inside a transaction.

    SQLite does not wait for this one: where the file is in use, the other process sets the mode.
    """
    cursor = connection.cursor()
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _is_missing_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()


async def _run(url: str, task: Callable[[Config], None]) -> None:
    def on(connection: Connection) -> None:
        present = MigrationContext.configure(connection).get_current_revision()
        if present is not None and not knows(present):
            raise too_old() if is_before_first_release(present) else too_new()
        config = configuration()
        config.attributes["connection"] = connection
        task(config)

    async with connected(url) as connection:
        await connection.run_sync(on)
