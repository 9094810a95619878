"""`my-symbols audit verify` works without the service, and its exit code tells."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.cli.exit_codes import ExitCode
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from tests.cli.command import alone, here
from tests.support.api_keys import KeyDesk
from tests.support.trading_desk import Desk

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)
async def test_a_whole_history_passes_while_the_service_runs(
    database: Database, database_url: str
) -> None:
    await Desk(database).filled(3)
    await KeyDesk(database).issue("engine", Role.VIEWER)
    said = alone(
        "audit",
        "verify",
        "--json",
        cwd=ROOT,
        variables={"MYSYMBOLS_DATABASE__URL": database_url},
    )
    assert said.code == ExitCode.OK, said.err
    assert said.document == {
        "ok": True,
        "events": 4,
        "first_broken_seq": None,
        "breaks": [],
        "caveat": None,
        "security": {
            "ok": True,
            "events": 1,
            "first_broken_seq": None,
            "breaks": [],
            "anchor": None,
        },
    }


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_the_caveat_of_a_verdict_is_printed(database: Database, database_url: str) -> None:
    await Desk(database).filled(3)
    with closing(sqlite3.connect(str(make_url(database_url).database))) as file:
        file.execute("DELETE FROM service_facts WHERE key = 'history_head'")
        file.execute("DELETE FROM events")
        file.commit()
    told = alone("audit", "verify", "--database", database_url, cwd=ROOT)
    assert told.code == ExitCode.OK, told.err
    assert "older than the record of its head" in " ".join(told.out.split())


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_broken_history_says_where(database: Database, database_url: str) -> None:
    await Desk(database).filled(3)
    with closing(sqlite3.connect(str(make_url(database_url).database))) as file:
        file.execute("DROP TRIGGER portfolio_history_no_update")
        file.execute("UPDATE portfolio_history SET reason = 'other' WHERE seq = 3")
        file.commit()
    said = alone("audit", "verify", "--json", "--database", database_url, cwd=ROOT)
    assert said.code == ExitCode.REFUSED
    assert said.document["first_broken_seq"] == 3
    assert said.document["breaks"] == [{"sequence": 3, "detail": "event 3 was altered"}]
    told = alone("audit", "verify", "--database", database_url, cwd=ROOT)
    assert told.code == ExitCode.REFUSED
    assert "the history breaks at event 3" in told.out


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_broken_chain_of_security_events_says_where(
    database: Database, database_url: str
) -> None:
    await KeyDesk(database).issue("engine", Role.VIEWER)
    with closing(sqlite3.connect(str(make_url(database_url).database))) as file:
        file.execute("DROP TRIGGER security_events_no_update")
        file.execute("UPDATE security_events SET principal = 'another'")
        file.commit()
    said = alone("audit", "verify", "--json", "--database", database_url, cwd=ROOT)
    assert said.code == ExitCode.REFUSED
    assert (said.document["ok"], said.document["breaks"]) == (False, [])
    assert said.document["security"]["breaks"] == [{"sequence": 1, "detail": "event 1 was altered"}]
    told = alone("audit", "verify", "--database", database_url, cwd=ROOT)
    assert told.code == ExitCode.REFUSED
    assert "the chain of security events breaks at event 1" in told.out


def test_an_unreadable_database_gives_no_verdict(tmp_path: Path) -> None:
    missing = f"sqlite+aiosqlite:///{tmp_path}/missing.sqlite3"
    assert here("audit", "verify", "--json", "--database", missing).code == ExitCode.UNAVAILABLE
    assert list(tmp_path.iterdir()) == []
    wrong = here("audit", "verify", "--json", MYSYMBOLS_DATABASE__URL="oracle://x/y")
    assert wrong.code == ExitCode.CONFIGURATION
    (tmp_path / "noise").write_bytes(b"this is not a database" * 100)
    noise = f"sqlite+aiosqlite:///{tmp_path}/noise"
    assert here("audit", "verify", "--json", "--database", noise).code == ExitCode.CORRUPT
    memory = here("audit", "verify", "--json", "--database", "sqlite+aiosqlite:///:memory:")
    assert memory.code == ExitCode.CONFIGURATION
