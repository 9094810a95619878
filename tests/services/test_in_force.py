"""The settings in force follow the database and what was committed since."""

from dataclasses import replace
from datetime import UTC, datetime

from app.domain.configuration import Configuration
from app.domain.events import ConfigurationChanged
from app.services.in_force import SettingsInForce
from app.storage.database import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEWER = replace(Configuration(), version=2, max_portfolio_symbols=12)


async def test_a_new_database_stores_the_defaults_that_decisions_will_name(
    database: Database,
) -> None:
    in_force = SettingsInForce()
    await in_force.load(database, NOW)
    await in_force.load(database, NOW)

    async with database.read() as unit:
        assert await unit.configuration.get(1) == Configuration()
    assert in_force() == Configuration()


async def test_stored_settings_are_taken_up(database: Database) -> None:
    async with database.write() as unit:
        await unit.configuration.add(NEWER, NOW, "operator")
    in_force = SettingsInForce()
    await in_force.load(database, NOW)

    assert in_force() == NEWER


def test_committed_settings_are_heard_and_late_ones_are_not() -> None:
    in_force = SettingsInForce()
    in_force.hear(ConfigurationChanged(NEWER, NOW))
    in_force.hear(ConfigurationChanged(Configuration(), NOW))
    in_force.hear("something else")

    assert in_force() == NEWER
