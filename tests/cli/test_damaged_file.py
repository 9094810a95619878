"""A damaged file is neither served nor written, and differs from a wrong setting."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.cli.exit_codes import ExitCode
from app.foundation.sql.database import Database
from tests.cli.command import Ended, alone
from tests.support.trading_desk import Desk

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def _closed_file(database: Database, url: str) -> Path:
    """A copy of the file of a portfolio with a history, whole and without a log beside it."""
    await Desk(database).filled(3)
    source = Path(str(make_url(url).database))
    path = source.with_name("copy.sqlite3")
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(path)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode=WAL")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def _served(path: Path) -> Ended:
    """Output of a start with it; there is no exchange, so only the file can end it."""
    variables = {
        "MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{path}",
        "MYSYMBOLS_KUCOIN__BASE_URL": "http://127.0.0.1:9",
        "MYSYMBOLS_KUCOIN__SOURCE": "sandbox",
    }
    return alone("serve", "--port", "0", cwd=path.parent, variables=variables)


async def test_B13_a_bit_flipped_in_the_history_refuses_to_start_and_nothing_is_written(
    database: Database, database_url: str
) -> None:
    path = await _closed_file(database, database_url)
    with closing(sqlite3.connect(path)) as file:
        text = file.execute("SELECT hash FROM portfolio_history WHERE seq = 2").fetchone()[0]
    whole = path.read_bytes()
    at = whole.index(text.encode())
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    path.write_bytes(damaged)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA quick_check").fetchone() == ("ok",)  # sound, and yet a lie

    said = _served(path)
    assert said.code == int(ExitCode.CORRUPT)
    assert int(ExitCode.CORRUPT) == 74  # as the row says
    last = said.err.splitlines()[-1]
    assert last.startswith("history_tampered: ")
    assert re.search(r"event [23] ", last)  # the hash stands in its own row and in the next one
    assert "backup" in last
    assert path.read_bytes() == damaged


async def test_B13_a_page_that_is_no_page_refuses_to_start_and_nothing_is_written(
    database: Database, database_url: str
) -> None:
    path = await _closed_file(database, database_url)
    with closing(sqlite3.connect(path)) as file:
        size = file.execute("PRAGMA page_size").fetchone()[0]
        page = file.execute("SELECT rootpage FROM sqlite_master WHERE name = 'candles'").fetchone()[
            0
        ]
    whole = path.read_bytes()
    begin = (page - 1) * size
    damaged = whole[:begin] + b"\xff" * size + whole[begin + size :]
    path.write_bytes(damaged)

    said = _served(path)
    assert said.code == ExitCode.CORRUPT
    last = said.err.splitlines()[-1]
    assert last.startswith("database_unavailable: ")
    assert "corrupt" in last
    assert path.read_bytes() == damaged
