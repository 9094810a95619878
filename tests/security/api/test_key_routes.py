"""Routes of API keys: creation, replay without the secret, rotation, revocation, streams."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from app.foundation.principals import Role, Scope
from app.foundation.sql.database import Database
from app.security.api import key_routes
from app.security.services.audit import SecurityAudit
from app.security.storage.audit import SecurityEventRepository
from app.signals.api import routes as signal_routes
from tests.support.api_keys import SYSTEM, KeyDesk, bearer
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.streaming import PATIENCE_S, Client, Served, served
from tests.support.trading_desk import NOW, Desk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KEYS = f"{PREFIX}/keys"
ENGINE = {"name": "engine", "role": "trader"}


@pytest.fixture
async def desk(database: Database) -> KeyDesk:
    return KeyDesk(database)


@pytest.fixture
async def client(database: Database, desk: KeyDesk) -> AsyncIterator[httpx2.AsyncClient]:
    owner = Desk(database)
    owner.keys = desk.service  # type: ignore[attr-defined]  # the facade of a test
    async with serve([key_routes.router, signal_routes.router], {"my_symbols": owner}) as opened:
        yield opened


async def test_a_key_from_its_creation_to_its_end(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    wanted = {
        **ENGINE, "scopes": ["signals"], "sources": ["tv"], "allow": ["127.0.0.1/8"],
        "expires_days": 90,
    }  # fmt: skip
    created = await client.post(KEYS, json=wanted)
    assert created.status_code == 201
    made = created.json()
    secret = made.pop("secret")
    assert (made["name"], made["role"], made["scopes"]) == ("engine", "trader", ["signals"])
    assert (made["sources"], made["allow"]) == (["tv"], ["127.0.0.0/8"])
    assert (made["state"], made["created_by"]) == ("active", "local")
    assert made["expires_at"] == (NOW + timedelta(days=90)).isoformat().replace("+00:00", "Z")
    assert secret.startswith(made["prefix"])
    assert not {"hash", "pepper_id"} & made.keys()
    problem(await client.get(KEYS), 401, "unauthenticated")
    admin = bearer(await desk.issue("boss", Role.ADMIN))
    listed = (await client.get(KEYS, headers=admin)).json()["items"]
    assert [one["name"] for one in listed] == ["boss", "engine"]
    assert listed[1] == made
    problem(await client.get(KEYS, headers=bearer(secret)), 403, "forbidden")
    rotated = await client.post(f"{KEYS}/{made['id']}/rotate", json={"grace_s": 60}, headers=admin)
    assert rotated.status_code == 201
    renewed = rotated.json()
    same = ("name", "role", "scopes", "sources", "allow")
    assert {name: renewed[name] for name in same} == {name: made[name] for name in same}
    assert renewed["created_by"] == "key:boss"
    assert renewed["secret"] != secret
    old = (await client.get(KEYS, headers=admin)).json()["items"][1]
    assert old["expires_at"] == (NOW + timedelta(seconds=60)).isoformat().replace("+00:00", "Z")
    gone = await client.delete(f"{KEYS}/{renewed['id']}", headers=admin)
    assert (gone.status_code, gone.json()["state"]) == (200, "revoked")
    problem(await client.delete(f"{KEYS}/00", headers=admin), 404, "not_found")
    again = await client.post(f"{KEYS}/{renewed['id']}/rotate", headers=admin)
    problem(again, 409, "invalid_state_transition")


async def test_a_replay_creates_no_second_key_and_tells_no_secret(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    admin = {**bearer(await desk.issue("boss", Role.ADMIN)), "Idempotency-Key": "once"}
    first = await client.post(KEYS, json=ENGINE, headers=admin)
    again = await client.post(KEYS, json=ENGINE, headers=admin)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    secret = first.json()["secret"]
    assert again.json() == {**first.json(), "secret": None}
    assert len(await desk.service.list()) == 2
    other = {**bearer(await desk.issue("other", Role.ADMIN)), "Idempotency-Key": "once"}
    taken = await client.post(KEYS, json=ENGINE, headers=other)
    problem(taken, 409, "key_name_taken")
    async with desk.database.read() as unit:
        rows = await unit.connection.exec_driver_sql("SELECT * FROM idempotency_keys")
        kept = repr(rows.all())
    assert "key:boss" in kept
    assert secret not in kept


@ON_SQLITE
async def test_the_scope_live_is_granted_by_a_key_of_an_admin(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    live = {**ENGINE, "scopes": ["live"]}
    problem(await client.post(KEYS, json=live), 403, "forbidden")
    assert desk.ring.is_open
    admin = bearer(await desk.issue("boss", Role.ADMIN))
    granted = await client.post(KEYS, json=live, headers=admin)
    assert (granted.status_code, granted.json()["scopes"]) == (201, ["live"])


@ON_SQLITE
@pytest.mark.parametrize(
    "body",
    [
        {"name": "engine"},
        {"name": "Engine", "role": "viewer"},
        {"name": "engine", "role": "root"},
        {"name": "engine", "scopes": ["all"]},
        {"name": "engine", "role": "viewer", "sources": ["tv"]},
        {"name": "engine", "role": "viewer", "allow": ["everywhere"]},
        {"name": "engine", "role": "viewer", "expires_days": 0},
        {"name": "engine", "role": "viewer", "hash": "0"},
        {"name": "engine", "role": "viewer", "created_by": "me"},
        {"name": "local-cli", "role": "viewer"},
    ],
)
async def test_what_is_no_key_is_refused(client: httpx2.AsyncClient, body: Any) -> None:
    problem(await client.post(KEYS, json=body), 422, "validation_failed")


@ON_SQLITE
async def test_a_bound_key_posts_signals_of_its_sources_only(
    client: httpx2.AsyncClient, desk: KeyDesk
) -> None:
    token = await desk.issue("tv", None, Scope.SIGNALS, sources=frozenset({"tv"}))
    signal = {
        "signal_type": "MOMENTUM", "signal_strength": 0.5, "confidence_level": 0.5,
        "symbol": "BTCUSDT",
    }  # fmt: skip
    foreign = await client.post(
        f"{PREFIX}/signals", json={**signal, "source_name": "rsi"}, headers=bearer(token)
    )
    problem(foreign, 403, "forbidden")
    own = await client.post(
        f"{PREFIX}/signals", json={**signal, "source_name": "tv"}, headers=bearer(token)
    )
    assert own.status_code not in {401, 403}


@pytest.fixture
async def streams(database: Database, desk: KeyDesk) -> AsyncIterator[Served]:
    await desk.issue("boss", Role.ADMIN)
    async with served(database, keys=desk.service) as opened:
        yield opened


@ON_SQLITE
async def test_S07_S10_a_revoked_key_loses_its_streams_within_a_second(
    streams: Served, desk: KeyDesk
) -> None:
    issued, other = await desk.issued("reader", Role.VIEWER), await desk.issue("eye", Role.VIEWER)
    loop = asyncio.get_running_loop()
    async with (
        streams.client(additional_headers=bearer(issued.token)) as socket,
        streams.client(additional_headers=bearer(other)) as stays,
        streams.sse("topics=alert", **bearer(issued.token)) as events,
        streams.sse("topics=alert", **bearer(other)) as goes_on,
    ):
        assert events.answer.status == 200
        assert (await events.hear())["event"] == "hello"
        assert (await goes_on.hear())["event"] == "hello"
        assert (await socket.subscribe("portfolio_change"))["type"] == "subscribed"
        began = loop.time()
        await desk.service.revoke(issued.key.id, SYSTEM)
        with pytest.raises(ConnectionClosed) as closed:
            await _hear_to_the_end(socket)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "unauthenticated")
        async with asyncio.timeout(PATIENCE_S):
            assert await events.answer.content.read() == b""
        assert loop.time() - began < 1.0
        await stays.say(type="ping")
        heard = [await stays.hear(), await stays.hear()]
        assert "pong" in {one["type"] for one in heard}
        assert not goes_on.answer.content.at_eof()


@ON_SQLITE
async def test_S10_the_topic_of_keys_is_for_admins(streams: Served, desk: KeyDesk) -> None:
    viewer, admin = await desk.issue("eye", Role.VIEWER), await desk.issue("chief", Role.ADMIN)
    async with (
        streams.client(additional_headers=bearer(viewer)) as one,
        streams.client(additional_headers=bearer(admin)) as other,
    ):
        refused = await one.subscribe("security")
        assert (refused["type"], refused["code"]) == ("error", "forbidden")
        assert (await one.subscribe("alert"))["type"] == "subscribed", "the connection stays"
        assert (await other.subscribe("security"))["topics"] == ["security"]
        await desk.issue("new", Role.TRADER)
        streams.desk.stream.wake()
        event = (await other.events(1))[0]
        while event["data"]["name"] != "new":  # keys made before may arrive first
            event = (await other.events(1))[0]
        assert (event["topic"], event["data"]["change"]) == ("security", "created")
    async with streams.sse("topics=security", **bearer(viewer)) as refused_sse:
        assert refused_sse.answer.status == 403
        assert (await refused_sse.answer.json())["code"] == "forbidden"


@ON_SQLITE
async def test_S10_refusals_within_a_websocket_are_security_events(
    database: Database, desk: KeyDesk
) -> None:
    viewer, audit = (
        bearer(await desk.issue("eye", Role.VIEWER)),
        SecurityAudit(database, desk.clock),
    )
    options = {"streams_per_principal": 1}
    async with (
        served(database, keys=desk.service, audit=audit, api=options) as opened,
        opened.client(additional_headers=viewer) as socket,
    ):
        for _ in range(2):
            assert (await socket.subscribe("security"))["code"] == "forbidden"
        assert (await socket.subscribe("nothing"))["code"] == "validation_failed"
        async with opened.client(additional_headers=viewer) as second:
            with pytest.raises(ConnectionClosed):
                await _hear_to_the_end(second)
        for _ in range(21):
            await socket.say(type="ping")
        with pytest.raises(ConnectionClosed):
            await _hear_to_the_end(socket)
    await audit.store_counts()
    async with database.read() as unit:
        events = await unit.get(SecurityEventRepository).page(None, 10, kind="refused")
    assert sorted((one.principal, one.address, one.code, one.count) for one in events) == [
        ("key:eye", "127.0.0.1", "forbidden", 2),
        ("key:eye", "127.0.0.1", "rate_limited", 2),
    ]


async def _hear_to_the_end(client: Client) -> None:
    while True:
        await client.hear()
