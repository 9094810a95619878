"""The secret that signs paging cursors, one for all processes of a database."""

import secrets
from typing import Final

from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.settings import Settings

_BYTES: Final = 32
_FACT: Final = "cursor_secret"


async def cursor_secret(settings: Settings, database: Database) -> bytes:
    """Secret of the settings; else the one that the first process stored in the database.

    So a cursor is valid in every process, also after a restart, without configuration. A reader of
    the database could forge cursors, and nothing else.
    Raises UnavailableError.
    """
    given = settings.http.cursor_secret
    if given is not None:
        return given.get_secret_value().encode()
    async with database.write() as unit:
        secret = await unit.get(FactRepository).keep(_FACT, secrets.token_hex(_BYTES))
    return bytes.fromhex(secret)
