"""The file of the jobs serves the engine whatever SQLite the machine has."""

import time
from pathlib import Path

from sqlalchemy import text

from app.foundation.sql.job_store import create_job_store


def test_a_row_gets_the_time_by_itself_also_from_an_old_sqlite(tmp_path: Path) -> None:
    """As the engine declares its tables under Python 3.12 and later."""
    store = create_job_store(f"sqlite+aiosqlite:///{tmp_path}/my.sqlite3")
    assert store.engine is not None
    before = int(time.time() * 1000)
    with store.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE t"
                " (n INTEGER, at INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))"
            )
        )
        connection.execute(text("INSERT INTO t (n) VALUES (1)"))
        at = connection.execute(text("SELECT at FROM t")).scalar_one()
    store.close()
    assert before <= at <= time.time() * 1000 + 1
