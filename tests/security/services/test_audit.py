"""Security events on a database: one transaction with their change, append-only, retained."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from app.container.composition import SEALED
from app.foundation.errors import Code, ConflictError, ServiceError, UnavailableError
from app.foundation.hash_chain import instant_text
from app.foundation.idempotency import Command, IdempotentExecutor, StoredResponse
from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.key_value import KeyValueRepository
from app.operations.services.health import StatusSources
from app.operations.services.health_checks import ComponentState, security_events
from app.operations.storage.audit import verify_security_events
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.security.domain.audit import OTHERS, SecurityEvent, SecurityEventKind
from app.security.services.audit import SecurityAudit, create_audit_recorder
from app.security.services.sealed_store import SealedStore
from app.security.services.sealing import SecretSealer, new_sealing_key
from app.security.services.users import UserEdit
from app.security.storage.audit import HEAD, SecurityEventRepository
from app.security.storage.people import SessionRepository, UserRepository
from tests.alerts.services.test_channel_vault import keyed
from tests.alerts.services.test_notifications import Office
from tests.support.action_fixtures import eight_members, told
from tests.support.api_keys import SYSTEM, KeyDesk
from tests.support.trading_desk import NOW, SYMBOLS, Desk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
MINUTE = timedelta(minutes=1)
REPLACED = ("replaced_key_id", "replaced_key_expires_at")


class Moved:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> object:
        return self.now


@pytest.fixture
def clock() -> Moved:
    return Moved()


@pytest.fixture
def audit(database: Database, clock: Moved) -> SecurityAudit:
    return SecurityAudit(database, clock)  # type: ignore[arg-type]  # a clock


async def events(database: Database) -> list[SecurityEvent]:
    async with database.read() as unit:
        batches = unit.get(SecurityEventRepository).batches()
        return [event async for batch in batches for event in batch]


async def test_each_change_of_a_key_is_an_event_in_its_transaction(
    database: Database, database_url: str
) -> None:
    desk = KeyDesk(database)
    issued = await desk.issued("engine", Role.TRADER, Scope.SIGNALS, allow=("10.0.0.0/8",))
    grace = timedelta(hours=24)
    rotated = (await desk.service.rotate(issued.key.id, grace, SYSTEM)).result
    assert rotated is not None
    await desk.service.revoke(rotated.key.id, SYSTEM)
    await desk.service.revoke(rotated.key.id, SYSTEM)
    with pytest.raises(ConflictError):
        await desk.service.rotate(rotated.key.id, timedelta(0), SYSTEM)
    found = await events(database)
    assert [(one.kind, one.principal, one.subject) for one in found] == [
        ("key_created", "local", "engine"),
        ("key_rotated", "local", "engine"),
        ("key_revoked", "local", "engine"),
    ]
    payload = found[0].payload
    assert (payload["role"], payload["scopes"], payload["allow"]) == (
        "trader", ["signals"], ["10.0.0.0/8"],
    )  # fmt: skip
    assert (payload["prefix"], payload["key_id"]) == (issued.key.prefix, issued.key.id)
    replaced = [{name: one.payload.get(name) for name in REPLACED} for one in found]
    ends = instant_text(NOW + grace)
    assert replaced[1] == dict(zip(REPLACED, (issued.key.id, ends), strict=True))
    assert found[1].payload["key_id"] == rotated.key.id
    assert replaced[0] == replaced[2] == dict.fromkeys(REPLACED)
    assert found[0].request_id == SYSTEM.request_id
    assert issued.token not in repr(found)
    assert issued.key.hash not in repr(found)
    assert (await verify_security_events(database_url)).ok


async def test_a_grace_never_prolongs_a_key_and_its_event_says_when_it_really_ends(
    database: Database,
) -> None:
    desk = KeyDesk(database)
    issued = await desk.issued("engine", Role.VIEWER, lifetime=timedelta(hours=1))
    desk.now += timedelta(minutes=20)
    rotated = (await desk.service.rotate(issued.key.id, timedelta(hours=24), SYSTEM)).result
    assert rotated is not None
    at_once = (await desk.service.rotate(rotated.key.id, timedelta(0), SYSTEM)).result
    assert at_once is not None
    ends = (NOW + timedelta(hours=1), NOW + timedelta(minutes=20))
    found = [one for one in await events(database) if one.kind == "key_rotated"]
    assert [[one.payload[name] for name in REPLACED] for one in found] == [
        [issued.key.id, instant_text(ends[0])],
        [rotated.key.id, instant_text(ends[1])],
    ]
    # The new key lives as long as the replaced one was meant to.
    assert found[0].payload["expires_at"] == instant_text(desk.now + timedelta(hours=1))

    def valid() -> list[bool]:
        keys = (issued, rotated, at_once)
        return [desk.ring.identify(one.token, "127.0.0.1") is not None for one in keys]

    assert valid() == [True, False, True]
    desk.now = ends[0] - timedelta(seconds=1)
    assert valid() == [True, False, True]
    desk.now = ends[0]
    assert valid() == [False, False, True]


async def test_refusals_are_stored_when_their_minute_is_over(
    audit: SecurityAudit, database: Database, clock: Moved
) -> None:
    for _ in range(500):
        audit.note_refusal("key:eye", "10.0.0.1", "forbidden")
        audit.note_failure("anonymous", "10.0.0.1", "unknown")
    await audit.store_counts(clock.now)
    assert await events(database) == []
    clock.now += MINUTE
    async with asyncio.TaskGroup() as group:
        task = group.create_task(audit.follow(lambda: None))
        async with asyncio.timeout(30):
            while len(await events(database)) < 3:
                await asyncio.sleep(0.05)
        task.cancel()
    shown = [
        (one.kind, one.principal, one.address, one.code, one.count, one.occurred_at)
        for one in await events(database)
    ]
    assert shown == [
        ("authentication_burst", "service", None, None, 11, NOW),
        ("refused", "key:eye", "10.0.0.1", "forbidden", 500, NOW),
        ("authentication_failed", "anonymous", "10.0.0.1", "unknown", 500, NOW),
    ]


async def test_refusals_outlast_a_database_that_is_away(
    audit: SecurityAudit, database: Database, clock: Moved
) -> None:
    audit.note_refusal("key:eye", None, "forbidden")
    await database.close()
    clock.now += MINUTE
    await audit.store_counts(clock.now)
    await database.open()
    audit.note_refusal("key:eye", None, "forbidden")
    await audit.store_counts()
    assert [one.count for one in await events(database)] == [1, 1]


async def test_a_flood_from_everywhere_is_a_bounded_number_of_events(
    audit: SecurityAudit, database: Database
) -> None:
    for number in range(5_000):
        audit.note_failure("anonymous", f"10.0.{number // 256}.{number % 256}", "unknown")
    await audit.store_counts()
    found = await events(database)
    assert len(found) == 101
    assert sum(one.count for one in found) == 5_000
    assert [one.principal for one in found if one.count > 1] == [OTHERS]
    async with database.read() as unit:
        rows = await unit.connection.execute(text("SELECT count(*) FROM portfolio_history"))
        assert rows.scalar() == 0, "none of it is in the portfolio's history"


@ON_POSTGRES
async def test_security_events_and_portfolio_changes_do_not_wait_for_each_other(
    audit: SecurityAudit, database: Database
) -> None:
    async with database.write() as unit:
        await unit.get(PortfolioRepository).load(for_update=True)
        async with asyncio.timeout(20):
            await audit.record(SecurityEventKind.LOGGED_IN, "user:ana")
    async with database.write() as unit:
        await unit.get(KeyValueRepository).get_locked(HEAD, {})
        async with asyncio.timeout(20), database.write() as other:
            await other.get(PortfolioRepository).load(for_update=True)


@ON_POSTGRES
async def test_events_of_many_transactions_at_once_have_no_gap(
    audit: SecurityAudit, database: Database, database_url: str
) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(audit.record(SecurityEventKind.LOGGED_IN, f"user:u{number}"))
    assert [one.seq for one in await events(database)] == [*range(1, 13)]
    assert (await verify_security_events(database_url)).ok


async def execute(database: Database, statement: str) -> None:
    async with database.write() as unit:
        await unit.connection.execute(text(statement))


async def test_the_chain_is_append_only_and_an_altered_one_gets_no_more_events(
    audit: SecurityAudit, database: Database, database_url: str
) -> None:
    for number in range(3):
        await audit.record(SecurityEventKind.LOGGED_IN, f"user:u{number}", address="10.0.0.1")
    for statement in (
        "UPDATE security_events SET principal = 'x'",
        "DELETE FROM security_events",
        "DELETE FROM security_events WHERE seq = 3",
    ):
        with pytest.raises(ServiceError):
            await execute(database, statement)
    assert (await verify_security_events(database_url)).ok
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put(HEAD, {"seq": 2, "hash": "0" * 64})
    with pytest.raises(UnavailableError) as raised:
        await audit.record(SecurityEventKind.LOGGED_OUT, "user:ana")
    assert raised.value.code is Code.HISTORY_TAMPERED
    assert len(await events(database)) == 3
    assert not (await verify_security_events(database_url)).ok


async def test_old_events_go_and_the_rest_is_verified_from_the_anchor(
    audit: SecurityAudit, database: Database, database_url: str, clock: Moved
) -> None:
    for number in range(6):
        await audit.record(SecurityEventKind.LOGGED_IN, f"user:u{number}")
        clock.now += timedelta(days=1)
    assert await audit.delete_old(timedelta(days=400)) == 0
    assert await audit.delete_old(timedelta(days=4)) == 2
    found = await events(database)
    assert [(one.seq, one.kind, one.count) for one in found] == [
        (3, "logged_in", 1), (4, "logged_in", 1), (5, "logged_in", 1), (6, "logged_in", 1),
        (7, "events_deleted", 2),
    ]  # fmt: skip
    verdict = await verify_security_events(database_url)
    assert (verdict.ok, verdict.events) == (True, 5)
    assert verdict.anchor is not None
    assert verdict.anchor.seq == 2
    assert await audit.delete_old(timedelta(days=4)) == 0, "the same again deletes nothing"
    clock.now += timedelta(days=300)
    assert await audit.delete_old(timedelta(days=30)) == 5
    assert [one.kind for one in await events(database)] == ["events_deleted"]
    await audit.record(SecurityEventKind.LOGGED_IN, "user:ana")
    verdict = await verify_security_events(database_url)
    assert (verdict.ok, verdict.events, verdict.anchor and verdict.anchor.seq) == (True, 2, 7)


async def test_events_that_go_for_their_number_before_their_age_are_a_warning(
    audit: SecurityAudit, database: Database, database_url: str, clock: Moved
) -> None:
    sources = StatusSources(database, *[Any] * 4)  # type: ignore[arg-type]  # of other figures
    for number in range(4):
        await audit.record(SecurityEventKind.LOGGED_IN, f"user:u{number}")
        clock.now += timedelta(days=1)
    with structlog.testing.capture_logs() as lines:
        assert await audit.delete_old(timedelta(days=4)) == 0
        clock.now += timedelta(seconds=1)
        assert await audit.delete_old(timedelta(days=4)) == 1
    assert (lines, await sources.trimmed_at()) == ([], None)
    audit.max_events = 2
    with structlog.testing.capture_logs() as lines:
        assert await audit.delete_old(timedelta(days=4)) == 3
        trimmed = clock.now
        clock.now += timedelta(seconds=1)
        assert await audit.delete_old(timedelta(days=4)) == 0, "the same again deletes nothing"
    assert [(one["event"], one["log_level"], one["deleted"]) for one in lines] == [
        ("security_events_trimmed", "warning", 3)
    ]
    found = await events(database)
    assert [(one.kind, one.code, one.count) for one in found] == [
        ("events_deleted", "age", 1),
        ("events_deleted", "number", 3),
    ]
    assert (await verify_security_events(database_url)).ok
    assert await sources.trimmed_at() == trimmed
    shown = security_events(trimmed, trimmed + timedelta(days=6))
    assert (shown.name, shown.state, shown.cause) == (
        "security_events", ComponentState.DEGRADED, "security_events_trimmed",
    )  # fmt: skip
    assert security_events(trimmed, trimmed + timedelta(days=7)).state is ComponentState.UP
    assert security_events(None, trimmed).state is ComponentState.UP


async def test_deleting_behind_a_forged_anchor_is_found(
    audit: SecurityAudit, database: Database, database_url: str
) -> None:
    for number in range(4):
        await audit.record(SecurityEventKind.LOGGED_IN, f"user:u{number}")
    second = (await events(database))[1]
    await execute(
        database,
        "INSERT INTO security_anchors (seq, hash, anchored_at)"  # noqa: S608  # of the test
        f" VALUES (2, '{second.hash}', '2026-03-01T12:00:00.000000Z')",
    )
    await execute(database, "DELETE FROM security_events WHERE seq <= 2")
    verdict = await verify_security_events(database_url)
    assert [one.detail for one in verdict.breaks] == ["no event of the chain records the anchor"]
    for table in ("security_anchors", "security_events"):
        with pytest.raises(ServiceError):
            await execute(database, f"DELETE FROM {table}")  # noqa: S608  # of the test


NOTED = Command("user:ana", "request-9", note="by phone").audited(
    "manual_run", "scoring", "universe", lambda number: {"number": number}
)


def executor(database: Database, clock: Moved) -> IdempotentExecutor:
    return IdempotentExecutor(
        database,
        clock,  # type: ignore[arg-type]  # a clock
        record_audit=create_audit_recorder(clock),  # type: ignore[arg-type]  # a clock
    )


def rendered(_: object) -> StoredResponse:
    return StoredResponse(200, {}, b"done")


@dataclass(frozen=True, slots=True)
class Keyed:
    key: str
    fingerprint: str = "same"


async def test_an_audited_command_is_an_event_of_its_transaction_and_a_replay_is_none(
    database: Database, clock: Moved
) -> None:
    commands = executor(database, clock)
    keyed = replace(NOTED, idempotency_key=Keyed("one"))

    async def change(unit: UnitOfWork) -> int:
        await unit.get(KeyValueRepository).put("changed", 1)
        return 7

    async def refused(unit: UnitOfWork) -> int:
        await change(unit)
        raise ConflictError(Code.INVALID_STATE_TRANSITION, "no")

    for _ in range(2):
        await commands.run(keyed, change, rendered)
    with pytest.raises(ConflictError):
        await commands.run(NOTED, refused, rendered)

    async def work() -> int:
        assert len(await events(database)) == 1, "what is shared is recorded once it is done"
        return 8

    async def failed() -> int:
        raise UnavailableError(Code.MARKET_DATA_STALE, "no")

    await commands.share(NOTED, work, rendered)
    with pytest.raises(UnavailableError):
        await commands.share(NOTED, failed, rendered)
    await commands.run(SYSTEM, change, rendered)
    found = await events(database)
    assert [one.payload for one in found] == [
        {"number": 7, "note": "by phone"}, {"number": 8, "note": "by phone"},
    ]  # fmt: skip
    first = found[0]
    assert (first.kind, first.code, first.subject) == ("manual_run", "scoring", "universe")
    assert (first.principal, first.request_id) == ("user:ana", "request-9")


async def test_an_event_that_cannot_be_recorded_undoes_its_change(
    database: Database, clock: Moved
) -> None:
    async def change(unit: UnitOfWork) -> int:
        await unit.get(KeyValueRepository).put("changed", 1)
        await unit.get(KeyValueRepository).put(HEAD, {"seq": 5, "hash": "0" * 64})
        return 7

    with pytest.raises(UnavailableError) as raised:
        await executor(database, clock).run(NOTED, change, rendered)
    assert raised.value.code is Code.HISTORY_TAMPERED
    async with database.read() as unit:
        assert await unit.get(KeyValueRepository).get("changed") is None


async def test_changes_of_people_sessions_and_secrets_are_undone_without_their_event(
    database: Database,
) -> None:
    desk, old, new = KeyDesk(database), new_sealing_key(), new_sealing_key()
    ana, bob = await desk.person("ana", Role.ADMIN), await desk.person("bob", Role.VIEWER)
    issued = await desk.log_in("bob")
    office = keyed(Office(database), old)
    await office.channel("desk", "http://127.0.0.1:1/hook")
    sealed = SealedStore(database, SecretSealer((new, old)), SEALED, desk.clock)
    losing = SealedStore(database, SecretSealer((new,)), SEALED, desk.clock)

    async def state() -> tuple[object, ...]:
        counts = [(one.key, one.secrets) for one in await sealed.list()]
        async with database.read() as unit:
            live = [one.id for one in await unit.get(SessionRepository).all()]
            return await unit.get(UserRepository).all(), live, counts

    before, stored = await state(), await events(database)
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put(HEAD, {"seq": 99, "hash": "0" * 64})
    for change in (
        lambda: desk.person("eva", Role.VIEWER),
        lambda: desk.users.edit(bob.id, UserEdit(Role.TRADER), SYSTEM),
        lambda: desk.users.edit(bob.id, UserEdit(is_active=False), SYSTEM),
        lambda: desk.users.set_password(bob.id, "another violet harbor", SYSTEM),
        lambda: desk.log_in("ana"),
        lambda: desk.sessions.end(issued.session.id, issued.principal),
        lambda: desk.sessions.end(issued.session.id, ana.principal("")),
        lambda: sealed.rotate(SYSTEM),
        lambda: losing.discard_unreadable(SYSTEM),
    ):
        with pytest.raises(UnavailableError) as raised:
            await change()
        assert raised.value.code is Code.HISTORY_TAMPERED
    assert await state() == before
    assert await events(database) == stored


async def test_a_declined_proposal_and_a_delivery_sent_again_are_events(
    database: Database, clock: Moved
) -> None:
    desk = await eight_members(database)
    desk.proposals = replace(desk.proposals, idempotency=executor(database, clock))
    await told(desk, SYMBOLS[20])
    await desk.signal_actions.apply_approved()
    async with database.read() as unit:
        (opened,) = await unit.get(ProposalRepository).page(None, 5)
    await desk.proposals.decline(opened.proposal_id, "not now", SYSTEM, rendered)
    office = Office(database)
    office.notifications = replace(office.notifications, idempotency=executor(database, clock))
    channel = await office.channel("desk", "http://127.0.0.1:1/hook")
    await office.notifications.test(channel, SYSTEM, rendered)
    await execute(database, "UPDATE notifications SET state = 'dead', next_attempt_at = NULL")
    (dead,) = await office.notifications.log(None, 5)
    await office.notifications.redrive(dead.id, SYSTEM, rendered)
    found = [(one.kind, one.code, one.subject) for one in await events(database)]
    assert found == [
        ("proposal_declined", "signal", opened.proposal_id),
        ("channel_changed", "created", "desk"),
        ("channel_changed", "tested", channel),
        ("channel_changed", "redriven", str(dead.id)),
    ]


@ON_SQLITE
async def test_the_check_of_the_running_service_finds_a_broken_chain(
    audit: SecurityAudit, database: Database
) -> None:
    desk = await Desk(database).filled(2)
    await audit.record(SecurityEventKind.LOGGED_IN, "user:ana")
    checks = {one.name: one.detail for one in (await desk.integrity.check()).invariants}
    assert checks["security_chain"] is None
    await execute(database, "DROP TRIGGER security_events_no_update")
    await execute(database, "UPDATE security_events SET principal = 'user:bob'")
    found = await desk.integrity.check()
    checks = {one.name: one.detail for one in found.invariants}
    assert (found.ok, checks["security_chain"]) == (False, "event 1 was altered")
    assert checks["hash_chain"] is None
