"""The business settings in force, in memory for those that read them between two requests."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from app.configuration.domain.events import EVENTS, FORMS, ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import UnavailableError
from app.foundation.events import EventCodec, EventRecord, Topic
from app.foundation.sql.database import Database

_CODEC: Final = EventCodec(EVENTS, FORMS)
_AUTHOR: Final = "service"
_log = structlog.get_logger("settings")


@dataclass(slots=True)
class CurrentSettings:
    """Calling it gives the newest settings that were loaded or heard of."""

    present: Configuration = field(default_factory=Configuration)

    def __call__(self) -> Configuration:
        return self.present

    async def load(self, database: Database, at: datetime) -> None:
        """What is stored; an empty database gets the defaults, since decisions name a version."""
        async with database.write() as unit:
            self.present = await unit.get(ConfigurationRepository).found(at, _AUTHOR)

    async def reread(self, database: Database) -> None:
        """What is stored now, be it older: the database may have lost what was heard of.

        What cannot be read leaves the last good ones.
        """
        held = self.present
        async with database.read() as unit:
            try:
                stored = await unit.get(ConfigurationRepository).current()
            except UnavailableError as error:
                _log.error("settings_not_read", cause=error.code, kept_version=held.version)
                return
        if self.present is held:  # nothing was heard of meanwhile
            self.present = stored

    def hear(self, event: object) -> None:
        """Takes over committed settings; an older version that arrives late changes nothing."""
        if isinstance(event, ConfigurationChanged):
            newer = event.settings.version > self.present.version
            self.present = event.settings if newer else self.present

    def read(self, record: EventRecord) -> None:
        """The same for what any process committed; what cannot be read leaves the last good ones.

        Decisions name the stored version and refuse to be made with settings that they cannot read.
        """
        if record.topic is not Topic.CONFIGURATION:
            return
        event = _CODEC.understood(record)
        if event is None:
            kept = self.present.version
            _log.error("settings_decode_failed", event_sequence=record.seq, kept_version=kept)
        else:
            self.hear(event)
