"""Versions of the configuration."""

from dataclasses import replace
from decimal import Decimal

import pytest

from app.configuration.domain.document import as_document
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository, configuration_versions
from app.foundation.errors import Code, ConflictError, NotFoundError, UnavailableError
from app.foundation.sql.database import Database
from tests.support.stored_values import LATER, T0


async def test_the_defaults_are_version_one(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(ConfigurationRepository).current() == Configuration()
        assert await unit.get(ConfigurationRepository).get_or_create(T0, "start") == Configuration()
        later = await unit.get(ConfigurationRepository).get_or_create(LATER, "start")
        assert later == Configuration()
        assert await unit.get(ConfigurationRepository).get(1) == Configuration()


async def test_a_new_version_is_in_force_and_the_old_one_remains(database: Database) -> None:
    second = replace(
        Configuration(), version=2, max_portfolio_symbols=15, rebalance_threshold=Decimal("0.5")
    )
    async with database.write() as unit:
        await unit.get(ConfigurationRepository).get_or_create(T0, "start")
        await unit.get(ConfigurationRepository).add(second, LATER, "operator")
    async with database.read() as unit:
        assert await unit.get(ConfigurationRepository).current() == second
        assert await unit.get(ConfigurationRepository).get(1) == Configuration()
        with pytest.raises(NotFoundError):
            await unit.get(ConfigurationRepository).get(3)
    with pytest.raises(ConflictError) as caught:
        async with database.write() as unit:
            await unit.get(ConfigurationRepository).add(second, LATER, "another")
    assert caught.value.code is Code.VERSION_CONFLICT


async def test_G11_settings_of_a_later_version_are_nobodys_mistake_but_unavailable(
    database: Database,
) -> None:
    later = {**as_document(Configuration()), "of_a_later_version": 1}
    row = {"version": 2, "body": later, "created_at": LATER, "created_by": "another"}
    async with database.write() as unit:
        await unit.get(ConfigurationRepository).get_or_create(T0, "start")
        await unit.connection.execute(configuration_versions.insert(), row)
    async with database.read() as unit:
        with pytest.raises(UnavailableError, match="version 2") as caught:
            await unit.get(ConfigurationRepository).current()
        assert caught.value.code is Code.DATABASE_UNAVAILABLE
        assert await unit.get(ConfigurationRepository).get(1) == Configuration()
