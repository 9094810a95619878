"""Users: open mode, lock-out guard, hashing of passwords."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from app.foundation.errors import Code, ConflictError, NotFoundError, RefusedError, UnavailableError
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database
from app.security.domain.keys import LOCAL_KEY
from app.security.domain.people import MAX_PASSWORD_CHARS, password_fault
from app.security.services.passwords import RUNNING, PasswordHashing
from app.security.services.peppers import PepperMissingError
from app.security.services.users import UserDraft, UserEdit
from tests.support.api_keys import PASSWORD, QUICK, SYSTEM, KeyDesk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def test_the_first_user_ends_the_open_mode_and_writes_the_local_key(
    database: Database, tmp_path: Path
) -> None:
    desk = KeyDesk(database, local_file=tmp_path / "local.key")
    before = desk.ring.is_open
    draft = UserDraft("ana", Role.OPERATOR, frozenset({Scope.LIVE}))
    added = await desk.users.add(draft, PASSWORD, SYSTEM)
    assert added.has_local_key
    assert (before, desk.ring.is_open) == (True, False)
    token = (tmp_path / "local.key").read_text().strip()
    principal = desk.ring.identify(token, "127.0.0.1")
    assert principal is not None
    assert (principal.name, principal.role) == (LOCAL_KEY, Role.ADMIN)
    second = await desk.users.add(UserDraft("bob", Role.VIEWER), PASSWORD, SYSTEM)
    assert not second.has_local_key
    found = await desk.users.list()
    assert [(one.name, one.role, one.scopes) for one in found] == [
        ("ana", Role.OPERATOR, frozenset({Scope.LIVE})),
        ("bob", Role.VIEWER, frozenset()),
    ]
    assert PASSWORD not in repr(found)
    assert found[0].password_hash.startswith("$argon2id$")
    assert found[0].password_hash not in repr(found)
    assert found[0].password_hash != found[1].password_hash, "each has a salt of its own"


async def test_a_user_alone_ends_the_open_mode_where_no_local_key_can_be(
    database: Database,
) -> None:
    desk, other = KeyDesk(database), KeyDesk(database)
    await desk.person("ana", Role.VIEWER)
    assert await desk.service.list() == ()
    assert not desk.ring.is_open
    await other.ring.load()
    assert not other.ring.is_open, "in every process"
    await desk.users.edit((await desk.users.list())[0].id, UserEdit(is_active=False), SYSTEM)
    await other.ring.load()
    assert not other.ring.is_open, "it never opens again"


@ON_SQLITE
async def test_a_user_needs_a_pepper_a_free_name_and_a_good_password(database: Database) -> None:
    with pytest.raises(PepperMissingError):
        await KeyDesk(database, peppers=()).person("ana", Role.ADMIN)
    desk = KeyDesk(database)
    with pytest.raises(RefusedError, match="12 characters") as weak:
        await desk.person("ana", Role.ADMIN, password="too short")
    assert weak.value.code is Code.VALIDATION_FAILED
    with pytest.raises(RefusedError, match="name"):
        await desk.person("annabelle", Role.ADMIN, password="Annabelle-12345")
    assert await desk.users.list() == ()
    await desk.person("ana", Role.ADMIN)
    with pytest.raises(ConflictError) as taken:
        await desk.person("ana", Role.VIEWER)
    assert taken.value.code is Code.USER_NAME_TAKEN
    for attempt in (
        desk.users.edit("nothing", UserEdit(is_active=False), SYSTEM),
        desk.users.set_password("nothing", PASSWORD, SYSTEM),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    ana = (await desk.users.list())[0]
    with pytest.raises(RefusedError, match="common"):
        await desk.users.set_password(ana.id, "Password1234", SYSTEM)
    changed = await desk.users.set_password(ana.id, "another violet harbor", SYSTEM)
    assert await desk.users.passwords.verify(changed.password_hash, "another violet harbor")
    assert not await desk.users.passwords.verify(changed.password_hash, PASSWORD)


async def test_the_last_administrator_stays_while_no_admin_key_exists(database: Database) -> None:
    desk = KeyDesk(database)
    ana, bob = await desk.person("ana", Role.ADMIN), await desk.person("bob", Role.ADMIN)
    await desk.person("eye", Role.VIEWER)
    await desk.users.edit(bob.id, UserEdit(is_active=False), SYSTEM)
    for edit in (UserEdit(is_active=False), UserEdit(role=Role.OPERATOR)):
        with pytest.raises(ConflictError) as refused:
            await desk.users.edit(ana.id, edit, SYSTEM)
        assert refused.value.code is Code.LAST_ADMIN
    await desk.users.edit(ana.id, UserEdit(scopes=frozenset({Scope.LIVE})), SYSTEM)
    await desk.issue("engine", Role.TRADER)
    with pytest.raises(ConflictError):
        await desk.users.edit(ana.id, UserEdit(is_active=False), SYSTEM)
    key = await desk.issued("boss", Role.ADMIN)
    demoted = (await desk.users.edit(ana.id, UserEdit(role=Role.VIEWER), SYSTEM)).result
    assert demoted is not None
    assert (demoted.role, demoted.scopes) == (Role.VIEWER, frozenset({Scope.LIVE}))
    await desk.users.edit(ana.id, UserEdit(role=Role.ADMIN), SYSTEM)
    await desk.service.revoke(key.key.id, SYSTEM)
    with pytest.raises(ConflictError):
        await desk.users.edit(ana.id, UserEdit(is_active=False), SYSTEM)
    await desk.users.edit(bob.id, UserEdit(is_active=True), SYSTEM)
    await desk.users.edit(ana.id, UserEdit(is_active=False), SYSTEM)


async def test_two_administrators_cannot_disable_each_other_at_once(database: Database) -> None:
    desk = KeyDesk(database)
    ana, bob = await desk.person("ana", Role.ADMIN), await desk.person("bob", Role.ADMIN)
    outcomes = await asyncio.gather(
        *(desk.users.edit(one.id, UserEdit(is_active=False), SYSTEM) for one in (ana, bob)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ConflictError) for one in outcomes) == 1
    assert sum(one.is_active for one in await desk.users.list()) == 1


class SlowHasher(PasswordHasher):
    """Counts the hashes at once; each takes a while."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.lock, self.running, self.highest = threading.Lock(), 0, 0

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        with self.lock:
            self.running += 1
            self.highest = max(self.highest, self.running)
        time.sleep(0.02)
        with self.lock:
            self.running -= 1
        return super().hash(password, salt=salt)


async def test_hashing_is_bounded_and_leaves_the_loop_free() -> None:
    hasher = SlowHasher()
    passwords = PasswordHashing(hasher, waiting=4)
    tasks = [asyncio.ensure_future(passwords.hash(PASSWORD)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[:4]:
        task.cancel()  # a caller that gives up does not make room: its thread still runs
    with pytest.raises(UnavailableError) as refused:
        await passwords.hash(PASSWORD)
    assert refused.value.code is Code.OVERLOADED
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, UnavailableError) for one in outcomes) == 20 - RUNNING - 4
    assert hasher.highest == RUNNING
    assert await passwords.verify(await passwords.hash(PASSWORD), PASSWORD), "there is room again"


async def test_an_unknown_user_takes_as_long_as_a_known_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords = PasswordHashing(QUICK)
    stored = await passwords.hash(PASSWORD)
    verified: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, stored_hash: str, password: str) -> bool:
        verified.append(stored_hash)
        return verify(self, stored_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    assert not await passwords.verify(None, "no user has this password")
    assert not await passwords.verify(stored, "wrong")
    assert await passwords.verify(stored, PASSWORD)
    parameters = [one.rsplit("$", 2)[0] for one in verified]
    assert len(parameters) == 3, "each verifies exactly one hash"
    assert len(set(parameters)) == 1, "of the same cost"
    assert not await passwords.verify("$argon2id$broken", PASSWORD)


async def test_a_password_is_verified_whole_and_as_it_was_typed() -> None:
    passwords = PasswordHashing(QUICK)
    typed = "Violet harbor 71 " + "kites " * 39 + "Zwolf"
    assert (len(typed), password_fault(typed, "ana")) == (MAX_PASSWORD_CHARS, None)
    stored = await passwords.hash(typed)
    for other in (
        typed.lower(), typed.upper(), typed[:-1], typed[:72], typed[:64], typed + " ", " " + typed,
        typed.replace(" ", ""), typed.replace("harbor 71", "harbor  71"),
    ):  # fmt: skip
        assert not await passwords.verify(stored, other), other
    assert await passwords.verify(stored, typed)
    ends = " violet harbor 71 "
    assert not await passwords.verify(await passwords.hash(ends), ends.strip())


def test_a_hash_of_other_parameters_is_outdated() -> None:
    passwords = PasswordHashing(QUICK)
    assert not passwords.is_outdated(QUICK.hash(PASSWORD))
    assert PasswordHashing().is_outdated(QUICK.hash(PASSWORD))
