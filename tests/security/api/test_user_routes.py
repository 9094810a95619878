"""Routes of users: administration, the caller itself, the own password."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database
from app.security.api import session_routes, user_routes
from app.security.domain.addresses import ClientAddress
from app.security.services.sessions import MAX_ATTEMPTS
from tests.support.api_keys import OWN_PAGE, PASSWORD, KeyDesk, bearer, cookie
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import NOW, Desk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
USERS = f"{PREFIX}/users"
OTHER = "another violet harbor"
ANA: dict[str, Any] = {"name": "ana", "role": "operator", "password": PASSWORD}


@pytest.fixture
async def desk(database: Database) -> KeyDesk:
    return KeyDesk(database)


@pytest.fixture
async def client(desk: KeyDesk) -> AsyncIterator[httpx2.AsyncClient]:
    owner: Any = Desk(desk.database)
    owner.keys, owner.users, owner.sessions = desk.service, desk.users, desk.sessions
    routers = [user_routes.router, session_routes.router]
    async with serve(routers, {"my_symbols": owner}) as opened:
        yield opened


def text(at: Any) -> str:
    return str(at.isoformat().replace("+00:00", "Z"))


async def test_a_user_from_its_creation_to_its_end(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    admin = bearer(await desk.issue("boss", Role.ADMIN))
    created = await client.post(USERS, json={**ANA, "scopes": ["live"]}, headers=admin)
    assert created.status_code == 201
    user = created.json()
    at = text(NOW)
    assert user == {
        "id": user["id"], "name": "ana", "role": "operator", "scopes": ["live"],
        "state": "active", "created_by": "key:boss", "created_at": at,
        "password_changed_at": at, "disabled_at": None,
    }  # fmt: skip
    taken = {**ANA, "role": "admin"}
    problem(await client.post(USERS, json=taken, headers=admin), 409, "user_name_taken")
    assert (await client.get(USERS, headers=admin)).json() == {"items": [user]}
    session = cookie(await desk.log_in("ana"))
    problem(await client.get(USERS, headers=session), 403, "forbidden")
    one = f"{USERS}/{user['id']}"
    once = {**admin, "Idempotency-Key": "once"}
    for is_replay in (False, True):
        changed = await client.patch(one, json={"role": "admin", "scopes": []}, headers=once)
        assert (changed.status_code, changed.json()) == (
            200, {**user, "role": "admin", "scopes": []},
        )  # fmt: skip
        assert ("idempotency-replayed" in changed.headers) is is_replay
    assert (await client.get(USERS, headers=session)).status_code == 200, "at once"
    desk.now += timedelta(minutes=1)
    renewed = await client.put(f"{one}/password", json={"password": OTHER}, headers=admin)
    assert renewed.json()["password_changed_at"] == text(desk.now)
    assert (await client.get(USERS, headers=session)).status_code == 401
    session = cookie(await desk.log_in("ana", OTHER))
    disabled = await client.patch(one, json={"is_active": False}, headers=admin)
    assert (disabled.json()["state"], disabled.json()["disabled_at"]) == (
        "disabled",
        text(desk.now),
    )
    assert (await client.get(USERS, headers=session)).status_code == 401
    enabled = await client.patch(one, json={"is_active": True, "role": None}, headers=admin)
    assert (enabled.json()["state"], enabled.json()["role"]) == ("active", "admin")
    for missing in (
        await client.patch(f"{USERS}/00", json={"is_active": False}, headers=admin),
        await client.put(f"{USERS}/00/password", json={"password": OTHER}, headers=admin),
    ):
        problem(missing, 404, "not_found")


async def test_no_password_and_no_hash_is_ever_stored_or_told_in_a_fast_form(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    admin = {**bearer(await desk.issue("boss", Role.ADMIN)), "Idempotency-Key": "once"}
    created = await client.post(USERS, json=ANA, headers=admin)
    one = f"{USERS}/{created.json()['id']}"
    renewed = await client.put(f"{one}/password", json={"password": OTHER}, headers=admin)
    shown = created.text + renewed.text + (await client.get(USERS, headers=admin)).text
    for secret in (PASSWORD, OTHER, "argon2"):
        assert secret not in shown
    async with desk.database.read() as unit:
        rows = await unit.connection.exec_driver_sql("SELECT * FROM idempotency_keys")
        assert rows.all() == [], "its fingerprint would be a fast hash of the password"
        events = await unit.connection.exec_driver_sql("SELECT * FROM events")
        assert "argon2" not in repr(events.all())


@ON_SQLITE
async def test_the_last_administrator_cannot_be_disabled_over_http(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    ana = await desk.person("ana", Role.ADMIN)
    session = {**cookie(await desk.log_in("ana")), **OWN_PAGE}
    for body in ({"is_active": False}, {"role": "operator"}):
        refused = await client.patch(f"{USERS}/{ana.id}", json=body, headers=session)
        problem(refused, 409, "last_admin")
    await desk.person("bob", Role.ADMIN)
    gone = await client.patch(f"{USERS}/{ana.id}", json={"is_active": False}, headers=session)
    assert gone.json()["state"] == "disabled"
    problem(await client.get(USERS, headers=session), 401, "unauthenticated")


@ON_SQLITE
async def test_the_scope_live_is_granted_by_an_administrator_with_a_credential(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    live = {**ANA, "scopes": ["live"]}
    problem(await client.post(USERS, json=live), 403, "forbidden")
    assert desk.ring.is_open
    created = await client.post(USERS, json={**ANA, "role": "admin"})
    assert (created.status_code, created.json()["created_by"]) == (201, "local")
    problem(await client.get(USERS), 401, "unauthenticated")
    session = {**cookie(await desk.log_in("ana")), **OWN_PAGE}
    one = f"{USERS}/{created.json()['id']}"
    granted = await client.patch(one, json={"scopes": ["live"]}, headers=session)
    assert granted.json()["scopes"] == ["live"]


@ON_SQLITE
@pytest.mark.parametrize(
    "body",
    [
        {**ANA, "name": "Ana"},
        {**ANA, "role": "root"},
        {**ANA, "role": None},
        {**ANA, "scopes": ["all"]},
        {**ANA, "password": "too short"},
        {**ANA, "password": "x9!Qr-vK#2" * 26},
        {**ANA, "password": "Password1234"},
        {**ANA, "password": 123456789012},
        {**ANA, "password_hash": "$argon2id$"},
        {**ANA, "created_by": "me"},
        {"name": "ana", "role": "viewer"},
    ],
)
async def test_what_is_no_user_is_refused_without_an_echo(
    client: httpx2.AsyncClient, desk: KeyDesk, body: dict[str, Any]
) -> None:
    refused = await client.post(USERS, json=body)
    problem(refused, 422, "validation_failed")
    password = body.get("password", "x9!")
    assert str(password) not in refused.text
    assert await desk.users.list() == ()


@ON_SQLITE
async def test_every_caller_sees_itself(client: httpx2.AsyncClient, desk: KeyDesk) -> None:
    me = f"{USERS}/me"
    local = (await client.get(me)).json()
    assert (local["actor"], local["kind"], local["role"]) == ("local", "local", "admin")
    assert (local["expires_at"], local["is_session"]) == (None, False)
    await desk.person("ana", Role.OPERATOR, Scope.LIVE)
    problem(await client.get(me), 401, "unauthenticated")
    key = await desk.issue(
        "tv", None, Scope.SIGNALS, sources=frozenset({"tv"}), lifetime=timedelta(hours=2)
    )
    assert (await client.get(me, headers=bearer(key))).json() == {
        "actor": "key:tv", "kind": "key", "name": "tv", "role": None, "scopes": ["signals"],
        "sources": ["tv"], "is_session": False, "expires_at": text(NOW + timedelta(hours=2)),
    }  # fmt: skip
    session = cookie(await desk.log_in("ana"))
    assert (await client.get(me, headers=session)).json() == {
        "actor": "user:ana", "kind": "user", "name": "ana", "role": "operator",
        "scopes": ["live"], "sources": [], "is_session": True,
        "expires_at": text(NOW + timedelta(hours=12)),
    }  # fmt: skip
    exchanged = await desk.sessions.exchange(key, ClientAddress("127.0.0.1", "127.0.0.1"), None)
    assert exchanged is not None
    by_key = (await client.get(me, headers=cookie(exchanged))).json()
    assert (by_key["actor"], by_key["is_session"]) == ("key:tv", True)
    assert by_key["expires_at"] == text(NOW + timedelta(hours=2)), "the end of the key"


@ON_SQLITE
async def test_the_own_password_needs_the_current_one(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    ana = await desk.person("ana", Role.ADMIN)
    await desk.person("bob", Role.ADMIN)
    session = {**cookie(await desk.log_in("ana")), **OWN_PAGE}
    second, bob = cookie(await desk.log_in("ana")), cookie(await desk.log_in("bob"))
    own = f"{USERS}/me/password"
    wanted = {"current_password": PASSWORD, "password": OTHER}
    desk.seconds += 60
    wrong = await client.put(own, json={**wanted, "current_password": OTHER}, headers=session)
    assert "current password is wrong" in problem(wrong, 403, "forbidden")["detail"]
    around = await client.put(
        f"{USERS}/{ana.id}/password", json={"password": OTHER}, headers=session
    )
    assert "/users/me/password" in problem(around, 403, "forbidden")["detail"]
    weak = await client.put(own, json={**wanted, "password": "Password1234"}, headers=session)
    problem(weak, 422, "validation_failed")
    assert (await client.get(USERS, headers=session)).status_code == 200
    changed = await client.put(own, json=wanted, headers=session)
    assert (changed.status_code, "clear-site-data" in changed.headers) == (204, True)
    for ended in (session, second):
        assert (await client.get(USERS, headers=ended)).status_code == 401
    assert (await client.get(USERS, headers=bob)).status_code == 200
    desk.seconds += 60
    assert await desk.sessions.log_in("ana", PASSWORD, "127.0.0.1", None) is None
    session = {**cookie(await desk.log_in("ana", OTHER)), **OWN_PAGE}
    desk.seconds += 60
    for _ in range(MAX_ATTEMPTS):
        assert (await client.put(own, json=wanted, headers=session)).status_code == 403
    problem(await client.put(own, json=wanted, headers=session), 429, "rate_limited")
    key = bearer(await desk.issue("boss", Role.ADMIN))
    problem(await client.put(own, json=wanted, headers=key), 409, "invalid_state_transition")
