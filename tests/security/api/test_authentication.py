"""Authentication over real sockets: keys, refusals, open mode and cached answers."""

import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

import aiohttp
import pytest
import structlog
from starlette.responses import Response

from app.foundation.http.permissions import AUDIT, AUTHENTICATOR, ActorDep, public, requires
from app.foundation.http.response_cache import VERSIONS, cacheable
from app.foundation.http.responses import answer
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.foundation.state_version import Input, StateVersion
from app.security.domain.keys import ENTROPY_BYTES, create_token, prefix_of
from app.security.services.audit import SecurityAudit
from app.security.storage.audit import SecurityEventRepository
from tests.support.api_keys import OTHER_PEPPER, SYSTEM, KeyDesk, bearer
from tests.support.harness import PREFIX, make_api
from tests.support.streaming import listening, port_of

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
UNKNOWN = create_token(bytes(range(ENTROPY_BYTES)))


class Who(Out):
    actor: str


@dataclass
class Versions:
    """A state that never changes."""

    runs: list[str] = field(default_factory=list)

    def version(self, depends_on: Input) -> StateVersion:
        del depends_on
        return (1,)

    async def load_version(self, depends_on: Input) -> StateVersion:
        return self.version(depends_on)


@dataclass
class Site:
    """A service with probe routes on a real socket."""

    address: str
    desk: KeyDesk
    versions: Versions
    session: aiohttp.ClientSession
    api: Any
    audit: SecurityAudit

    async def recorded(self) -> list[tuple[str, str, str | None, int]]:
        """Kind, principal, code and count of the refusals, as stored; the minute is cut short."""
        await self.audit.store_counts()
        async with self.desk.database.read() as unit:
            batches = unit.get(SecurityEventRepository).batches()
            stored = [event async for batch in batches for event in batch]
        return [
            (one.kind, one.principal, one.code, one.count)
            for one in stored
            if one.kind in {"refused", "authentication_failed"}
        ]

    async def ask(
        self, path: str = "/who", query: str = "", method: str = "GET", **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, document and headers of an answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://{self.address}{PREFIX}{path}{query}"
        async with self.session.request(method, url, headers=named) as response:
            return response.status, await response.json(), response.headers


@asynccontextmanager
async def opened(desk: KeyDesk) -> AsyncIterator[Site]:
    router, versions = api_router("system"), Versions()

    @router.get("/who")
    @requires(Role.VIEWER)
    async def who(actor: ActorDep) -> Who:
        return Who(actor=actor)

    @router.get("/open")
    @public
    async def anyone(actor: ActorDep) -> Who:
        return Who(actor=actor)

    @router.get("/cached")
    @requires(Role.OPERATOR)
    @cacheable(depends_on=Input.SCORES)
    async def cached() -> Response:
        versions.runs.append("cached")
        return answer(b'{"secret":"of operators"}')

    audit = SecurityAudit(desk.database, desk.clock)
    state = {AUTHENTICATOR: desk.ring, AUDIT: audit, VERSIONS: versions}
    api = make_api(state, routers=[router], cors_origins=["https://desk.example"])
    async with listening(api) as server, aiohttp.ClientSession() as session:
        yield Site(f"127.0.0.1:{port_of(server)}", desk, versions, session, api, audit)


@pytest.fixture
async def site(database: Database) -> AsyncIterator[Site]:
    async with opened(KeyDesk(database)) as found:
        yield found


@ON_SQLITE
async def test_a_key_authenticates_by_either_header(site: Site) -> None:
    token = await site.desk.issue("engine", Role.VIEWER)
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token} "},
        {"X_API_Key": token},
        {"X_API_Key": token, "Authorization": f"Bearer {token}"},
    ):
        status, document, _ = await site.ask(**headers)
        assert (status, document) == (200, {"actor": "key:engine"}), headers


@ON_SQLITE
async def test_S01_every_unauthenticated_request_gets_the_same_answer(site: Site) -> None:
    desk = site.desk
    valid = await desk.issue("engine", Role.ADMIN)
    expired = await desk.issue("old", Role.ADMIN, lifetime=timedelta(hours=1))
    revoked = await desk.issued("gone", Role.ADMIN)
    elsewhere = await desk.issue("far", Role.ADMIN, allow=("10.0.0.0/8",))
    await desk.service.revoke(revoked.key.id, SYSTEM)
    desk.now += timedelta(hours=1)
    attempts = {
        "missing": {},
        "malformed": bearer("mysym_nonsense"),
        "not ASCII": bearer("mysym_\u00e9"),
        "empty": {"Authorization": "Bearer "},
        "another scheme": {"Authorization": f"Basic {valid}"},
        "unknown": bearer(UNKNOWN),
        "expired": bearer(expired),
        "revoked": {"X-API-Key": revoked.token},
        "another address": bearer(elsewhere),
        "two keys": {**bearer(valid), "X-API-Key": UNKNOWN},
    }
    assert len(attempts) == 10, "an eleventh failure would be refused otherwise"
    answers = {}
    for name, headers in attempts.items():
        status, document, sent = await site.ask(**headers)
        assert document.pop("request_id") == sent["x-request-id"]
        challenge = sent["WWW-Authenticate"]
        answers[name] = (status, challenge, sorted(sent.keys()), json.dumps(document))
    first = answers["missing"]
    assert first[:2] == (401, 'Bearer realm="my-symbols"')
    assert json.loads(first[3])["code"] == "unauthenticated"
    assert {name: one for name, one in answers.items() if one != first} == {}
    assert (await site.ask(**bearer(valid)))[0] == 200
    status, document, _ = await site.ask("/open", **bearer(UNKNOWN))
    assert (status, document["actor"]) == (200, "anonymous"), "a public route asks for no key"
    failed = "authentication_failed"
    assert sorted(await site.recorded()) == [
        (failed, "anonymous", "malformed", 4),
        (failed, "anonymous", "several_keys", 1),
        (failed, "anonymous", "unknown", 2),
        (failed, "key:far", "address", 1),
        (failed, "key:gone", "revoked", 1),
        (failed, "key:old", "expired", 1),
        ("refused", "anonymous", "unauthenticated", 1),
    ]


@ON_SQLITE
async def test_S01_no_kind_of_invalid_key_takes_longer_than_another(site: Site) -> None:
    """Medians of interleaved requests; each comes from an address of its own."""
    desk = site.desk
    expired = await desk.issue("old", Role.ADMIN, lifetime=timedelta(hours=1))
    revoked = await desk.issued("gone", Role.ADMIN)
    elsewhere = await desk.issue("far", Role.ADMIN, allow=("192.0.2.0/24",))
    await desk.service.revoke(revoked.key.id, SYSTEM)
    desk.now += timedelta(hours=1)
    attempts: dict[str, dict[str, str]] = {
        "missing": {},
        "malformed": bearer("mysym_nonsense"),
        "unknown": bearer(UNKNOWN),
        "expired": bearer(expired),
        "revoked": bearer(revoked.token),
        "another address": bearer(elsewhere),
    }
    times: dict[str, list[float]] = {name: [] for name in attempts}
    address = count(1)
    for turn in range(160):
        for name, headers in attempts.items():
            number = next(address)
            client = (f"10.{number // 65536}.{number // 256 % 256}.{number % 256}", 1)
            began = time.perf_counter()
            assert await _from(site, client, headers) == 401
            if turn >= 10:  # what is done once is done
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in times.items()}
    assert max(medians.values()) - min(medians.values()) < 0.001, medians


@ON_SQLITE
async def test_refusals_are_one_event_per_principal_address_and_code(site: Site) -> None:
    viewer = await site.desk.issue("eye", Role.VIEWER)
    for _ in range(7):
        assert (await site.ask("/cached", **bearer(viewer)))[0] == 403
    assert (await site.ask())[0] == 401
    assert await _from(site, ("10.1.2.3", 1), bearer(viewer), path="/cached") == 403
    foreign = {"Origin": "https://evil.example"}
    assert (await site.ask(method="POST", **foreign))[0] == 403
    async with site.session.get(f"http://{site.address}{PREFIX}/who") as response:
        assert response.status == 401
    assert await site.recorded() == [
        ("refused", "key:eye", "forbidden", 7),
        ("refused", "anonymous", "unauthenticated", 2),
        ("refused", "key:eye", "forbidden", 1),
        ("refused", "anonymous", "forbidden", 1),
    ]
    for number in range(12):
        expected = 401 if number < 10 else 429
        assert (await site.ask(**bearer(UNKNOWN)))[0] == expected
    assert (await site.recorded())[4:] == [
        ("authentication_failed", "anonymous", "unknown", 12),
        ("refused", "anonymous", "rate_limited", 2),
    ]
    assert (await site.ask(**bearer(viewer)))[0] == 200
    assert len(await site.recorded()) == 6, "an answer that is none is no event"


@ON_SQLITE
async def test_S06_the_whole_secret_counts_not_the_prefix(site: Site) -> None:
    service = site.desk.service
    site.desk.service = replace(service, entropy=lambda number: bytes([1]) * number)
    valid = await site.desk.issue("engine", Role.ADMIN)
    forged = create_token(bytes([1]) * 6 + bytes([2]) * (ENTROPY_BYTES - 6))
    assert prefix_of(forged) == prefix_of(valid)
    assert (await site.ask(**bearer(forged)))[0] == 401
    assert (await site.ask(**bearer(valid)))[0] == 200


@ON_SQLITE
@pytest.mark.parametrize(
    "name", ["api_key", "key", "token", "access_token", "x-api-key", "API_KEY", "api%5Fkey", "q"]
)
async def test_S02_a_key_in_the_query_is_refused_and_never_logged(site: Site, name: str) -> None:
    token = await site.desk.issue("engine", Role.ADMIN)
    with structlog.testing.capture_logs() as lines:
        status, document, _ = await site.ask(query=f"?{name}={token}")
        assert (status, document["code"]) == (401, "unauthenticated")
        status, document, _ = await site.ask(query=f"?{name}={token}", **bearer(token))
        assert (status, document["code"]) == (401, "unauthenticated")
    text = repr(lines) + json.dumps(document)
    assert token not in text
    assert token[6:20] not in text
    assert "authentication_failed" in text


@ON_SQLITE
async def test_S05_guessing_is_answered_with_429_without_the_database(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = await site.desk.issue("engine", Role.VIEWER)
    statements: list[str] = []
    read, write = site.desk.database.read, site.desk.database.write
    for name, original in (("read", read), ("write", write)):

        def counted(*arguments: Any, _call: Any = original, **named: Any) -> Any:
            statements.append("a transaction")
            return _call(*arguments, **named)

        monkeypatch.setattr(Database, name, staticmethod(counted))
    statuses = []
    for number in range(200):
        token = create_token(number.to_bytes(ENTROPY_BYTES)) if number % 2 else f"mysym_{number}"
        status, document, headers = await site.ask(**bearer(token))
        statuses.append(status)
    assert statuses == [401] * 10 + [429] * 190
    assert document["code"] == "rate_limited"
    assert "WWW-Authenticate" not in headers
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert statements == []
    assert (await site.ask())[0] == 429, "also without a key from this address"
    for _ in range(3):
        assert (await site.ask(**bearer(valid)))[0] == 200, "a valid key is never refused"
    assert (await site.ask("/open"))[0] == 200


@ON_SQLITE
async def test_a_cached_answer_is_for_those_who_may_read_it(site: Site) -> None:
    operator = bearer(await site.desk.issue("operator", Role.OPERATOR))
    admin = bearer(await site.desk.issue("admin", Role.ADMIN))
    viewer = bearer(await site.desk.issue("viewer", Role.VIEWER))
    for headers in (operator, admin, operator):
        status, document, _ = await site.ask("/cached", **headers)
        assert (status, document) == (200, {"secret": "of operators"})
    assert site.versions.runs == ["cached"], "one answer, cached for all that may have it"
    status, document, _ = await site.ask("/cached", **viewer)
    assert (status, document["code"]) == (403, "forbidden")
    for headers in ({}, bearer(UNKNOWN)):
        status, document, _ = await site.ask("/cached", **headers)
        assert (status, document["code"]) == (401, "unauthenticated")
    assert site.versions.runs == ["cached"]


@ON_SQLITE
async def test_open_mode_lets_callers_of_this_machine_in_until_there_is_a_key(site: Site) -> None:
    assert site.desk.ring.is_open
    assert await _status(site) == (200, "local")
    for header in (
        "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Anything", "Forwarded", "X-Real-IP",
        "Via", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "CDN-Loop",
        "X-Original-Forwarded-For", "X-Envoy-External-Address", "X-Amzn-Trace-Id",
    ):  # fmt: skip
        status, document, _ = await site.ask(**{header: "127.0.0.1"})
        assert (status, document["code"]) == (401, "unauthenticated"), header
    assert (await site.ask(**bearer(UNKNOWN)))[0] == 401, "a wrong key is not passed over"
    issued = await site.desk.issued("engine", Role.VIEWER)
    assert (await site.ask())[0] == 401
    await site.desk.service.revoke(issued.key.id, SYSTEM)
    assert (await site.ask())[0] == 401, "it never opens again"


@ON_SQLITE
@pytest.mark.parametrize("client", [("10.1.2.3", 1), ("::ffff:10.1.2.3", 1), None])
async def test_open_mode_is_for_loopback_peers_only(site: Site, client: Any) -> None:
    assert await _from(site, client) == 401
    assert await _from(site, ("127.0.0.1", 1)) == 200
    assert await _from(site, ("::1", 1)) == 200
    assert await _from(site, ("::ffff:127.0.0.1", 1)) == 200


@ON_SQLITE
async def test_an_allow_list_is_checked_against_the_peer(site: Site) -> None:
    headers = bearer(await site.desk.issue("far", Role.VIEWER, allow=("10.0.0.0/8",)))
    assert await _from(site, ("10.1.2.3", 1), headers) == 200
    assert await _from(site, ("::ffff:10.1.2.3", 1), headers) == 200
    assert await _from(site, ("127.0.0.1", 1), headers) == 401
    spoofed = {**headers, "X-Forwarded-For": "10.1.2.3"}
    assert await _from(site, ("192.0.2.1", 1), spoofed) == 401


@ON_SQLITE
async def test_before_the_keys_are_known_this_machine_may_only_read(database: Database) -> None:
    desk = KeyDesk(database)
    async with opened(desk) as site:
        state: dict[str, Any] = {}
        assert await _from(site, ("127.0.0.1", 1), state=state) == 200
        assert await _from(site, ("10.1.2.3", 1), state=state) == 401
        assert await _from(site, ("127.0.0.1", 1), path="/cached", state=state) == 403
        proxied = {"X-Forwarded-For": "10.1.2.3"}
        assert await _from(site, ("127.0.0.1", 1), proxied, state=state) == 401


@ON_SQLITE
async def test_a_key_of_another_pepper_is_unknown(database: Database) -> None:
    one, other = KeyDesk(database), KeyDesk(database, peppers=(OTHER_PEPPER,))
    async with opened(other) as site:
        first = await one.issue("first", Role.VIEWER)
        second = await other.issue("second", Role.VIEWER)
        assert (await site.ask(**bearer(second)))[0] == 200
        assert (await site.ask(**bearer(first)))[0] == 401


async def _status(site: Site) -> tuple[int, str]:
    status, document, _ = await site.ask()
    return status, document["actor"]


async def _from(
    site: Site,
    client: Any,
    headers: dict[str, str] | None = None,
    path: str = "/who",
    state: dict[str, Any] | None = None,
) -> int:
    """Status of a request whose peer has another address than a test can have."""
    given: dict[str, Any] = {AUTHENTICATOR: site.desk.ring, AUDIT: site.audit}
    given = given if state is None else dict(state)
    sent: list[Any] = []
    scope = {
        "type": "http", "method": "GET", "http_version": "1.1", "scheme": "http",
        "path": PREFIX + path, "raw_path": (PREFIX + path).encode(), "query_string": b"",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        ],
        "server": ("127.0.0.1", 80), "client": client, "root_path": "", "state": given,
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await site.api(scope, receive, send)
    return int(sent[0]["status"])
