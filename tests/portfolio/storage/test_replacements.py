"""Confirmations on real databases, and the migration of their table."""

from datetime import UTC, datetime

from app.foundation.sql.database import Database
from app.portfolio.domain.replacement import ConfirmationCount
from app.portfolio.storage.replacements import ReplacementRepository

AT = datetime(2026, 3, 1, tzinfo=UTC)


async def test_tallies_are_replaced_as_a_whole(database: Database) -> None:
    first = ConfirmationCount("BTCUSDT", "ETHUSDT", 2, "inputs-2", AT, is_confirmed=True)
    second = ConfirmationCount("SOLUSDT", "XRPUSDT", 1, "inputs-2", AT)
    async with database.write() as unit:
        await unit.get(ReplacementRepository).keep((first, second))
    async with database.read() as unit:
        assert await unit.get(ReplacementRepository).confirmation_counts() == {
            "BTCUSDT": first,
            "SOLUSDT": second,
        }
        assert await unit.get(ReplacementRepository).confirmed() == {"BTCUSDT"}
        assert await unit.get(ReplacementRepository).last_swap() is None
    async with database.write() as unit:
        await unit.get(ReplacementRepository).forget("BTCUSDT")
    async with database.read() as unit:
        assert await unit.get(ReplacementRepository).confirmation_counts() == {"SOLUSDT": second}
    async with database.write() as unit:
        await unit.get(ReplacementRepository).keep(())
    async with database.read() as unit:
        assert await unit.get(ReplacementRepository).confirmation_counts() == {}
