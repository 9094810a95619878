"""Migrations and tables are one thing, both ways, on both databases."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from app.cli.exit_codes import exit_code_of_error
from app.container.tables import APPEND_ONLY
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql import migrations
from app.foundation.sql.errors import SchemaTooNewError, SchemaTooOldError
from app.foundation.sql.schema import metadata
from app.operations.storage import views  # noqa: F401  # declared on the metadata
from tests.processes.migration_worker import migrate
from tests.support import child_processes

ROOT = Path(__file__).parents[2]

# SHA-256 of each file of a released revision, shortened.
PINNED = {
    "0200_initial.postgresql.sql": "9b0b3cb53f3ea8f4",
    "0200_initial.py": "4956302882e0f7f7",
    "0200_initial.sqlite.sql": "1290f70e6b5c1e60",
    "0201_api_keys.py": "8b7297f01cda0bbe",
    "0202_security_events.py": "ad420a4e8fa128f9",
    "0203_people.py": "cc0d64d7f63206db",
    "0204_rate_limits.py": "c179796fa2358165",
    "0205_signal_rights.py": "bdf6dafe6ca9e768",
    "0206_stream_tickets.py": "af40a8afa1502634",
    "0207_sectors.py": "ceeab9c90204822d",
    "0208_trials.py": "7c0d38c72ed58db2",
    "0209_notification_priorities.py": "30cd3d54e57fbdf7",
    "0210_decision_inputs.py": "a49a2caf3c3a44a5",
    "0211_factor_evidence.py": "59aa97088f832ffe",
}

# What PostgreSQL knows of a schema, one line each.
_POSTGRESQL = """
SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' '
    || coalesce(character_maximum_length::text, '') || ' ' || coalesce(numeric_precision::text, '')
    || ' ' || coalesce(numeric_scale::text, '') || ' ' || is_nullable
    || ' ' || coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    AND conrelid <> 0 AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index ' || indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'view ' || viewname || ' ' || definition FROM pg_views WHERE schemaname = 'public'
"""
_SQLITE = """
SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master
WHERE name NOT LIKE '%alembic_version%'
"""


def _schema(connection: Connection) -> set[str]:
    """Everything that a schema consists of, without regard to layout and order."""
    if connection.dialect.name == "postgresql":
        return {str(line) for line in connection.execute(text(_POSTGRESQL)).scalars()}
    return {_ordered(str(line)) for line in connection.execute(text(_SQLITE)).scalars()}


def _ordered(statement: str) -> str:
    """The columns and constraints of a table in one order: an added column is written last."""
    if not statement.startswith("table "):
        return " ".join(statement.split())
    head, _, body = " ".join(statement.split()).partition("(")
    parts, depth = [""], 0
    for sign in body.removesuffix(")"):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return f"{head}({', '.join(sorted(part.strip() for part in parts))})"


async def _look(url: str) -> set[str]:
    async with migrations.connect(url, begin="BEGIN") as connection:
        return await connection.run_sync(_schema)


async def test_migrated_and_modelled_schema_are_the_same_to_the_last_check(
    database_url: str, empty_database_url: str
) -> None:
    async with migrations.connect(empty_database_url) as connection:
        await connection.run_sync(metadata.create_all)
    modelled = await _look(empty_database_url)
    assert await _look(database_url) == modelled
    wanted = [
        f"{table}_no_{verb}"
        for table in (
            "configuration_versions",
            "portfolio_history",
            "trades",
            "security_anchors",
            "security_events",
            "trials",
        )
        for verb in ("update", "delete")
    ]
    assert len(wanted) == 2 * len(APPEND_ONLY)
    assert all(any(name in line for line in modelled) for name in wanted)


async def test_alembic_finds_nothing_to_change(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with migrations.connect(database_url) as connection:
        assert await connection.run_sync(differences) == []


async def test_up_down_and_up_again(empty_database_url: str) -> None:
    url = empty_database_url
    nothing = await _look(url)
    assert await migrations.current(url) is None
    await migrations.upgrade(url)
    assert await migrations.current(url) == migrations.head()
    first = await _look(url)
    await migrations.downgrade(url, "base")
    assert await migrations.current(url) is None
    assert await _look(url) == nothing
    await migrations.upgrade(url)
    await migrations.upgrade(url)
    assert await _look(url) == first


async def test_every_migration_goes_down(empty_database_url: str) -> None:
    url = empty_database_url
    script = migrations.script()
    for step in reversed([one.revision for one in script.walk_revisions()]):
        before = await _look(url)
        await migrations.upgrade(url, step)
        await migrations.downgrade(url, "-1")
        assert await _look(url) == before
        await migrations.upgrade(url, step)


@pytest.mark.parametrize(
    "backend", [pytest.param("sqlite", marks=pytest.mark.long), "postgres"], indirect=True
)
async def test_B11_replicas_that_start_together_migrate_once(empty_database_url: str) -> None:
    url = empty_database_url
    program = (
        "import asyncio, sys; from app.foundation.sql import migrations;"
        "asyncio.run(migrations.upgrade(sys.argv[1]))"
    )
    replicas = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, cwd=ROOT)
        for _ in range(2)
    ]
    assert [await replica.wait() for replica in replicas] == [0, 0]
    assert await migrations.current(url) == migrations.head()
    async with migrations.connect(url, begin="BEGIN") as connection:
        rows = await connection.execute(text("SELECT count(*) FROM portfolio"))
        assert rows.scalar() == 1


async def test_B11_a_database_of_a_later_version_is_left_alone(empty_database_url: str) -> None:
    url = empty_database_url
    await migrations.upgrade(url)
    async with migrations.connect(url) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    before = await _look(url)
    with pytest.raises(SchemaTooNewError):
        await migrations.upgrade(url)
    assert await _look(url) == before
    assert await migrations.current(url) == "later"


@pytest.mark.parametrize("revision", ["0001", "0028", "0100"])
async def test_a_database_from_before_the_first_release_is_refused_and_left_alone(
    empty_database_url: str, revision: str
) -> None:
    url = empty_database_url
    async with migrations.connect(url) as connection:
        await connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        row = text("INSERT INTO alembic_version VALUES (:revision)")
        await connection.execute(row, {"revision": revision})
    before = await _look(url)
    with pytest.raises(SchemaTooOldError, match=r"before version 0\.2\.0") as caught:
        await migrations.upgrade(url)
    assert len(str(caught.value).splitlines()) == 1
    assert "MYSYMBOLS_DATABASE__URL" in str(caught.value), "it says what to do"
    assert exit_code_of_error(caught.value) == 78
    assert await _look(url) == before


def test_revisions_are_append_only() -> None:
    """A change of a revision that databases already have would never reach them."""
    folder = ROOT / "alembic" / "versions"
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    assert PINNED.items() <= found.items()
    assert found.keys() - PINNED.keys() == set(), "pin the new revision too"


async def test_K13_a_migration_that_fails_leaves_nothing_behind(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    async with migrations.connect(url) as connection:
        await connection.execute(text("CREATE TABLE symbol_scores (stands_in_the_way INTEGER)"))
    before = await _look(url)
    with pytest.raises(UnavailableError):
        await migrations.upgrade(url)
    assert await _look(url) == before
    assert await migrations.current(url) is None


@pytest.mark.parametrize("after", [60, 0])
async def test_K13_killed_in_the_midst_of_it_the_next_start_completes_it(
    database_url: str, empty_database_url: str, after: int
) -> None:
    url = empty_database_url
    process, link = await asyncio.to_thread(child_processes.born, migrate, url, after)
    with link:
        await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "it was over before it could be killed"
    assert await migrations.current(url) is None
    assert await _look(url) == set(), "nothing of it is there"
    await migrations.upgrade(url)
    assert await migrations.current(url) == migrations.head()
    assert await _look(url) == await _look(database_url)


async def test_an_unreachable_database_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        await migrations.upgrade(f"postgresql://postgres@/none?host={tmp_path}")
    assert caught.value.code is Code.DATABASE_UNAVAILABLE


async def test_a_file_that_is_not_there_is_not_created_by_asking(tmp_path: Path) -> None:
    assert await migrations.current(f"sqlite:///{tmp_path}/none/x.sqlite3") is None
    assert not (tmp_path / "none").exists()


@pytest.mark.long  # what `make check` does too
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_alembic_command_works_in_a_checkout(empty_database_url: str) -> None:
    def alembic(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            env={**os.environ, "MYSYMBOLS_DATABASE__URL": empty_database_url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    alembic("upgrade", "head")
    assert "No new upgrade operations" in alembic("check")
