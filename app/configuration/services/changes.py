"""Port through which other capabilities read and change the business configuration."""

from collections.abc import Mapping
from typing import Protocol

from app.configuration.domain.model import Configuration
from app.foundation.idempotency import Command, CommandResult, Render


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
