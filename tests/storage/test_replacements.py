"""Confirmations and recent z on real databases, and the migration of their table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, inspect

from app.domain.replacement import Tally
from app.storage import migrations
from app.storage.database import Database
from tests.services.desk import NOW, SYMBOLS, Desk, symbol_id

AT = datetime(2026, 3, 1, tzinfo=UTC)


async def test_tallies_are_replaced_as_a_whole(database: Database) -> None:
    first = Tally("BTCUSDT", "ETHUSDT", 2, "inputs-2", is_confirmed=True)
    second = Tally("SOLUSDT", "XRPUSDT", 1, "inputs-2")
    async with database.write() as unit:
        await unit.replacements.keep((first, second), AT)
    async with database.read() as unit:
        assert await unit.replacements.tallies() == {"BTCUSDT": first, "SOLUSDT": second}
        assert await unit.replacements.confirmed() == {"BTCUSDT"}
        assert await unit.replacements.last_swap() is None
    async with database.write() as unit:
        await unit.replacements.forget("BTCUSDT")
    async with database.read() as unit:
        assert await unit.replacements.tallies() == {"SOLUSDT": second}
    async with database.write() as unit:
        await unit.replacements.keep((), AT)
    async with database.read() as unit:
        assert await unit.replacements.tallies() == {}


async def test_recent_z_is_of_distinct_inputs_and_of_the_newest_boards(database: Database) -> None:
    desk = await Desk(database).open()
    for number in range(1, 6):
        desk.score({SYMBOLS[0]: 0.5 + number / 100, SYMBOLS[1]: None if number == 5 else 0.6})
        assert desk.boards.board is not None
        board = replace(
            desk.boards.board,
            run_id=symbol_id(number),
            input_hash=f"inputs-{min(number, 4)}",
            calculated_at=NOW + timedelta(minutes=number),
        )
        async with database.write() as unit:
            await unit.scoring.save(board, None)
    async with database.read() as unit:
        found = await unit.scoring.recent_z(SYMBOLS[:2], 3)
        latest = await unit.scoring.latest_composites(SYMBOLS[:2])
    # The boards 5, 4 and 3 are the newest; 5 and 4 are of the same inputs.
    assert sorted(len(values) for values in found.values()) == [2, 2]
    assert latest == {SYMBOLS[0]: 0.55}


async def test_the_table_comes_and_goes_with_its_migration(empty_database_url: str) -> None:
    async def tables() -> set[str]:
        def names(connection: Connection) -> set[str]:
            return set(inspect(connection).get_table_names())

        async with migrations.connected(empty_database_url, begin="BEGIN") as connection:
            return await connection.run_sync(names)

    await migrations.upgrade(empty_database_url)
    assert "replacement_confirmations" in await tables()
    await migrations.downgrade(empty_database_url, "0001")
    assert "replacement_confirmations" not in await tables()
    await migrations.upgrade(empty_database_url)
    assert "replacement_confirmations" in await tables()
