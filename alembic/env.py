"""Runs migrations on the connection of the caller, or on a new one for the alembic command."""

import asyncio
import os

from sqlalchemy import Connection, text

from alembic import context
from app.container.tables import metadata
from app.foundation.sql.migrations import LOCK_NUMBER, connect
from app.operations.storage import views  # noqa: F401  # declared on the metadata

TARGET = metadata


def migrate(connection: Connection) -> None:
    """Runs all migrations in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=TARGET,
        transactional_ddl=True,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Processes may start together: one migrates, the others wait for its commit.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_NUMBER})"))
        context.run_migrations()


async def migrate_on_new_connection() -> None:
    configured_url = context.config.get_main_option("sqlalchemy.url")
    plain = os.environ.get("DATABASE_URL")
    url = os.environ.get("MYSYMBOLS_DATABASE__URL") or plain or configured_url
    if url is None:
        raise SystemExit("set MYSYMBOLS_DATABASE__URL to the database to migrate")
    async with connect(url) as connection:
        await connection.run_sync(migrate)


if context.is_offline_mode():
    raise SystemExit("migrations read the database: --sql is not supported")
if (connection := context.config.attributes.get("connection")) is not None:
    migrate(connection)
else:
    asyncio.run(migrate_on_new_connection())
