"""Sessions in memory: changes of other processes, times of use, peppers, the database away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher

from app.container.assembly import assemble
from app.foundation.errors import Code, UnavailableError
from app.foundation.metrics import Metrics
from app.foundation.principals import PrincipalKind, Role
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.security.domain.people import SessionPolicy
from app.security.services.passwords import PasswordHashing
from app.security.services.sessions import IssuedSession
from app.security.services.users import UserEdit
from app.security.storage.people import SessionRepository
from app.settings import SecurityVariables
from tests.conftest import PATIENT, MakeDatabase
from tests.security.services.test_key_ring import following
from tests.support.api_keys import OTHER_PEPPER, PASSWORD, PEPPER, SYSTEM, KeyDesk
from tests.support.service_in_process import settings_for

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PEER = "127.0.0.1"


@pytest.fixture
async def other_database(database_url: str, make_database: MakeDatabase) -> AsyncIterator[Database]:
    """The same database as another process has it."""
    opened = make_database(database_url, **PATIENT)
    await opened.open(is_exclusive=False)
    yield opened
    await opened.close()


def holds(desk: KeyDesk, issued: IssuedSession) -> bool:
    return desk.ring.identify_session(issued.token, PEER, is_protected=True) is not None


async def stored_use(desk: KeyDesk, issued: IssuedSession) -> datetime:
    async with desk.database.read() as unit:
        return (await unit.get(SessionRepository).last_uses())[issued.session.id]


async def test_S07_a_session_starts_and_ends_in_every_process_within_a_second(
    database: Database, other_database: Database
) -> None:
    ours, theirs = KeyDesk(database), KeyDesk(other_database)
    loop = asyncio.get_running_loop()
    async with following(theirs):

        async def within_a_second(issued: IssuedSession, *, is_valid: bool) -> None:
            began = loop.time()
            while holds(theirs, issued) is not is_valid:
                await asyncio.sleep(0.01)
                assert loop.time() - began < 1.0

        ana = await ours.person("ana", Role.ADMIN)
        await ours.person("boss", Role.ADMIN)
        issued = await ours.log_in("ana")
        if database.commits is None:
            assert holds(theirs, issued), "the answer has waited for the other processes"
        await within_a_second(issued, is_valid=True)
        principal = theirs.ring.identify_session(issued.token, PEER, is_protected=True)
        assert principal == issued.principal
        assert principal.kind is PrincipalKind.USER
        assert (principal.actor, principal.credential_id) == ("user:ana", ana.id)
        await theirs.sessions.end(issued.session.id, issued.principal)
        assert not holds(theirs, issued), "at once in the own process"
        issued, second = await ours.log_in("ana"), await ours.log_in("ana")
        await within_a_second(second, is_valid=True)
        await ours.users.edit(ana.id, UserEdit(role=Role.VIEWER), SYSTEM)
        began = loop.time()
        while True:
            principal = theirs.ring.identify_session(issued.token, PEER, is_protected=True)
            if principal is not None and principal.role is Role.VIEWER:
                break
            await asyncio.sleep(0.01)
            assert loop.time() - began < 1.0
        await ours.users.edit(ana.id, UserEdit(is_active=False), SYSTEM)
        for one in (issued, second):
            assert not holds(ours, one)
            await within_a_second(one, is_valid=False)
        await ours.users.edit(ana.id, UserEdit(is_active=True), SYSTEM)
        await theirs.ring.load()
        assert not holds(theirs, issued), "an ended session never comes back"
        third = await ours.log_in("ana")
        await within_a_second(third, is_valid=True)
        await ours.users.set_password(ana.id, "another violet harbor", SYSTEM)
        await within_a_second(third, is_valid=False)


async def test_a_use_is_stored_once_a_minute_and_counts_in_other_processes(
    database: Database, other_database: Database
) -> None:
    ours, theirs = KeyDesk(database), KeyDesk(other_database)
    await ours.person("ana", Role.ADMIN)
    issued = await ours.log_in("ana")
    await theirs.ring.load()
    began = await stored_use(ours, issued)
    for seconds, delay in ((59, 0), (60, 60), (119, 60), (120, 120)):
        ours.now = began + timedelta(seconds=seconds)
        assert holds(ours, issued)
        await ours.ring.people.store_uses()
        assert await stored_use(ours, issued) == began + timedelta(seconds=delay), seconds
    for minutes in range(3, 50):
        ours.now = theirs.now = began + timedelta(minutes=minutes)
        assert holds(ours, issued)
        await ours.ring.people.store_uses()
        await theirs.ring.load()
    assert holds(theirs, issued), "it was never used here before"
    ours.now = theirs.now = ours.now + timedelta(minutes=31)
    await theirs.ring.load()
    assert not holds(ours, issued)
    assert not holds(theirs, issued)


@ON_SQLITE
async def test_a_use_that_could_not_be_stored_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    issued = await desk.log_in("ana")
    desk.now += timedelta(minutes=1)
    assert holds(desk, issued)

    def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

    async def unknown(_: Database) -> None:
        """Change mark of a database that is away."""

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", away)
        await desk.ring.people.store_uses()
        patched.setattr(Database, "read", away)
        patched.setattr(Database, "change_mark", unknown)
        with pytest.raises(UnavailableError):
            await desk.ring.load()
        assert holds(desk, issued), "sessions stay as they were read last"
    await desk.ring.people.store_uses()
    assert await stored_use(desk, issued) == desk.now


@ON_SQLITE
async def test_no_request_of_a_session_reads_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    issued = await desk.log_in("ana")

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a statement")

    monkeypatch.setattr(Database, "read", forbidden)
    monkeypatch.setattr(Database, "write", forbidden)
    assert holds(desk, issued)
    assert desk.ring.identify_session("0" * 64, PEER, is_protected=True) is None


@ON_SQLITE
async def test_a_session_outlives_one_rotation_of_the_pepper(database: Database) -> None:
    first = KeyDesk(database)
    await first.person("ana", Role.ADMIN)
    issued = await first.log_in("ana")
    rotated = KeyDesk(database, peppers=(OTHER_PEPPER, PEPPER))
    await rotated.ring.load()
    assert holds(rotated, issued)
    without = KeyDesk(database, peppers=(OTHER_PEPPER,))
    await without.ring.load()
    assert not holds(without, issued)
    again = await without.log_in("ana")
    assert holds(without, again), "a password does not depend on the pepper"


@ON_SQLITE
async def test_a_log_in_renews_an_outdated_hash(database: Database) -> None:
    desk = KeyDesk(database)
    before = await desk.person("ana", Role.ADMIN)
    other = PasswordHasher(time_cost=2, memory_cost=64, parallelism=1)
    desk.sessions = replace(
        desk.sessions, users=replace(desk.users, passwords=PasswordHashing(other))
    )
    first = await desk.log_in("ana")
    after = await desk.users.find("ana")
    assert after is not None
    assert before.password_hash != after.password_hash
    assert "t=2" in after.password_hash
    assert after.password_changed_at == before.password_changed_at
    assert holds(desk, first)
    await desk.log_in("ana", PASSWORD)
    assert await desk.users.find("ana") == after, "once"


@ON_SQLITE
async def test_a_log_in_that_a_change_overtakes_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = KeyDesk(database)
    ana = await desk.person("ana", Role.ADMIN)
    await desk.person("boss", Role.ADMIN)
    verify = PasswordHashing.verify
    changes = [
        lambda: desk.users.set_password(ana.id, "another violet harbor", SYSTEM),
        lambda: desk.users.edit(ana.id, UserEdit(is_active=False), SYSTEM),
    ]
    passwords = [PASSWORD, "another violet harbor"]
    for change, password in zip(changes, passwords, strict=True):

        async def overtaken(
            self: PasswordHashing, stored: str | None, text: str, change: Any = change
        ) -> bool:
            is_right = await verify(self, stored, text)
            desk.now += timedelta(seconds=1)
            await change()
            return is_right

        with monkeypatch.context() as patched:
            patched.setattr(PasswordHashing, "verify", overtaken)
            assert await desk.sessions.log_in("ana", password, PEER, None) is None
    found = await desk.failures()
    assert [(one[0], one[1]) for one in found] == [("user:ana", "withdrawn")]
    assert await desk.sessions.list((await desk.log_in("boss")).principal) != ()


@ON_SQLITE
async def test_a_slow_load_does_not_hide_a_new_session(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    slow, has_read, goes_on = KeyDesk(database).ring, asyncio.Event(), asyncio.Event()
    read_all = SessionRepository.all

    async def paused(self: SessionRepository) -> Any:
        found = await read_all(self)
        if not has_read.is_set():
            has_read.set()
            await goes_on.wait()
        return found

    monkeypatch.setattr(SessionRepository, "all", paused)
    first = asyncio.ensure_future(slow.load())
    await has_read.wait()
    issued = await desk.log_in("ana")
    second = asyncio.ensure_future(slow.load())
    await asyncio.sleep(0.1)
    goes_on.set()
    await asyncio.gather(first, second)
    assert slow.identify_session(issued.token, PEER, is_protected=True) == issued.principal


@ON_SQLITE
async def test_the_settings_reach_sessions_and_proposals(database_url: str) -> None:
    security = SecurityVariables(
        session_idle_s=60, session_lifetime_s=300, allow_plain_sessions=True, four_eyes=True
    )
    plain = settings_for("http://127.0.0.1:9", database_url, background=False)
    wanted = SessionPolicy(timedelta(minutes=1), timedelta(minutes=5), allows_plain=True)
    for settings, policy, needs_four_eyes in (
        (plain, SessionPolicy(timedelta(minutes=30), timedelta(hours=12)), False),
        (plain.model_copy(update={"security": security}), wanted, True),
    ):
        async with assemble(settings, Metrics()) as services:
            service = services.my_symbols
            assert service.sessions.policy == policy
            assert service.proposals.needs_four_eyes is needs_four_eyes


@ON_SQLITE
async def test_log_ins_and_ends_are_events(database: Database) -> None:
    desk = KeyDesk(database, policy=SessionPolicy())
    await desk.person("ana", Role.ADMIN)
    issued = await desk.log_in("ana")
    await desk.sessions.end(issued.session.id, issued.principal)
    async with database.read() as unit:
        stored = await unit.get(EventRepository).after(0, limit=20)
    found = [(one.type, one.data["change"], one.data["actor"]) for one in stored]
    assert found == [
        ("user_changed", "created", "local"),
        ("session_changed", "started", "user:ana"),
        ("session_changed", "ended", "user:ana"),
    ]
    assert {one.topic.value for one in stored} == {"security"}
    assert issued.token not in repr(stored) + repr(issued)


@ON_SQLITE
async def test_a_log_in_of_another_user_ends_the_session_in_the_name_of_its_owner(
    database: Database,
) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    await desk.person("bob", Role.VIEWER)
    first = await desk.log_in("ana")
    second = await desk.sessions.log_in("bob", PASSWORD, PEER, first.session.id)
    assert second is not None
    assert not holds(desk, first)
    async with database.read() as unit:
        events = (await unit.get(EventRepository).after(0, 20))[-2:]
    assert [(one.data["change"], one.data["owner"], one.data["actor"]) for one in events] == [
        ("ended", "user:ana", "user:bob"),
        ("started", "user:bob", "user:bob"),
    ]
