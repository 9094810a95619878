"""Runs migrations on the connection it is given, or on one of its own for the alembic command."""

import asyncio
import os

from sqlalchemy import Connection, text

from alembic import context
from app.container.tables import metadata
from app.foundation.sql.migrations import LOCK_NUMBER, connected
from app.operations.storage import views  # noqa: F401  # declared on the metadata

TARGET = metadata


def migrate(connection: Connection) -> None:
    """One transaction for everything: it is done whole or not at all."""
    context.configure(
        connection=connection,
        target_metadata=TARGET,
        transactional_ddl=True,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Replicas start together: one migrates, the others wait and find it done.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_NUMBER})"))
        context.run_migrations()


async def on_own_connection() -> None:
    configured = context.config.get_main_option("sqlalchemy.url")
    url = os.environ.get("MYSYMBOLS_DATABASE__URL") or configured
    if url is None:
        raise SystemExit("set MYSYMBOLS_DATABASE__URL to the database to migrate")
    async with connected(url) as connection:
        await connection.run_sync(migrate)


if context.is_offline_mode():
    raise SystemExit("migrations look at the database: --sql is not supported")
if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    asyncio.run(on_own_connection())
