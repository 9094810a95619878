"""Sealed secrets of a real database: counts, rotation in batches, and the check at the start."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from app.alerts.domain.notifications import ChannelKind
from app.alerts.services.notifications import ChannelSecrets
from app.alerts.storage.tables import notification_channels
from app.container.composition import SEALED
from app.foundation.errors import Code, ConflictError
from app.foundation.sql.database import Database
from app.security.domain.sealing import SealingKey, sealing_key_fault
from app.security.services.peppers import UnsafeStartError
from app.security.services.sealed_store import NOT_SEALED, UNKNOWN_KEY, SealedStore
from app.security.services.sealing import SealingKeyError, SecretSealer, new_sealing_key
from app.security.storage.sealed_columns import SealedColumnRepository
from tests.alerts.services.test_channel_vault import keyed
from tests.alerts.services.test_notifications import SECRET, Office
from tests.support.api_keys import SYSTEM
from tests.support.trading_desk import NOW

OLD, NEW = new_sealing_key(), new_sealing_key()
OLD_ID, NEW_ID = SealingKey(OLD).id, SealingKey(NEW).id
SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class EndedEarlyError(Exception):
    """Stands for the end of the process between two batches."""


def store(database: Database, *keys: str, file: Path | None = None) -> SealedStore:
    return SealedStore(database, SecretSealer(keys, file), SEALED, lambda: NOW)


async def rows(database: Database) -> list[tuple[object, ...]]:
    async with database.read() as unit:
        found = await unit.connection.execute(
            select(notification_channels).order_by(notification_channels.c.id)
        )
        return [tuple(row) for row in found]


async def fill(database: Database, channels: int, *keys: str) -> Office:
    """Webhooks with an address and a secret, and one channel without a secret."""
    office = keyed(Office(database), *keys)
    for number in range(channels - 1):
        await office.channel(f"hook-{number}", f"http://127.0.0.1:1/{number}")
    await office.channel("people", "json://127.0.0.1/", ChannelKind.APPRISE)
    return office


async def counts(sealed: SealedStore) -> list[tuple[str, str, int]]:
    return [(one.kind, one.key, one.secrets) for one in await sealed.list()]


async def opened(office: Office, *keys: str) -> list[tuple[str, str | None]]:
    keyed(office, *keys)
    return [(one.url, one.secret) for one in await office.notifications.channels()]


async def test_a_rotation_seals_every_secret_under_the_newest_key(database: Database) -> None:
    office = await fill(database, 5, OLD)
    before = await opened(office, OLD)
    assert await counts(store(database, NEW, OLD)) == [("channel", OLD_ID, 9)]
    assert await store(database, NEW, OLD).rotate(SYSTEM, batch=2) == 5
    assert await counts(store(database, NEW)) == [("channel", NEW_ID, 9)]
    assert await opened(office, NEW) == before
    assert await store(database, NEW, OLD).rotate(SYSTEM) == 0, "nothing is left to do"
    with pytest.raises(SealingKeyError):
        await store(database, OLD).require_keys()


async def test_an_interrupted_rotation_goes_on_where_it_ended(database: Database) -> None:
    office = await fill(database, 6, OLD)
    before = await opened(office, OLD)
    sealed, batches = store(database, NEW, OLD), []

    async def end_after_the_second(changed: int) -> None:
        batches.append(changed)
        if len(batches) == 2:
            raise EndedEarlyError

    with pytest.raises(EndedEarlyError):
        await sealed.rotate(SYSTEM, 2, end_after_the_second)
    assert {key for _, key, _ in await counts(sealed)} == {OLD_ID, NEW_ID}
    assert await opened(office, NEW, OLD) == before, "usable at every moment"
    done = await rows(database)
    assert await sealed.rotate(SYSTEM, batch=2) == 2
    after = await rows(database)
    assert [old == new for old, new in zip(done, after, strict=True)] == [True] * 4 + [False] * 2
    assert await opened(office, NEW) == before


@pytest.mark.parametrize("keys", [(), (NEW,)], ids=["missing", "another"])
async def test_without_their_key_nothing_is_changed_and_the_setting_is_named(
    database: Database, keys: Sequence[str]
) -> None:
    await fill(database, 3, OLD)
    before = await rows(database)
    sealed = store(database, *keys)
    for work in (sealed.require_keys, lambda: sealed.rotate(SYSTEM)):
        with pytest.raises(SealingKeyError) as caught:
            await work()
        assert isinstance(caught.value, UnsafeStartError)
        assert caught.value.code is Code.SECRETS_KEY_MISSING
        assert "MYSYMBOLS_SECURITY__SEALING_KEYS" in caught.value.detail
        assert "5 of kind channel" in caught.value.detail
        assert not any(key in caught.value.detail for key in (OLD, NEW))
    assert await rows(database) == before
    assert await counts(sealed) == [("channel", UNKNOWN_KEY, 5)]


@SQLITE
async def test_one_secret_under_a_lost_key_stops_the_start_and_every_change(
    database: Database,
) -> None:
    office = await fill(database, 2, OLD)
    keyed(office, NEW)
    await office.channel("another", "http://127.0.0.1:1/another")
    before = await rows(database)
    sealed = store(database, NEW)
    for work in (sealed.require_keys, lambda: sealed.rotate(SYSTEM)):
        with pytest.raises(SealingKeyError, match="3 of kind channel"):
            await work()
    assert await rows(database) == before
    assert await sealed.discard_unreadable(SYSTEM) == 2
    await sealed.require_keys()
    shown = {one.name: (one.url, one.secret) for one in await office.notifications.channels()}
    assert shown == {
        "another": ("http://127.0.0.1:1/another", SECRET),
        "hook-0": ("", ""),
        "people": ("", None),
    }


@SQLITE
async def test_a_rotation_seals_what_was_stored_before_a_key_existed(database: Database) -> None:
    office = await fill(database, 2, OLD)
    async with database.write() as unit:
        await unit.connection.execute(notification_channels.update().values(url="in-clear"))
    assert await counts(store(database, OLD)) == [
        ("channel", OLD_ID, 1),
        ("channel", NOT_SEALED, 2),
    ]
    assert await store(database, OLD).rotate(SYSTEM) == 2
    assert await counts(store(database, OLD)) == [("channel", OLD_ID, 3)]
    assert [url for url, _ in await opened(office, OLD)] == ["in-clear"] * 2


@SQLITE
async def test_a_rotation_needs_a_key(database: Database) -> None:
    await fill(database, 1, OLD)
    async with database.write() as unit:
        await unit.connection.execute(notification_channels.update().values(url="in-clear"))
    with pytest.raises(ConflictError) as caught:
        await store(database).rotate(SYSTEM)
    assert caught.value.code is Code.SECRETS_KEY_MISSING
    assert [row[3] for row in await rows(database)] == ["in-clear"]


async def test_a_change_beside_a_rotation_is_not_lost(database: Database) -> None:
    """Between two batches the service replaces an address that is not yet sealed anew."""
    office = await fill(database, 4, OLD)
    keyed(office, NEW, OLD)
    last = (await rows(database))[-1]
    secrets = ChannelSecrets(SecretSealer((NEW, OLD)))

    async def change(_: int) -> None:
        async with database.write() as unit:
            await unit.connection.execute(
                notification_channels.update()
                .where(notification_channels.c.id == last[0])
                .values(url=secrets.secrets.seal("json://127.0.0.1/moved"))
            )

    await store(database, NEW, OLD).rotate(SYSTEM, 3, change)
    assert await counts(store(database, NEW)) == [("channel", NEW_ID, 7)]
    assert ("json://127.0.0.1/moved", None) in await opened(office, NEW)


@SQLITE
async def test_a_changed_key_file_needs_no_restart(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(OLD + "\n")
    office = keyed(Office(database), file=file)
    await office.channel("old", "http://127.0.0.1:1/old")
    file.write_text(f"{NEW}\n{OLD}\n")
    await office.channel("young", "http://127.0.0.1:1/young")
    assert await counts(store(database, NEW, OLD)) == sorted(
        [("channel", OLD_ID, 2), ("channel", NEW_ID, 2)]
    )
    assert await store(database, file=file).rotate(SYSTEM) == 1
    file.write_text(NEW)
    assert [one.url[-5:] for one in await office.notifications.channels()] == ["1/old", "young"]


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff", OLD.encode() + b"\nshort"],
    ids=["empty", "short", "not text", "one of two is short"],
)
@SQLITE
async def test_an_unusable_key_file_is_named_and_stays_as_it_is(
    database: Database, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "my.key"
    file.write_bytes(content)
    with pytest.raises(SealingKeyError, match=r"my\.key") as caught:
        await store(database, file=file).require_keys()
    assert OLD not in caught.value.detail
    with pytest.raises(SealingKeyError):
        SecretSealer(file=file).seal("text")
    assert file.read_bytes() == content


def test_a_sealing_key_is_random_and_shows_its_id_only() -> None:
    assert {sealing_key_fault(key) for key in (OLD, Fernet.generate_key().decode())} == {None}
    for weak in ("", "short", "a" * 43 + "=", "a" * 44, OLD[:-1], OLD * 2, "é" * 44):
        assert sealing_key_fault(weak) is not None, weak
    key = SealingKey(OLD)
    assert len(key.id) == 8
    assert OLD not in repr(key) + repr(SecretSealer((OLD,)))
    assert key.id != SealingKey(NEW).id


async def test_writers_of_a_batch_wait_for_the_rotation_of_their_rows(database: Database) -> None:
    await fill(database, 1, OLD)
    change = notification_channels.update().values(url="changed beside it")

    async def write() -> None:
        async with database.write() as unit:
            await unit.connection.execute(change)

    async with database.write() as unit:
        await unit.get(SealedColumnRepository).page(SEALED[0], lock=True)
        writing = asyncio.create_task(write())
        await asyncio.sleep(0.3)
        assert not writing.done()
    await writing
    assert [row[3] for row in await rows(database)] == ["changed beside it"]


def test_permissions_of_an_own_key_file_are_narrowed_and_others_stay(tmp_path: Path) -> None:
    for may_create, mode in ((True, 0o600), (False, 0o640)):
        file = tmp_path / f"{mode:o}"
        file.write_text(OLD)
        file.chmod(0o640)
        sealer = SecretSealer(file=file, may_create=may_create)
        assert sealer.open(sealer.seal("text")) == "text"
        assert file.stat().st_mode & 0o777 == mode


def test_a_named_key_file_is_never_created(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(ConflictError):
        SecretSealer(file=file, may_create=False).seal("text")
    assert not file.exists()


def test_a_fingerprint_tells_secrets_apart_for_holders_of_the_key_only() -> None:
    old, both = SecretSealer((OLD,)), SecretSealer((NEW, OLD))
    first = old.fingerprint("a secret")
    assert first is not None
    assert len(first) == 12
    assert first == old.fingerprint("a secret") == SecretSealer((OLD, NEW)).fingerprint("a secret")
    assert len({first, old.fingerprint("another"), both.fingerprint("a secret")}) == 3
    assert SecretSealer().fingerprint("a secret") is None
