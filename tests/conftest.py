"""Databases for tests: SQLite files and a real PostgreSQL, migrated once and copied per test."""

import asyncio
import gc
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib import import_module
from importlib.util import cache_from_source
from itertools import count
from pathlib import Path
from typing import NoReturn

import asyncpg
import pytest
import structlog
from hypothesis import settings

import app.container.tables  # noqa: F401 - declares every table
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions, SlowStatement
from app.operations.domain.event_codec import encode_event
from tests.support import postgres, statement_cache

pytest_plugins = ["tests.support.services_fixtures", "tests.support.api_fixtures"]

# How long an example takes says how busy the machine is, not whether the code is right.
# The same examples on every run; MYTESTS_EXPLORE=1 looks for others.
settings.register_profile("steady", deadline=None, derandomize="MYTESTS_EXPLORE" not in os.environ)
settings.load_profile("steady")


def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: many tests wait for a process, a disk or a clock."""
    return (os.cpu_count() or 1) * 2


HERE = Path(__file__).parent
LONG_ONLY = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.long\b", re.MULTILINE)
WAITING = ("browser", "processes", "workers")  # much of their time is somebody else's
HTTP_FOLDERS = {"api", "http"}  # storage and services prove both databases already
MakeDatabase = Callable[..., Database]
_NUMBERS = count(1)


def _apart(work: "asyncio.Future[None] | object") -> None:
    """Runs a coroutine to its end on a loop of its own, away from the tests' loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()  # type: ignore[arg-type]  # any awaitable


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def pytest_sessionstart() -> None:
    """Statements are compiled once; a Ctrl-C of our own, in whose place asyncio puts nothing.

    It replaces the usual one only, for each test anew. When the module signal is asked for that
    one, it spells it out with the task that it ends and with everything that the task has given
    back, here whole services: a fifth of many tests' time.
    """
    signal.signal(signal.SIGINT, _interrupted)
    statement_cache.share()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of nothing but long tests are not imported where none of them will run."""
    if config.option.markexpr != "not long" or not collection_path.name.startswith("test_"):
        return None
    return LONG_ONLY.search(collection_path.read_text(encoding="utf-8")) is not None or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Nothing that is imported and collected is garbage: nobody looks for any until the end.

    Where several processes collect, each compiles a part first, and finds the others' done.
    """
    gc.disable()
    name, count = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if name is None or count is None or sys.dont_write_bytecode:
        return
    files = sorted(HERE.rglob("test_*.py"))
    for path in files[int(name.removeprefix("gw")) :: int(count)]:
        place = Path(cache_from_source(str(path)))
        if not list(place.parent.glob(f"{path.stem}.*pytest*")):
            import_module(".".join(path.relative_to(HERE.parent).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """What thousands of tests are made of stays: looking through it for garbage takes seconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)
    gc.enable()


def _parameters(item: pytest.Item) -> set[object]:
    call = getattr(item, "callspec", None)
    return set() if call is None else {str(value) for value in call.params.values()}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks HTTP tests on PostgreSQL as long, and starts the slowest tests first."""
    for item in items:
        if HTTP_FOLDERS & set(item.path.parts) and "postgres" in _parameters(item):
            item.add_marker("long")

    def turn(item: pytest.Item) -> int:
        if item.path.parent.name == "system" or item.get_closest_marker("xdist_group") is not None:
            return 0
        return 1 if item.path.parent.name in WAITING else 2

    items.sort(key=turn)


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """structlog's default draws tracebacks with all their locals, which takes seconds."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """One server for all processes of this test session."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}-{time.monotonic_ns()}"
    running = postgres.server(session)
    yield running
    running.link.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.Server) -> postgres.Server:
    """The server with a migrated database to copy."""
    with postgres_server.locked():
        ready = postgres_server.room / "template"
        if not ready.exists():
            _apart(_make_template(postgres_server))
            ready.touch()
    return postgres_server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("template") / "template.sqlite3"
    _apart(migrations.upgrade(f"sqlite+aiosqlite:///{path}"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both databases, one after the other."""
    return str(request.param)


@pytest.fixture
async def empty_database_url(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[str]:
    """A database without a table."""
    if backend == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    name = f"empty_{os.getpid()}_{next(_NUMBERS)}"
    await _execute(server, f"CREATE DATABASE {name}")
    yield server.url(name)
    await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[str]:
    """A migrated database."""
    if backend == "sqlite":
        path = tmp_path / "test.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    server: postgres.Server = request.getfixturevalue("postgres_template")
    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    await _execute(
        server, f"CREATE DATABASE {name} TEMPLATE {postgres.TEMPLATE} STRATEGY FILE_COPY"
    )
    yield server.url(name)
    await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def make_database() -> MakeDatabase:
    """A database with its seams bound for tests; `open` and `close` are the caller's."""

    def make(
        url: str,
        *,
        publish: Callable[[object], None] = lambda _: None,
        on_slow: Callable[[SlowStatement], None] = lambda _: None,
        **options: object,
    ) -> Database:
        return Database(
            DatabaseOptions(url=url, **options),  # type: ignore[arg-type]  # as the caller says
            monotonic=time.monotonic,
            jitter=random.Random(1).random,
            encode_event=encode_event,
            publish=publish,
            on_slow=on_slow,
        )

    return make


# A machine with other work may need seconds for what usually takes none: patience itself is
# tested where it is the subject.
PATIENT: Mapping[str, float] = {
    "pool_wait_s": 60.0,
    "connect_timeout_s": 60.0,
    "busy_timeout_s": 60.0,
    "lock_timeout_s": 60.0,
    "statement_timeout_s": 60.0,
}


@pytest.fixture
async def database(database_url: str, make_database: MakeDatabase) -> AsyncIterator[Database]:
    """An open, migrated database; the test must leave no connection in use.

    Its pool is more patient than in production: how busy the machine is decides nothing here.
    """
    opened = make_database(database_url, **PATIENT)
    await opened.open()
    yield opened
    assert opened.checked_out == 0
    await opened.close()


async def _make_template(server: postgres.Server) -> None:
    """Made under another name first: the template is there only when it is whole."""
    made = f"making_{os.getpid()}"
    await _execute(server, f"CREATE DATABASE {made}")
    await migrations.upgrade(server.url(made))
    await _execute(server, f"ALTER DATABASE {made} RENAME TO {postgres.TEMPLATE}")


async def _execute(server: postgres.Server, statement: str) -> str:
    connection = await asyncpg.connect(host=str(server.room), user="postgres", database="postgres")
    try:
        return str(await connection.execute(statement))
    finally:
        await connection.close()
