"""A tape goes by the business settings in force: recorded alone or beside the running service."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import dropwhile
from pathlib import Path

import pytest

from app.adapters.kucoin.recording.entries import (
    BoardComputed,
    ConfigurationApplied,
    Entry,
    RecordingReader,
)
from app.cli.exit_codes import ExitCode
from app.cli.programs.recording import halve_quota, record_beside
from app.configuration.domain.document import as_document
from app.configuration.domain.model import Configuration, IntervalSettings
from app.configuration.domain.sections import Family
from app.configuration.storage.configuration import ConfigurationRepository
from app.container.recording import read_stored_settings
from app.foundation.errors import UnavailableError
from app.foundation.sql.database import Database
from app.operations.storage import startup_check
from app.research.domain.recording import RecordingError
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.settings import Settings
from tests.cli.command import PATIENCE_S, ended, environment, here, started
from tests.support.recording_fixtures import PLENTY, replayed
from tests.support.service_in_process import settings_for

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
CHANGED = replace(
    Configuration(), version=2, intervals=IntervalSettings(scoring_s=30), entry_score=0.7
)


@pytest.fixture
async def exchange() -> AsyncIterator[str]:
    options = SandboxOptions(quota=PLENTY, contracts=14)
    async with serve_exchange(options, time.time) as url:
        yield url


async def changed(database: Database) -> None:
    """As if the operator had put other settings."""
    async with database.write() as unit:
        await unit.get(ConfigurationRepository).add(
            CHANGED, datetime(2026, 3, 1, tzinfo=UTC), "an operator"
        )


def boards(path: Path, after: type[Entry] | None = None) -> int:
    """Number of entries after the first of that kind."""
    try:
        with RecordingReader(path) as reader:
            entries = list(reader)
    except (FileNotFoundError, RecordingError):
        return 0
    if after is not None:
        entries = list(dropwhile(lambda entry: not isinstance(entry, after), entries))
    return sum(isinstance(entry, BoardComputed) for entry in entries)


async def recorded(path: Path, after: type[Entry] | None = None) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not boards(path, after):
            await asyncio.sleep(0.05 if after is None else 0.5)


async def test_the_newest_stored_settings_are_read_beside_their_owner(
    database: Database, database_url: str
) -> None:
    assert await read_stored_settings(database_url) == Configuration()
    await changed(database)
    assert await read_stored_settings(database_url) == CHANGED


async def test_without_a_database_the_defaults_are_in_force(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/none.sqlite3"
    assert await read_stored_settings(url) == Configuration()
    assert not (tmp_path / "none.sqlite3").exists()
    (tmp_path / "none.sqlite3").write_bytes(b"no database " * 100)
    with pytest.raises(UnavailableError):
        await read_stored_settings(url)


@ON_SQLITE
async def test_a_recording_beside_the_service_goes_by_the_settings_in_force(
    database: Database, database_url: str, exchange: str, tmp_path: Path
) -> None:
    await changed(database)
    path, ending = tmp_path / "beside.tape", asyncio.Event()
    settings = settings_for(exchange, database_url, quota_per_window=PLENTY)
    async with asyncio.TaskGroup() as group:
        group.create_task(record_beside(path, settings, ending))
        await recorded(path)
        ending.set()
    with RecordingReader(path) as reader:
        assert reader.header.configuration == as_document(CHANGED)
    _, found = await replayed(path)
    assert (found.configuration_version, found.compared, found.different) == (2, 1, ())
    assert found.is_ended


@pytest.mark.long
@ON_SQLITE
async def test_settings_that_change_while_it_is_recorded_are_on_the_tape(
    database: Database, database_url: str, exchange: str, tmp_path: Path
) -> None:
    first = replace(CHANGED, intervals=IntervalSettings(scoring_s=3))
    weighed = first.family_weights
    assert weighed[Family.TECHNICAL] != weighed[Family.RISK]
    swapped = {Family.TECHNICAL: weighed[Family.RISK], Family.RISK: weighed[Family.TECHNICAL]}
    other = replace(first, version=3, family_weights={**weighed, **swapped})
    async with database.write() as unit:
        await unit.get(ConfigurationRepository).add(
            first, datetime(2026, 3, 1, tzinfo=UTC), "an operator"
        )
    path, ending = tmp_path / "changing.tape", asyncio.Event()
    settings = settings_for(exchange, database_url, quota_per_window=PLENTY)
    async with asyncio.TaskGroup() as group:
        group.create_task(record_beside(path, settings, ending))
        await recorded(path)
        async with database.write() as unit:
            await unit.get(ConfigurationRepository).add(
                other, datetime(2026, 3, 2, tzinfo=UTC), "an operator"
            )
        await recorded(path, after=ConfigurationApplied)
        ending.set()
    _, found = await replayed(path)
    assert (found.configuration_version, found.different) == (3, ())
    assert found.compared >= 2
    with RecordingReader(path) as reader:
        assert reader.header.configuration == as_document(first)
        (change,) = [entry for entry in reader if isinstance(entry, ConfigurationApplied)]
    assert (change.version, change.configuration) == (3, as_document(other))


@ON_SQLITE
async def test_a_recording_that_cannot_be_written_does_not_end_the_service(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    del database
    ending = asyncio.Event()
    settings = settings_for("http://127.0.0.1:9", database_url)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(record_beside(tmp_path / "no" / "way.tape", settings, ending))
        await asyncio.sleep(0.2)
        assert not task.done(), "it waits for the end of the service"
        ending.set()


def test_service_and_recorder_share_the_quota() -> None:
    settings = Settings()
    assert halve_quota(settings).kucoin.limits.quota * 2 == settings.kucoin.limits.quota


def test_a_tape_that_is_there_is_not_served_over(tmp_path: Path) -> None:
    path = tmp_path / "there.tape"
    path.write_bytes(b"something")
    refused = here("serve", "--tape", str(path), "--port", "0", **environment())
    assert refused.code == ExitCode.CONFIGURATION
    assert "never overwritten" in refused.err
    assert path.read_bytes() == b"something"


@pytest.mark.long
async def test_serve_records_until_it_ends_and_the_tape_replays(
    exchange: str, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/served.sqlite3"
    await startup_check.prepare(url)
    path = tmp_path / "served.tape"
    child = started(
        "serve", "--tape", str(path), "--port", "0", cwd=tmp_path,
        MYSYMBOLS_KUCOIN__BASE_URL=exchange, MYSYMBOLS_KUCOIN__QUOTA_PER_WINDOW=str(PLENTY),
        MYSYMBOLS_DATABASE__URL=url,
    )  # fmt: skip
    try:
        await recorded(path)
    finally:
        child.send_signal(signal.SIGINT)
    assert (await asyncio.to_thread(ended, child)).code == ExitCode.OK
    _, found = await replayed(path)
    assert found.compared >= 1
    assert (found.different, found.is_ended) == ((), True)
