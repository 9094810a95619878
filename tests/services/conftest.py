"""A desk on both databases."""

import pytest

from app.storage.database import Database
from tests.services.desk import Desk


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)
