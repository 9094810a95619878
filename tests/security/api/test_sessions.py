"""Sessions over HTTP: log-in, cookie, forged requests, limits, end of sessions and streams."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import httpx2
import pytest
import structlog
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.security.api import key_routes, session_routes
from app.security.domain.addresses import ClientAddress
from app.security.domain.keys import ENTROPY_BYTES, create_token
from app.security.domain.people import SessionPolicy
from app.security.services.sessions import MAX_ATTEMPTS, MAX_ATTEMPTS_ON_NAME, MAX_SESSIONS
from app.security.services.users import UserEdit
from tests.support.api_keys import OWN_PAGE, PASSWORD, SYSTEM, KeyDesk, bearer, cookie
from tests.support.harness import PREFIX, make_api, with_state
from tests.support.problem_assertions import problem
from tests.support.streaming import PATIENCE_S, Client, Served, served
from tests.support.trading_desk import NOW, Desk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
SESSIONS = f"{PREFIX}/sessions"
KEYS = f"{PREFIX}/keys"
ANA = {"name": "ana", "password": PASSWORD}
UNKNOWN = create_token(bytes(range(ENTROPY_BYTES)))


@dataclass
class Site:
    """The routes of sessions and keys over one process, for any peer and scheme."""

    desk: KeyDesk
    api: Any
    state: Any

    def browser(
        self, scheme: str = "http", peer: str = "127.0.0.1", **headers: str
    ) -> httpx2.AsyncClient:
        """A browser on a page of the service, with cookies of its own."""
        transport = httpx2.ASGITransport(
            with_state(self.api, self.state), raise_app_exceptions=False, client=(peer, 1)
        )
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.AsyncClient(
            transport=transport, base_url=f"{scheme}://service", headers={**OWN_PAGE, **own}
        )


@asynccontextmanager
async def opened(desk: KeyDesk) -> AsyncIterator[Site]:
    owner: Any = Desk(desk.database)
    owner.keys, owner.users, owner.sessions = desk.service, desk.users, desk.sessions
    api = make_api({"my_symbols": owner}, routers=[session_routes.router, key_routes.router])
    async with api.router.lifespan_context(api) as state:
        yield Site(desk, api, state)


@pytest.fixture
async def site(database: Database) -> AsyncIterator[Site]:
    async with opened(KeyDesk(database)) as found:
        yield found


async def test_a_session_from_the_log_in_to_the_log_out(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    browser = site.browser()
    problem(await browser.get(KEYS), 401, "unauthenticated")
    answered = await browser.post(SESSIONS, json=ANA)
    assert answered.status_code == 201
    session = answered.json()
    assert (session["actor"], session["kind"], session["is_current"]) == ("user:ana", "user", True)
    ends = (NOW + timedelta(hours=12)).isoformat().replace("+00:00", "Z")
    assert session["expires_at"] == ends
    name, _, rest = answered.headers["set-cookie"].partition("=")
    token, *attributes = rest.split("; ")
    assert (name, len(bytes.fromhex(token))) == ("mysym_session", 32)
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=strict"]
    assert token not in answered.text
    assert (await browser.get(KEYS)).status_code == 200
    created = await browser.post(KEYS, json={"name": "engine", "role": "viewer"})
    assert (created.status_code, created.json()["created_by"]) == (201, "user:ana")
    assert (await browser.get(SESSIONS)).json() == {"items": [session]}
    async with site.desk.database.read() as unit:
        rows = await unit.connection.exec_driver_sql("SELECT * FROM sessions")
        stored = repr(rows.all())
    assert session["id"] in stored
    assert token not in stored
    gone = await browser.delete(f"{SESSIONS}/current")
    assert (gone.status_code, gone.content) == (204, b"")
    assert gone.headers["clear-site-data"] == '"cache", "cookies", "storage"'
    assert gone.headers["set-cookie"].startswith('mysym_session=""; expires=')
    browser.cookies.clear()
    kept = {"Cookie": f"mysym_session={token}"}
    problem(await browser.get(KEYS, headers=kept), 401, "unauthenticated")
    problem(await browser.delete(f"{SESSIONS}/current", headers=kept), 401, "unauthenticated")


@ON_SQLITE
async def test_under_tls_the_cookie_is_bound_to_the_host(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    browser = site.browser("https", "203.0.113.9")
    answered = await browser.post(SESSIONS, json=ANA)
    name, _, rest = answered.headers["set-cookie"].partition("=")
    token, *attributes = rest.split("; ")
    assert name == "__Host-mysym_session"
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=strict", "Secure"]
    assert (await browser.get(KEYS)).status_code == 200
    planted = site.browser("https", "203.0.113.9", Cookie=f"mysym_session={token}")
    assert (await planted.get(KEYS)).status_code == 401, "a name without the prefix counts not"
    twice = f"__Host-mysym_session={token}; a=b; __Host-mysym_session={token}"
    assert (await site.browser("https", Cookie=twice).get(KEYS)).status_code == 401
    assert (await site.browser(Cookie=f"__Host-mysym_session={token}").get(KEYS)).status_code == 401


@ON_SQLITE
async def test_without_tls_a_session_is_for_this_machine_only(database: Database) -> None:
    desk = KeyDesk(database)
    ana = await desk.person("ana", Role.ADMIN)
    async with opened(desk) as site:
        local = site.browser()
        assert (await local.post(SESSIONS, json=ANA)).status_code == 201
        token = local.cookies["mysym_session"]
        away = site.browser(peer="203.0.113.9")
        problem(await away.post(SESSIONS, json=ANA), 403, "forbidden")
        stolen = {"Cookie": f"mysym_session={token}"}
        assert (await away.get(KEYS, headers=stolen)).status_code == 401
        proxied = {**stolen, "X-Forwarded-For": "203.0.113.9"}
        assert (await site.browser().get(KEYS, headers=proxied)).status_code == 401
        problem(
            await site.browser(X_Forwarded_For="203.0.113.9").post(SESSIONS, json=ANA),
            403, "forbidden",
        )  # fmt: skip
    allowing = KeyDesk(database, policy=SessionPolicy(allows_plain=True))
    await allowing.ring.load()
    async with opened(allowing) as site:
        away = site.browser(peer="203.0.113.9")
        assert (await away.post(SESSIONS, json=ANA)).status_code == 201
        assert (await away.get(KEYS)).status_code == 200
    assert ana.is_active


@ON_SQLITE
async def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    gone = await site.desk.person("bob", Role.ADMIN)
    await site.desk.users.edit(gone.id, UserEdit(is_active=False), SYSTEM)
    key = await site.desk.issued("engine", Role.ADMIN)
    await site.desk.service.revoke(key.key.id, SYSTEM)
    answers = {}
    attempts: dict[str, dict[str, str]] = {
        "wrong name": {"name": "eve", "password": PASSWORD},
        "no name of a user": {"name": "Ana Example", "password": PASSWORD},
        "wrong password": {"name": "ana", "password": "crimson harbor 71 kites"},
        "disabled": {"name": "bob", "password": PASSWORD},
        "unknown key": {"key": UNKNOWN},
        "revoked key": {"key": key.token},
        "no key": {"key": "mysym_nonsense"},
    }
    with structlog.testing.capture_logs() as lines:
        for name, body in attempts.items():
            answered = await site.browser().post(SESSIONS, json=body)
            found = problem(answered, 401, "unauthenticated")
            found.pop("request_id")
            headers = sorted(answered.headers.keys())
            answers[name] = (json.dumps(found), headers, answered.headers["www-authenticate"])
    first = answers["wrong name"]
    assert {name: one for name, one in answers.items() if one != first} == {}
    assert "set-cookie" not in first[1]
    text = repr(lines)
    assert text.count("login_failed") == len(attempts)
    for secret in (PASSWORD, UNKNOWN, key.token, "Ana Example"):
        assert secret not in text
    assert await site.desk.failures() == [
        ("anonymous", "malformed", 1),
        ("anonymous", "unknown", 1),
        ("anonymous", "unknown_user", 2),
        ("key:engine", "revoked", 1),
        ("user:ana", "wrong_password", 1),
        ("user:bob", "disabled", 1),
    ]


@ON_SQLITE
async def test_attempts_are_limited_by_name_and_by_address(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    wrong = {"name": "ana", "password": "crimson harbor 71 kites"}
    assert (MAX_ATTEMPTS, MAX_ATTEMPTS_ON_NAME) == (10, 100)
    attacker = site.browser("https", "203.0.113.0")
    for _ in range(MAX_ATTEMPTS):
        assert (await attacker.post(SESSIONS, json=wrong)).status_code == 401
    problem(await attacker.post(SESSIONS, json=ANA), 429, "rate_limited")
    owner = site.browser("https", "198.51.100.9")
    assert (await owner.post(SESSIONS, json=ANA)).status_code == 201, "one address blocks no name"
    for number in range(MAX_ATTEMPTS + 1, MAX_ATTEMPTS_ON_NAME):
        peer = f"203.0.113.{number // MAX_ATTEMPTS}"
        answered = await site.browser("https", peer).post(SESSIONS, json=wrong)
        assert answered.status_code == 401
    blocked = problem(
        await site.browser("https", "198.51.100.1").post(SESSIONS, json=ANA), 429, "rate_limited"
    )
    assert 1 <= blocked["retry_after_s"] <= 60
    for number in range(MAX_ATTEMPTS):
        eve = {"name": f"eve{number}", "password": PASSWORD}
        assert (await site.browser().post(SESSIONS, json=eve)).status_code == 401
    for body in (ANA, {"key": UNKNOWN}, {"name": "other", "password": PASSWORD}):
        problem(await site.browser().post(SESSIONS, json=body), 429, "rate_limited")
    site.desk.seconds += 60
    assert (await site.browser().post(SESSIONS, json=ANA)).status_code == 201
    # Refused attempts were not counted, so that a flood blocks for a minute at most.
    flood = [site.browser().post(SESSIONS, json=wrong) for _ in range(3 * MAX_ATTEMPTS)]
    statuses = sorted(one.status_code for one in await asyncio.gather(*flood))
    assert statuses == [401] * (MAX_ATTEMPTS - 1) + [429] * (2 * MAX_ATTEMPTS + 1)
    site.desk.seconds += 60
    assert (await site.browser().post(SESSIONS, json=ANA)).status_code == 201


@ON_SQLITE
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "ana"},
        {"password": PASSWORD},
        {**ANA, "key": UNKNOWN},
        {"name": "ana", "password": ""},
        {"name": "ana", "password": 123456789012},
        {**ANA, "role": "admin"},
        {"key": ["mysym_"]},
    ],
)
async def test_what_is_no_log_in_is_refused_without_an_echo(
    site: Site, body: dict[str, Any]
) -> None:
    refused = await site.browser().post(SESSIONS, json=body)
    problem(refused, 422, "validation_failed")
    assert PASSWORD not in refused.text
    assert UNKNOWN not in refused.text


@ON_SQLITE
async def test_each_log_in_gives_a_new_session_and_ends_that_of_the_browser(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    browser = site.browser()
    planted = "ab" * 32
    browser.cookies.set("mysym_session", planted, domain="service.local")
    tokens = [planted]
    for _ in range(3):
        await browser.post(SESSIONS, json=ANA)
        token = browser.cookies.get("mysym_session", domain="service.local")
        assert token not in tokens
        tokens.append(str(token))
        for old in tokens[:-1]:
            assert (await site.browser(Cookie=f"mysym_session={old}").get(KEYS)).status_code == 401
    assert len((await browser.get(SESSIONS)).json()["items"]) == 1


@ON_SQLITE
async def test_the_session_that_was_used_longest_ago_makes_room(site: Site) -> None:
    desk = site.desk
    await desk.person("ana", Role.ADMIN)
    await desk.person("bob", Role.VIEWER)
    other = await desk.log_in("bob")
    issued = []
    for _ in range(MAX_SESSIONS):
        desk.now += timedelta(minutes=1)
        issued.append(await desk.log_in("ana"))
    assert (await site.browser().get(KEYS, headers=cookie(issued[0]))).status_code == 200
    await desk.ring.people.store_uses()
    desk.now += timedelta(minutes=1)
    issued.append(await desk.log_in("ana"))
    alive = [
        (await site.browser().get(KEYS, headers=cookie(one))).status_code == 200 for one in issued
    ]
    assert alive == [True, False, *[True] * (MAX_SESSIONS - 1)]
    assert (await site.browser().get(SESSIONS, headers=cookie(other))).status_code == 200
    assert (await desk.log_ins())[0] == (1, ["user:ana"])


@ON_SQLITE
async def test_a_log_in_names_the_owner_of_the_session_that_it_ended(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    await site.desk.person("bob", Role.VIEWER)
    browser = site.browser()
    for body in ({"name": "bob", "password": PASSWORD}, ANA, ANA):
        assert (await browser.post(SESSIONS, json=body)).status_code == 201
    assert await site.desk.log_ins() == [(1, ["user:ana"]), (1, ["user:bob"]), (0, [])]


@ON_SQLITE
async def test_a_session_ends_idle_after_30_minutes_and_after_12_hours_at_the_latest(
    site: Site,
) -> None:
    desk = site.desk
    await desk.person("ana", Role.ADMIN)
    issued = await desk.log_in("ana")

    async def status() -> int:
        return (await site.browser().get(KEYS, headers=cookie(issued))).status_code

    desk.now += timedelta(minutes=29)
    assert await status() == 200
    desk.now += timedelta(minutes=29)
    assert await status() == 200, "counted from the last use"
    desk.now += timedelta(minutes=30)
    assert await status() == 401
    issued = await desk.log_in("ana")
    for _ in range(35):
        desk.now += timedelta(minutes=20)
        assert await status() == 200
    desk.now += timedelta(minutes=20)
    assert await status() == 401, "12 hours have passed"


@ON_SQLITE
async def test_a_session_of_a_key_has_its_rights_and_ends_with_it(site: Site) -> None:
    desk = site.desk
    await desk.issue("boss", Role.ADMIN)
    made = await desk.issued("engine", Role.VIEWER, lifetime=timedelta(hours=1))
    far = await desk.issue("far", Role.VIEWER, allow=("10.0.0.0/8",))
    browser = site.browser()
    answered = await browser.post(SESSIONS, json={"key": made.token})
    assert (answered.status_code, answered.json()["actor"]) == (201, "key:engine")
    assert answered.json()["kind"] == "key"
    assert made.token not in answered.text
    problem(await browser.get(KEYS), 403, "forbidden")
    assert (await browser.get(SESSIONS)).status_code == 200
    problem(await site.browser().post(SESSIONS, json={"key": far}), 401, "unauthenticated")
    inside = site.browser("https", "10.1.2.3")
    assert (await inside.post(SESSIONS, json={"key": far})).status_code == 201
    token = inside.cookies["__Host-mysym_session"]
    outside = site.browser("https", Cookie=f"__Host-mysym_session={token}")
    assert (await outside.get(SESSIONS)).status_code == 401, "the allow list holds for it"
    await desk.service.revoke(made.key.id, SYSTEM)
    problem(await browser.get(SESSIONS), 401, "unauthenticated")


@ON_SQLITE
async def test_a_session_of_a_key_ends_when_the_key_expires(site: Site) -> None:
    made = await site.desk.issued("engine", Role.VIEWER, lifetime=timedelta(minutes=20))
    browser = site.browser()
    await browser.post(SESSIONS, json={"key": made.token})
    site.desk.now += timedelta(minutes=19)
    assert (await browser.get(SESSIONS)).status_code == 200
    site.desk.now += timedelta(minutes=1)
    assert (await browser.get(SESSIONS)).status_code == 401


# S16 and S09: cookies exist, so forged requests must be refused.
FORGED: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none, cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://service"},
    {},
]
GENUINE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://service"},
]


@ON_SQLITE
async def test_S16_a_forged_change_by_cookie_is_refused(site: Site) -> None:
    desk = site.desk
    await desk.person("ana", Role.ADMIN)
    issued = await desk.log_in("ana")
    token = await desk.issue("boss", Role.ADMIN)
    plain = site.browser()
    plain.headers.pop("Sec-Fetch-Site")
    plain.headers.pop("X-Requested-With")
    wanted = iter({"name": f"engine{number}", "role": "viewer"} for number in range(30))
    custom = {"X-Requested-With": "fetch"}
    for headers in FORGED:
        for more in (custom, {}):
            refused = await plain.post(
                KEYS, json=next(wanted), headers={**cookie(issued), **headers, **more}
            )
            problem(refused, 403, "csrf_refused")
        same = await plain.request("DELETE", f"{SESSIONS}/current", headers=cookie(issued))
        problem(same, 403, "csrf_refused")
    for headers in GENUINE:
        bare = await plain.post(KEYS, json=next(wanted), headers={**cookie(issued), **headers})
        assert "X-Requested-With" in problem(bare, 403, "csrf_refused")["detail"]
        genuine = {**cookie(issued), **headers, **custom}
        assert (await plain.post(KEYS, json=next(wanted), headers=genuine)).status_code == 201
    for origin in ("null", "http://service:8000", "http://evil.example"):
        named = {**cookie(issued), "Origin": origin, **custom}
        refused = await plain.post(KEYS, json=next(wanted), headers=named)
        assert refused.status_code == 403
    assert (await plain.get(KEYS, headers={**cookie(issued), **FORGED[0]})).status_code == 200
    by_key = {**bearer(token), "Sec-Fetch-Site": "cross-site"}
    assert (await plain.post(KEYS, json=next(wanted), headers=by_key)).status_code == 201, (
        "a key is in no form"
    )
    both = {**bearer(token), **cookie(issued)}
    assert (await plain.post(KEYS, json=next(wanted), headers=both)).status_code == 201
    assert len(await desk.service.list()) == 6


@ON_SQLITE
async def test_S16_a_page_of_another_origin_cannot_log_in(site: Site) -> None:
    await site.desk.person("ana", Role.ADMIN)
    plain = site.browser()
    plain.headers.pop("Sec-Fetch-Site")
    plain.headers.pop("X-Requested-With")
    for headers in FORGED[:-1]:
        refused = await plain.post(SESSIONS, json=ANA, headers=headers)
        problem(refused, 403, "csrf_refused")
    foreign = await plain.post(SESSIONS, json=ANA, headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403
    form = {"Content-Type": "text/plain", **GENUINE[0]}
    simple = await plain.post(SESSIONS, content=json.dumps(ANA), headers=form)
    problem(simple, 415, "unsupported_media_type")
    for headers in (*GENUINE, {}):  # a program sends none of them
        plain.cookies.clear()
        assert (await plain.post(SESSIONS, json=ANA, headers=headers)).status_code == 201


@ON_SQLITE
async def test_own_sessions_are_listed_and_ended_those_of_others_by_an_administrator(
    site: Site,
) -> None:
    desk = site.desk
    await desk.person("ana", Role.ADMIN)
    await desk.person("bob", Role.VIEWER)
    await desk.issue("boss", Role.ADMIN)
    scoped = await desk.issue("bob", Role.VIEWER)
    ana, bob, second = [await desk.log_in(name) for name in ("ana", "bob", "bob")]
    by_key = await desk.sessions.exchange(scoped, ClientAddress("127.0.0.1", "127.0.0.1"), None)
    assert by_key is not None

    async def listed(headers: dict[str, str]) -> list[str]:
        answered = await site.browser().get(SESSIONS, headers=headers)
        return [one["id"] for one in answered.json()["items"]]

    everything = [one.session.id for one in (ana, bob, second, by_key)]
    assert sorted(await listed(cookie(ana))) == sorted(everything)
    assert sorted(await listed(cookie(bob))) == sorted(everything[1:3])
    assert await listed(bearer(scoped)) == [by_key.session.id], "the same name is another caller"
    for other in (ana.session.id, by_key.session.id, "00"):
        refused = await site.browser().delete(f"{SESSIONS}/{other}", headers=cookie(bob))
        found = problem(refused, 404, "not_found")
        assert "no session with this id" in found["detail"], "the same for one that exists"
    ended = await site.browser().delete(f"{SESSIONS}/{second.session.id}", headers=cookie(bob))
    assert (ended.status_code, "set-cookie" in ended.headers) == (204, False)
    assert await listed(cookie(bob)) == [bob.session.id]
    no_session = await site.browser().delete(f"{SESSIONS}/current", headers=bearer(scoped))
    problem(no_session, 404, "not_found")
    by_admin = await site.browser().delete(f"{SESSIONS}/{bob.session.id}", headers=cookie(ana))
    assert by_admin.status_code == 204
    assert (await site.browser().get(SESSIONS, headers=cookie(bob))).status_code == 401


async def hear_to_the_end(client: Client) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await client.hear()


@asynccontextmanager
async def streaming(database: Database, desk: KeyDesk) -> AsyncIterator[Served]:
    async with served(database, keys=desk.service) as found:
        yield found


@ON_SQLITE
async def test_S09_a_websocket_by_cookie_needs_the_own_origin(database: Database) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    headers = cookie(await desk.log_in("ana"))
    async with streaming(database, desk) as streams:
        own = f"http://{streams.address.partition('/')[0]}"
        foreign = ("http://evil.example", "null", "http://127.0.0.1:1")
        for origin in (None, *foreign):
            with pytest.raises(InvalidStatus) as refused:
                async with streams.client(additional_headers=headers, origin=origin):
                    pass
            assert refused.value.response.status_code == 403, origin
        site = {**headers, "Sec-Fetch-Site": "same-site"}
        with pytest.raises(InvalidStatus):
            async with streams.client(additional_headers=site, origin=own):
                pass
        async with streams.client(additional_headers=headers, origin=own) as socket:
            assert (await socket.subscribe("alert"))["type"] == "subscribed"


@ON_SQLITE
@pytest.mark.parametrize("end", ["log-out", "password", "disabled", "role", "idle"])
async def test_S10_an_ended_session_loses_its_streams_within_a_second(
    database: Database, end: str
) -> None:
    desk = KeyDesk(database)
    ana = await desk.person("ana", Role.ADMIN)
    await desk.person("boss", Role.ADMIN)
    issued, other = await desk.log_in("ana"), await desk.log_in("boss")
    loop = asyncio.get_running_loop()
    async with streaming(database, desk) as streams:
        own = f"http://{streams.address.partition('/')[0]}"
        async with (
            streams.client(additional_headers=cookie(issued), origin=own) as socket,
            streams.sse("topics=alert", **cookie(issued)) as events,
            streams.sse("topics=alert", **cookie(other)) as stays,
        ):
            assert (await events.hear())["event"] == "hello"
            assert (await stays.hear())["event"] == "hello"
            assert (await socket.subscribe("alert"))["type"] == "subscribed"
            began = loop.time()
            if end == "log-out":
                await desk.sessions.end(issued.session.id, issued.principal)
            elif end == "password":
                await desk.users.set_password(ana.id, "another violet harbor", SYSTEM)
            elif end == "idle":
                desk.now += timedelta(minutes=29)
                desk.ring.people.note_use(other.session)
                desk.now += timedelta(minutes=1)
            else:
                edit = UserEdit(is_active=False) if end == "disabled" else UserEdit(Role.VIEWER)
                await desk.users.edit(ana.id, edit, SYSTEM)
            with pytest.raises(ConnectionClosed) as closed:
                await hear_to_the_end(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
            async with asyncio.timeout(PATIENCE_S):
                assert await events.answer.content.read() == b""
            assert loop.time() - began < 1.0
            assert not stays.answer.content.at_eof()


@ON_SQLITE
async def test_a_browser_logs_in_where_it_asks_for_the_docs(site: Site) -> None:
    await site.desk.person("ana", Role.VIEWER)
    browser = site.browser(Accept="text/html,*/*;q=0.8")
    page = await browser.get("/docs")
    assert page.status_code == 401
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page.text, re.DOTALL)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert f'fetch("{SESSIONS}"' in page.text
    assert "swagger" not in page.text
    problem(await site.browser(Accept="*/*").get("/docs"), 401, "unauthenticated")
    problem(await browser.get("/openapi.json"), 401, "unauthenticated")
    assert (await browser.post(SESSIONS, json=ANA)).status_code == 201
    shown = await browser.get("/docs")
    assert (shown.status_code, "swagger" in shown.text) == (200, True)
