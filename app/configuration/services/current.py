"""Current business settings in memory, and the port to read and change them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

import structlog

from app.configuration.domain.events import EVENTS, FORMS, ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import UnavailableError
from app.foundation.events import EventCodec, EventRecord
from app.foundation.idempotency import Command, CommandResult, Render
from app.foundation.sql.database import Database


class ConfigurationChanges(Protocol):
    """Versioned configuration; `operations` implements it, with audit and evictions."""

    async def current(self) -> Configuration: ...

    async def put(
        self,
        changes: Mapping[str, object],
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
    ) -> CommandResult[Configuration]:
        """Applies `changes` to the current settings and stores them as the next version.

        Raises ConfigurationRefusedError and the errors of the change.
        """
        ...


_CODEC: Final = EventCodec(EVENTS, FORMS)
_AUTHOR: Final = "service"
_log = structlog.get_logger("settings")


@dataclass(slots=True)
class CurrentSettings:
    """Newest known settings; calling the object returns them."""

    present: Configuration = field(default_factory=Configuration)

    def __call__(self) -> Configuration:
        return self.present

    async def load(self, database: Database, at: datetime) -> None:
        """Loads the stored settings; an empty database gets the defaults as version 1."""
        async with database.write() as unit:
            self.present = await unit.get(ConfigurationRepository).get_or_create(at, _AUTHOR)

    async def reread(self, database: Database) -> None:
        """Loads the stored settings, even older ones: a failover may have lost a version.

        Unreadable settings leave the current ones in force.
        """
        before = self.present
        async with database.read() as unit:
            try:
                stored = await unit.get(ConfigurationRepository).current()
            except UnavailableError as error:
                _log.error("settings_not_read", cause=error.code, current_version=before.version)
                return
        if self.present is before:  # unchanged meanwhile
            self.present = stored

    def on_event(self, event: object) -> None:
        """Applies committed settings; a late older version changes nothing."""
        if isinstance(event, ConfigurationChanged):
            newer = event.settings.version > self.present.version
            self.present = event.settings if newer else self.present

    def on_record(self, record: EventRecord) -> None:
        """Applies settings committed by any process; unreadable ones change nothing.

        A decision names the stored version; with an unreadable one it is refused.
        """
        if record.type != EVENTS[0].type:
            return
        event = _CODEC.try_decode(record)
        if event is None:
            _log.error(
                "settings_decode_failed",
                event_sequence=record.seq,
                current_version=self.present.version,
            )
        else:
            self.on_event(event)
