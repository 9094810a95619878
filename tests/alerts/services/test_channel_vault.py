"""Addresses and secrets of channels are sealed in the database, and open only with their key."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError
from sqlalchemy import select

from app.alerts.domain.notifications import ChannelKind, DeliveryState, NotificationKind
from app.alerts.services.notifications import (
    ChannelDraft,
    ChannelSecrets,
    DecryptingNotifier,
    by_kind,
)
from app.alerts.storage.notifications import NotificationRepository
from app.foundation.errors import Code, ConflictError
from app.foundation.idempotency import StoredResponse
from app.foundation.sql.database import Database
from app.foundation.sql.job_store import key_file
from app.foundation.sql.schema import metadata
from app.security.services.sealing import SecretSealer
from app.settings import SecurityVariables
from tests.alerts.services.test_notifications import SECRET, Office, Receiver, change
from tests.support.trading_desk import WHO

# Where the database is no matter.
SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def no_answer(_: object) -> StoredResponse:
    return StoredResponse(200, {}, b"")


def keyed(office: Office, *keys: str, file: Path | None = None) -> Office:
    """The same office, started again with other keys."""
    vault = ChannelSecrets(SecretSealer(keys, file))
    known = (way for way in office.notifiers.values() if isinstance(way, DecryptingNotifier))
    ways = by_kind(replace(way, secrets=vault) for way in known)
    office.notifications = replace(office.notifications, notifiers=ways, secrets=vault)
    office.notifiers, office.dispatcher.notifiers = ways, ways
    return office


async def _stored(database: Database) -> str:
    """Everything that is in the database, as text."""
    async with database.read() as unit:
        tables = [await unit.connection.execute(select(one)) for one in metadata.sorted_tables]
    return "\n".join(str(tuple(row)) for rows in tables for row in rows)


async def test_the_database_holds_no_address_and_no_secret(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    office, receiver = keyed(Office(database), OLD), Receiver()
    async with receiver.listening() as url:
        address = f"{url}?token=canary-address"
        await office.channel("desk", address)
        await office.publish(change(1))
        await office.work()
        assert len(receiver.got) == 1, "sealed, and told all the same"
        text = await _stored(database) + capsys.readouterr().out
        assert "desk" in text
        for hidden in ("canary-address", SECRET, OLD, "127.0.0.1"):
            assert hidden not in text
        (shown,) = await office.notifications.channels()
        assert (shown.url, shown.secret) == (address, SECRET)


@SQLITE
async def test_a_new_key_in_front_of_the_old_one_opens_what_that_sealed(
    database: Database,
) -> None:
    office = keyed(Office(database), OLD)
    await office.channel("old", "http://127.0.0.1:1/old")
    keyed(office, NEW, OLD)
    await office.channel("young", "http://127.0.0.1:1/young")
    assert [one.url[-5:] for one in await office.notifications.channels()] == ["1/old", "young"]
    keyed(office, NEW)
    assert [one.url[-5:] for one in await office.notifications.channels()] == ["", "young"]


@SQLITE
async def test_without_its_key_a_channel_is_told_nothing_until_it_is_named_anew(
    database: Database,
) -> None:
    office, receiver = keyed(Office(database), OLD), Receiver()
    async with receiver.listening() as url:
        channel_id = await office.channel("desk", url)
        keyed(office, NEW)
        await office.publish(change(1))
        await office.work()
        (failed,) = await office.notifications.log(None, 9)
        assert (failed.state, receiver.got) == (DeliveryState.PENDING, [])
        assert str(failed.error).startswith("secrets_key_missing")
        draft = ChannelDraft("desk", ChannelKind.WEBHOOK, url, None, tuple(NotificationKind), True)
        for half in (draft, replace(draft, url=None, secret=SECRET)):
            with pytest.raises(ConflictError) as caught:  # what it keeps cannot be read
                await office.notifications.update_channel(channel_id, half, WHO, no_answer)
            assert caught.value.code is Code.SECRETS_KEY_MISSING
        whole = replace(draft, secret=SECRET)
        await office.notifications.update_channel(channel_id, whole, WHO, no_answer)
        office.now = failed.next_attempt_at or office.now
        await office.work()
        assert len(receiver.got) == 1


@SQLITE
async def test_without_any_key_no_address_is_taken(database: Database) -> None:
    office = keyed(Office(database))
    with pytest.raises(ConflictError) as caught:
        await office.channel("desk", "http://127.0.0.1:1/hook")
    assert caught.value.code is Code.SECRETS_KEY_MISSING
    assert "MYSYMBOLS_SECURITY__SEALING_KEYS" in caught.value.detail
    assert await office.notifications.channels() == ()


@SQLITE
async def test_what_was_stored_before_there_were_keys_is_sealed_at_the_start(
    database: Database, tmp_path: Path
) -> None:
    office = keyed(Office(database), OLD)
    channel_id = await office.channel("desk", "http://127.0.0.1:1/canary")
    (clear,) = await office.notifications.channels()
    async with database.write() as unit:
        await unit.get(NotificationRepository).save_channel(clear)
    assert "canary" in await _stored(database)
    file = tmp_path / "sealing.key"
    keyed(office, file=file)
    assert [one.id for one in await office.notifications.channels()] == [channel_id]
    assert not file.exists(), "a look draws no key"
    assert await office.notifications.seal_stored() == 1
    assert await office.notifications.seal_stored() == 0
    assert "canary" not in await _stored(database)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    assert (await office.notifications.channels())[0].url.endswith("canary")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() not in await _stored(database)


def test_the_key_lies_beside_an_sqlite_file_and_nowhere_else() -> None:
    beside = key_file("sqlite+aiosqlite:///var/my.sqlite3", "sealing")
    assert beside == Path("var/my-sealing.key")
    assert key_file("postgresql+asyncpg://u@h/d", "sealing") is None


def test_keys_that_are_none_are_refused_at_the_start() -> None:
    listed = SecurityVariables(sealing_keys=f"{NEW}, {OLD}")
    assert listed.sealing_key_list == (NEW, OLD)
    assert SecurityVariables().sealing_key_list == ()
    for wrong in ("short", "a" * 44, "a" * 43 + "=", f"{NEW},x"):
        with pytest.raises(ValidationError) as caught:
            SecurityVariables(sealing_keys=wrong)
        assert "my-symbols secrets new-key" in str(caught.value)
        assert NEW not in str(caught.value)
