"""A database of the test server goes away and comes back: its connections are cut, none is made."""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg


async def reachable(room: Path, url: str, *, on: bool) -> None:
    """Lets connections to the database at `url` be made, or cuts them and makes none."""
    name = urlsplit(url).path.strip("/")
    connection = await asyncpg.connect(host=str(room), user="postgres", database="postgres")
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {on}")
        if not on:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
            )
    finally:
        await connection.close()
