"""The business settings in force, in memory, and the port that reads and changes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

import structlog

from app.configuration.domain.events import EVENTS, FORMS, ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import UnavailableError
from app.foundation.events import EventCodec, EventRecord, Topic
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
        """The present settings with `changes`, judged as a whole, as the next version.

        Raises ConfigurationRefusedError and what carrying the change out raises.
        """
        ...


_CODEC: Final = EventCodec(EVENTS, FORMS)
_AUTHOR: Final = "service"
_log = structlog.get_logger("settings")


@dataclass(slots=True)
class CurrentSettings:
    """Holder of the newest known settings; calling it returns them."""

    present: Configuration = field(default_factory=Configuration)

    def __call__(self) -> Configuration:
        return self.present

    async def load(self, database: Database, at: datetime) -> None:
        """Load the stored settings; an empty database gets the defaults as version 1."""
        async with database.write() as unit:
            self.present = await unit.get(ConfigurationRepository).found(at, _AUTHOR)

    async def reread(self, database: Database) -> None:
        """Load the stored settings, even older ones: a failover may have lost a version.

        Unreadable settings leave the current ones.
        """
        before = self.present
        async with database.read() as unit:
            try:
                stored = await unit.get(ConfigurationRepository).current()
            except UnavailableError as error:
                _log.error("settings_not_read", cause=error.code, kept_version=before.version)
                return
        if self.present is before:  # unchanged meanwhile
            self.present = stored

    def hear(self, event: object) -> None:
        """Apply committed settings; a late older version changes nothing."""
        if isinstance(event, ConfigurationChanged):
            newer = event.settings.version > self.present.version
            self.present = event.settings if newer else self.present

    def read(self, record: EventRecord) -> None:
        """Apply settings committed by any process; unreadable ones leave the current ones.

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
