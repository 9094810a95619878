"""A desk on both databases, and a database whose statements are counted."""

from collections.abc import AsyncIterator

import pytest

from app.foundation.sql.database import Database
from tests.conftest import PATIENT, MakeDatabase
from tests.support.trading_desk import Desk


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def counted(
    database_url: str, make_database: MakeDatabase
) -> AsyncIterator[tuple[Database, list[str]]]:
    """A database and every statement that it carries out."""
    seen: list[str] = []
    opened = make_database(
        database_url,
        on_slow=lambda slow: seen.append(slow.sql),
        **{**PATIENT, "slow_statement_s": -1.0},
    )
    await opened.open()
    yield opened, seen
    await opened.close()
