"""Single facts."""

import pytest

from app.foundation.data_status import DataSource
from app.foundation.errors import Code
from app.foundation.sql.database import Database, DataSourceMismatchError
from app.foundation.sql.key_value import KeyValueRepository


async def test_a_value_is_kept_or_overwritten(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(KeyValueRepository).get("colour") is None
        assert await unit.get(KeyValueRepository).put_if_absent("colour", {"name": "blue"}) == {
            "name": "blue"
        }
        assert await unit.get(KeyValueRepository).put_if_absent("colour", "red") == {"name": "blue"}
        await unit.get(KeyValueRepository).put("colour", ["green"])
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("colour") == ["green"]


async def test_a_database_serves_one_data_source_for_ever(database: Database) -> None:
    await database.bind_source(DataSource.SANDBOX)
    await database.bind_source(DataSource.SANDBOX)
    with pytest.raises(DataSourceMismatchError, match="holds data of sandbox") as caught:
        await database.bind_source(DataSource.KUCOIN)
    assert caught.value.code is Code.DATABASE_UNAVAILABLE
    await database.bind_source(DataSource.SANDBOX)
