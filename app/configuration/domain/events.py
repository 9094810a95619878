"""Events that the configuration publishes."""

from dataclasses import dataclass
from datetime import datetime

from app.configuration.domain.model import Configuration


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """New business settings are in force."""

    settings: Configuration
    occurred_at: datetime
