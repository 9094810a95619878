"""Keys in memory: changes of other processes, peppers, times of use, and the local key file."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from app.container.assembly import open_keys
from app.foundation.errors import Code, ConflictError, NotFoundError, RefusedError
from app.foundation.principals import LOCAL, Principal, Role, Scope
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.security.domain.keys import LOCAL_KEY, ApiKey
from app.security.services.key_ring import USE_INTERVAL
from app.security.services.keys import KeyDraft
from app.security.services.peppers import PepperMissingError
from app.security.storage.keys import ApiKeyRepository
from app.settings import Settings
from tests.conftest import PATIENT, MakeDatabase
from tests.support.api_keys import OTHER_PEPPER, PEPPER, SYSTEM, KeyDesk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
LOOPBACK = "127.0.0.1"


@pytest.fixture
async def other_database(database_url: str, make_database: MakeDatabase) -> AsyncIterator[Database]:
    """The same database as another process has it."""
    opened = make_database(database_url, **PATIENT)
    await opened.open(is_exclusive=False)
    yield opened
    await opened.close()


@asynccontextmanager
async def following(desk: KeyDesk) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(desk.ring.follow(lambda: None))
        try:
            yield
        finally:
            task.cancel()


async def stored(desk: KeyDesk, name: str) -> ApiKey:
    return next(key for key in await desk.service.list() if key.name == name)


async def test_S07_a_change_holds_in_every_process_within_a_second(
    database: Database, other_database: Database
) -> None:
    ours, theirs = KeyDesk(database), KeyDesk(other_database)
    loop = asyncio.get_running_loop()
    async with following(theirs):

        async def within_a_second(token: str, *, is_valid: bool) -> None:
            began = loop.time()
            while (theirs.ring.identify(token, LOOPBACK) is not None) is not is_valid:
                await asyncio.sleep(0.01)
                assert loop.time() - began < 1.0

        first = await ours.issued("engine", Role.TRADER)
        assert ours.ring.identify(first.token, LOOPBACK) is not None, "at once in the own process"
        await within_a_second(first.token, is_valid=True)
        assert not theirs.ring.is_open
        rotated = await ours.service.rotate(first.key.id, timedelta(hours=1), SYSTEM)
        assert rotated.result is not None
        second = rotated.result
        await within_a_second(second.token, is_valid=True)
        await within_a_second(first.token, is_valid=True)
        for desk in (ours, theirs):
            desk.now += timedelta(hours=1)
            assert desk.ring.identify(first.token, LOOPBACK) is None, "the grace is over"
            assert desk.ring.identify(second.token, LOOPBACK) is not None
        await ours.service.revoke(second.key.id, SYSTEM)
        assert ours.ring.identify(second.token, LOOPBACK) is None
        await within_a_second(second.token, is_valid=False)


@ON_SQLITE
async def test_keys_that_nothing_changes_are_not_read_again(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    statements: list[str] = []
    observed = make_database(
        database_url,
        **PATIENT,
        slow_statement_s=0.0,
        on_slow=lambda one: statements.append(one.sql),
    )
    await observed.open(is_exclusive=False)
    try:
        await _assert_read_only_after_changes(KeyDesk(database), KeyDesk(observed), statements)
    finally:
        await observed.close()


async def _assert_read_only_after_changes(
    ours: KeyDesk, theirs: KeyDesk, statements: list[str]
) -> None:
    issued = await ours.issued("engine", Role.TRADER)
    await theirs.ring.load()
    assert statements
    statements.clear()
    for _ in range(10):
        await theirs.ring.load()
    assert statements == []
    assert theirs.ring.identify(issued.token, LOOPBACK) is not None
    await ours.service.revoke(issued.key.id, SYSTEM)
    await theirs.ring.load()
    assert statements
    assert theirs.ring.identify(issued.token, LOOPBACK) is None


@ON_SQLITE
async def test_S07_a_watch_ends_once_when_its_credential_does(database: Database) -> None:
    desk, ended = KeyDesk(database), list[str]()
    local = desk.ring.watch(_principal(desk, None), lambda: ended.append("local"))
    async with following(desk):
        with local:
            await asyncio.sleep(0.6)
            assert ended == []
            first = await desk.issued("first", Role.VIEWER)
            second = await desk.issued("second", Role.VIEWER, lifetime=timedelta(hours=1))
            await _until(lambda: ended == ["local"])
        with (
            desk.ring.watch(_principal(desk, first.token), lambda: ended.append("first")),
            desk.ring.watch(_principal(desk, second.token), lambda: ended.append("second")),
        ):
            await desk.service.revoke(first.key.id, SYSTEM)
            await _until(lambda: ended == ["local", "first"])
            desk.now += timedelta(hours=1)
            await _until(lambda: ended == ["local", "first", "second"])
            await asyncio.sleep(0.6)
    assert ended == ["local", "first", "second"]


async def test_S06_the_database_holds_no_key(database: Database) -> None:
    desk = KeyDesk(database)
    token = await desk.issue("engine", Role.TRADER, Scope.SIGNALS, sources=frozenset({"tv"}))
    key = await stored(desk, "engine")
    assert token not in repr(key)
    assert token[14:] not in repr(key)
    assert key.hash == desk.store.newest().hash(token)
    assert (key.role, key.scopes, key.sources) == (
        Role.TRADER, frozenset({Scope.SIGNALS}), frozenset({"tv"}),
    )  # fmt: skip
    async with database.read() as unit:
        events = await unit.get(EventRepository).after(0, 10)
    assert [(one.topic, one.data["change"], one.data["name"]) for one in events] == [
        ("security", "created", "engine")
    ]
    assert token not in repr(events)
    assert key.hash not in repr(events)


@ON_SQLITE
async def test_the_last_use_is_stored_in_the_background_at_most_once_a_minute(
    database: Database,
) -> None:
    desk = KeyDesk(database)
    token, start = await desk.issue("engine", Role.TRADER), desk.now
    assert desk.ring.identify(token, LOOPBACK) is not None
    assert (await stored(desk, "engine")).last_used_at is None, "not within the request"
    async with following(desk):
        await _until_async(lambda: _used_at(desk), start)
        desk.now = start + USE_INTERVAL / 2
        desk.ring.identify(token, LOOPBACK)
        await asyncio.sleep(1.0)
        assert await _used_at(desk) == start
        desk.now = start + USE_INTERVAL
        desk.ring.identify(token, LOOPBACK)
        await _until_async(lambda: _used_at(desk), start + USE_INTERVAL)


@ON_SQLITE
async def test_a_pepper_is_rotated_while_both_are_known(database: Database) -> None:
    old = KeyDesk(database, peppers=(PEPPER,))
    used, unused = await old.issue("used", Role.ADMIN), await old.issue("unused", Role.ADMIN)
    both = KeyDesk(database, peppers=(OTHER_PEPPER, PEPPER))
    await both.ring.load()
    async with following(both):
        assert both.ring.identify(used, LOOPBACK) is not None
        newest = both.store.newest().id

        async def hashed_by() -> str:
            return (await stored(both, "used")).pepper_id

        await _until_async(hashed_by, newest)
        await asyncio.sleep(0.6)
        assert both.ring.identify(used, LOOPBACK) is not None
        assert both.ring.identify(unused, LOOPBACK) is not None
    new = KeyDesk(database, peppers=(OTHER_PEPPER,))
    await new.ring.load()
    assert new.ring.identify(used, LOOPBACK) is not None, "hashed anew at its use"
    assert new.ring.identify(unused, LOOPBACK) is None


@ON_SQLITE
async def test_stored_keys_without_their_pepper_are_a_clear_error(database: Database) -> None:
    await KeyDesk(database).issue("engine", Role.ADMIN)
    for peppers in ((OTHER_PEPPER,), ()):
        desk = KeyDesk(database, peppers=peppers)
        with pytest.raises(PepperMissingError) as raised:
            await desk.ring.load()
        assert raised.value.code is Code.SECRETS_KEY_MISSING
        assert "MYSYMBOLS_SECURITY__PEPPER" in raised.value.detail
        assert not desk.ring.is_open, "an unknown pepper never opens the service"
    with pytest.raises(PepperMissingError):
        await KeyDesk(database, peppers=()).issue("other", Role.ADMIN)


@ON_SQLITE
@pytest.mark.parametrize("text", ["", "\n", "short", "a" * 64])
async def test_a_weak_pepper_in_a_file_stops_start_and_first_key(
    database: Database, tmp_path: Path, text: str
) -> None:
    pepper = tmp_path / "pepper.key"
    pepper.write_text(text)
    desk = KeyDesk(database, (), pepper)
    with pytest.raises(PepperMissingError) as raised:
        await open_keys(Settings(), desk.ring)
    assert "pepper.key is unusable" in raised.value.detail
    with pytest.raises(PepperMissingError):
        await desk.issue("engine", Role.ADMIN)
    assert await desk.service.list() == ()
    assert pepper.read_text() == text


@ON_SQLITE
async def test_S07_a_key_under_an_unknown_pepper_never_blocks_the_revocation_of_others(
    database: Database,
) -> None:
    await KeyDesk(database).issue("unused", Role.ADMIN)
    used = await KeyDesk(database, peppers=(OTHER_PEPPER, PEPPER)).issued("used", Role.ADMIN)
    desk = KeyDesk(database, peppers=(OTHER_PEPPER,))
    await desk.ring.load()
    assert desk.ring.identify(used.token, LOOPBACK) is not None
    await desk.service.revoke(used.key.id, SYSTEM)
    assert desk.ring.identify(used.token, LOOPBACK) is None
    assert desk.ring.explain(used.token, LOOPBACK) == ("revoked", "key:used")
    renewed = await desk.issue("renewed", Role.ADMIN)
    assert desk.ring.identify(renewed, LOOPBACK) is not None, "later changes are read, too"
    with pytest.raises(PepperMissingError):
        await KeyDesk(database, peppers=(PEPPER + OTHER_PEPPER,)).ring.load()


@ON_SQLITE
async def test_the_first_key_writes_pepper_and_local_key_for_their_owner_only(
    database: Database, tmp_path: Path
) -> None:
    pepper, local_key = tmp_path / "pepper.key", tmp_path / "local.key"
    desk = KeyDesk(database, (), pepper, local_key)
    assert _key_files(tmp_path) == []
    assert (await desk.issued("engine", Role.TRADER)).has_local_key
    assert [_mode(path) for path in (pepper, local_key)] == [0o600, 0o600]
    assert _key_files(tmp_path) == ["local.key", "pepper.key"], "no temporary file stays"
    token = _content(local_key)
    local = desk.ring.identify(token, LOOPBACK)
    assert local is not None
    assert (local.name, local.role, local.scopes) == (LOCAL_KEY, Role.ADMIN, frozenset())
    assert desk.ring.identify(token, "10.0.0.1") is None, "for this machine only"
    assert not (await desk.issued("second", Role.TRADER)).has_local_key
    assert _content(local_key) == token
    again = KeyDesk(database, (), pepper, local_key)
    await again.ring.load()
    assert again.ring.identify(token, LOOPBACK) is not None, "the pepper is read from its file"
    key = await stored(desk, LOCAL_KEY)
    await desk.service.rotate(key.id, timedelta(0), SYSTEM)
    renewed = _content(local_key)
    assert renewed != token
    assert desk.ring.identify(renewed, LOOPBACK) is not None
    assert desk.ring.identify(token, LOOPBACK) is None


async def test_what_is_no_key_is_refused(database: Database) -> None:
    desk = KeyDesk(database)
    issued = await desk.issued("engine", Role.TRADER)
    for draft in (
        KeyDraft("empty"), KeyDraft(LOCAL_KEY, Role.ADMIN),
        KeyDraft("bound", Role.VIEWER, sources=frozenset({"tv"})),
    ):  # fmt: skip
        with pytest.raises(RefusedError):
            await desk.service.create(draft, SYSTEM)
    with pytest.raises(ConflictError) as taken:
        await desk.issue("engine", Role.TRADER)
    assert taken.value.code is Code.KEY_NAME_TAKEN
    with pytest.raises(NotFoundError):
        await desk.service.revoke("nothing", SYSTEM)
    await desk.service.revoke(issued.key.id, SYSTEM)
    revoked = await stored(desk, "engine")
    await desk.service.revoke(issued.key.id, SYSTEM)
    assert await stored(desk, "engine") == revoked, "a second revocation changes nothing"
    with pytest.raises(ConflictError):
        await desk.service.rotate(issued.key.id, timedelta(0), SYSTEM)
    async with database.read() as unit:
        assert len(await unit.get(EventRepository).after(0, 10)) == 2
        assert await unit.get(ApiKeyRepository).has_any()
    await desk.issue("engine", Role.TRADER)


def _principal(desk: KeyDesk, token: str | None) -> Principal:
    found = LOCAL if token is None else desk.ring.identify(token, LOOPBACK)
    assert found is not None
    return found


def _key_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "key" in path.name)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _content(path: Path) -> str:
    return path.read_text().strip()


async def _used_at(desk: KeyDesk) -> object:
    return (await stored(desk, "engine")).last_used_at


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(1.0):
        while not holds():
            await asyncio.sleep(0.01)


async def _until_async(read: Callable[[], Awaitable[object]], value: object) -> None:
    async with asyncio.timeout(10.0):
        while await read() != value:
            await asyncio.sleep(0.02)
