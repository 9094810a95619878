"""Publishes the progress of jobs to the stream; what cannot be published is left out."""

from dataclasses import dataclass

import structlog

from app.foundation.errors import ServiceError
from app.foundation.events import JobChanged
from app.foundation.sql.database import Database

_log = structlog.get_logger("jobs")


@dataclass(frozen=True, slots=True)
class JobNews:
    """A courtesy: no job fails because nobody could be told of it."""

    database: Database

    async def tell(self, event: JobChanged) -> None:
        try:
            async with self.database.write() as unit:
                unit.announce(event)
        except ServiceError as error:
            _log.warning("job_news_lost", job=event.job_id, cause=error.code.value)
