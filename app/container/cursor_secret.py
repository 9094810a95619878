"""The secret that signs paging cursors, one for all processes of a database."""

import secrets
from typing import Final

from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.settings import Settings

_BYTES: Final = 32
_FACT: Final = "cursor_secret"


async def cursor_secret(settings: Settings, database: Database) -> bytes:
    """That of the settings; else the one that the first process drew and left in the database.

    So a page that was begun at one process goes on at another, also after a restart, and nobody
    has to think of a secret. Who reads it there can begin a page where he likes, and no more.
    Raises UnavailableError.
    """
    given = settings.http.cursor_secret
    if given is not None:
        return given.get_secret_value().encode()
    async with database.write() as unit:
        kept = await unit.get(FactRepository).keep(_FACT, secrets.token_hex(_BYTES))
    return bytes.fromhex(kept)
