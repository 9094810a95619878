"""The business settings that a recording goes by: those in force, read beside whoever serves."""

from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import NotFoundError
from app.foundation.sql.engines import url_of
from app.operations.storage.audit import reading


async def settings_in_force(database_url: str) -> Configuration:
    """The newest version that is stored, only read; the defaults where no database is yet.

    Raises UnavailableError where it cannot be read.
    """
    try:
        async with reading(url_of(database_url)) as connection:
            return await ConfigurationRepository(connection).current()
    except NotFoundError:
        return Configuration()
