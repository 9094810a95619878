"""One process per SQLite file."""

import asyncio
import sys
from pathlib import Path

import pytest

from app.cli.exit_codes import ExitCode, exit_code_of_error
from app.foundation.sql.database import Database
from app.foundation.sql.file_lock import DatabaseInUseError, DatabasePathError
from app.foundation.sql.key_value import KeyValueRepository
from tests.conftest import MakeDatabase

ROOT = Path(__file__).parents[3]
_ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
_HOLD = (
    "import sys; from app.foundation.sql.file_lock import FileLock;"
    "lock = FileLock.acquire(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
)


async def test_an_unusable_path_is_reported_and_exits_with_78(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    (tmp_path / "file").touch()
    for place, why in (("file/x.sqlite3", "not a directory"), ("", "is a directory")):
        with pytest.raises(DatabasePathError, match=why) as caught:
            await make_database(f"sqlite:///{tmp_path}/{place}").open()
        assert "/" not in caught.value.detail
        assert exit_code_of_error(caught.value) is ExitCode.CONFIGURATION


@_ON_SQLITE
async def test_B10_a_second_one_is_refused_and_the_first_unaffected(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    second = make_database(database_url)
    with pytest.raises(DatabaseInUseError, match=r"database in use: process [0-9]+") as caught:
        await second.open()
    assert "/" not in caught.value.detail
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("a", 1)
    await database.close()
    await second.open()
    async with second.read() as unit:
        assert await unit.get(KeyValueRepository).get("a") == 1
    await second.close()
    await database.open()


async def test_B10_another_process_counts_until_it_is_dead(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    path = tmp_path / "x.sqlite3"
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLD, str(path)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    database = make_database(f"sqlite:///{path}")
    with pytest.raises(DatabaseInUseError, match=f"process {holder.pid} has x.sqlite3"):
        await database.open()
    holder.kill()
    await holder.wait()
    await database.open()
    await database.close()


async def test_B10_a_link_to_the_file_is_the_file(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    (tmp_path / "link.sqlite3").symlink_to(tmp_path / "x.sqlite3")
    first = make_database(f"sqlite:///{tmp_path}/x.sqlite3")
    await first.open()
    with pytest.raises(DatabaseInUseError):
        await make_database(f"sqlite:///{tmp_path}/link.sqlite3").open()
    await first.close()
