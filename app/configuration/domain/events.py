"""Events that the configuration publishes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.configuration.domain.document import as_document, from_document
from app.configuration.domain.model import Configuration
from app.foundation.events import EventKind, EventTopic, ValueCodec


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """New business settings are in force."""

    settings: Configuration
    occurred_at: datetime


EVENTS: Final = (
    EventKind(ConfigurationChanged, "configuration_changed", EventTopic.CONFIGURATION),
)
FORMS: Final = (
    ValueCodec(
        Configuration,
        lambda value: {"version": value.version, "settings": as_document(value)},
        lambda raw: from_document(raw["settings"], raw["version"]),
    ),
)
