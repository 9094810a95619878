"""Events that the configuration publishes."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.configuration.domain.document import as_document, differences, from_document
from app.configuration.domain.model import Configuration
from app.foundation.events import EventKind, EventTopic, ValueCodec


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """New business settings are in force.

    `changes` says key, old and new value of each changed setting: `entry_score: 0.6 to 0.7`.
    """

    settings: Configuration
    occurred_at: datetime
    changes: tuple[str, ...] = ()
    reason: str | None = None
    actor: str | None = None


def configuration_changed(
    before: Configuration, after: Configuration, at: datetime, reason: str, actor: str
) -> ConfigurationChanged:
    """Returns the event of settings that come into force at `at`."""
    changes = tuple(
        f"{one.key}: {_value_text(one.old)} to {_value_text(one.new)}"
        for one in differences(as_document(before), as_document(after))
    )
    return ConfigurationChanged(after, at, changes, reason, actor)


def _value_text(value: object) -> str:
    """The value as JSON; `none` for a key that a map does not have."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


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
