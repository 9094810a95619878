"""Business configuration: read, change as a whole, remember every version."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.domain.configuration import Configuration
from app.domain.configuration_document import as_document, validate
from app.domain.errors import Code, ConflictError
from app.domain.events import ConfigurationChanged
from app.domain.history import EventType, PortfolioEvent
from app.domain.membership import configure
from app.services.changes import Ledger
from app.services.grounds import GroundsNow
from app.services.once import Command, Once, Outcome, Render
from app.storage.database import Database
from app.storage.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class ConfigurationService:
    """The settings in force and their history."""

    database: Database
    grounds: GroundsNow
    once: Once
    ledger: Ledger

    async def current(self) -> Configuration:
        async with self.database.read() as unit:
            return await unit.configuration.current()

    async def put(
        self,
        changes: Mapping[str, object],
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
    ) -> Outcome[Configuration]:
        """The present settings with `changes`, judged as a whole, as the next version.

        Settings that are already so make no new version. Raises ConfigurationRefusedError,
        ConflictError(portfolio_exceeds_limit), PreconditionFailedError.
        """

        async def change(unit: UnitOfWork) -> Configuration:
            portfolio = await unit.portfolio.load(for_update=True)
            present = await unit.configuration.current()
            command.require_version(present.version)
            wanted = validate(changes, present)
            if replace(wanted, version=present.version) == present:
                return present
            size, most = len(portfolio.members), wanted.max_portfolio_symbols
            if most < size:
                raise ConflictError(
                    Code.PORTFOLIO_EXCEEDS_LIMIT,
                    f"The portfolio has {size} members: remove some before allowing only {most}.",
                )
            grounds = self.grounds(wanted)
            await unit.configuration.add(wanted, grounds.at, command.actor)
            done = configure(portfolio, wanted.version, as_document(wanted), grounds.at, reason)
            await self.ledger.commit(unit, portfolio, done, grounds, command)
            unit.announce(ConfigurationChanged(wanted, grounds.at))
            return wanted

        return await self.once.run(command, change, render)

    async def history(self, before_seq: int | None, limit: int) -> tuple[PortfolioEvent, ...]:
        """The events of new versions, newest first; the payload holds the settings."""
        async with self.database.read() as unit:
            return await unit.history.page(before_seq, limit, kind=EventType.CONFIG)
