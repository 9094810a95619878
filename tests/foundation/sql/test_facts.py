"""Single facts."""

import pytest

from app.foundation.data_status import DataSource
from app.foundation.errors import Code
from app.foundation.sql.database import Database, DataSourceMismatchError
from app.foundation.sql.facts import FactRepository


async def test_a_fact_is_kept_or_overwritten(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(FactRepository).get("colour") is None
        assert await unit.get(FactRepository).keep("colour", {"name": "blue"}) == {"name": "blue"}
        assert await unit.get(FactRepository).keep("colour", "red") == {"name": "blue"}
        await unit.get(FactRepository).put("colour", ["green"])
    async with database.read() as unit:
        assert await unit.get(FactRepository).get("colour") == ["green"]


async def test_a_database_serves_one_data_source_for_ever(database: Database) -> None:
    await database.claim(DataSource.SANDBOX)
    await database.claim(DataSource.SANDBOX)
    with pytest.raises(DataSourceMismatchError, match="holds data of sandbox") as caught:
        await database.claim(DataSource.KUCOIN)
    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    await database.claim(DataSource.SANDBOX)
