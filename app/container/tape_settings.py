"""The business settings that a recording goes by: those in force, read beside whoever serves."""

from app.domain.configuration import Configuration
from app.domain.errors import NotFoundError
from app.storage.audit import reading
from app.storage.configuration import ConfigurationRepository
from app.storage.engines import url_of


async def settings_in_force(database_url: str) -> Configuration:
    """The newest version that is stored, only read; the defaults where no database is yet.

    Raises UnavailableError where it cannot be read.
    """
    try:
        async with reading(url_of(database_url)) as connection:
            return await ConfigurationRepository(connection).current()
    except NotFoundError:
        return Configuration()
