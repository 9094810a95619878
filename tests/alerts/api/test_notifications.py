"""Channels and the delivery log over HTTP: what is secret stays so."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256

import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.alerts.api import notification_routes as routes
from app.alerts.services.notifications import NotificationService
from app.foundation.sql.database import Database
from tests.alerts.services.test_notifications import Office, change
from tests.support.event_contract import check_message
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem

PATH = f"{PREFIX}/notifications"
CANARY = "canary-of-a-token"


@dataclass
class Face:
    notifications: NotificationService


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


@pytest.fixture
async def client(office: Office) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([routes.router], {"my_symbols": Face(office.notifications)}) as opened:
        yield opened


async def test_a_channel_from_its_first_day_to_its_last(
    office: Office, client: httpx2.AsyncClient
) -> None:
    got: list[str] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request.headers["X-Event-Id"])
        check_message(await request.json(), "webhook")
        return web.Response()

    app = web.Application()
    app.router.add_post(f"/{CANARY}", take)
    async with TestServer(app) as server:
        url = f"http://127.0.0.1:{server.port}/{CANARY}"
        wanted = {"name": "desk", "kind": "webhook", "url": url, "secret": CANARY * 2}
        made = await client.post(f"{PATH}/channels", json=wanted)
        assert made.status_code == 201, made.text
        channel = made.json()
        assert (channel["service"], channel["has_secret"]) == ("http", True)
        problem(await client.post(f"{PATH}/channels", json=wanted), 409, "channel_name_taken")
        tried = await client.post(f"{PATH}/test", json={"channel_id": channel["id"]})
        assert tried.json()["state"] == "pending"
        await office.publish(change(1))
        await office.work()
        assert got == [f"notice-{tried.json()['id']}", "event-1"]
    first = (await client.get(PATH, params={"limit": 1})).json()
    assert [one["event_sequence"] for one in first["items"]] == [1]
    rest = await client.get(PATH, params={"limit": 1, "cursor": first["next_cursor"]})
    assert [one["title"] for one in rest.json()["items"]] == ["My Symbols: a test"]
    assert rest.json()["next_cursor"] is None
    listed = await client.get(f"{PATH}/channels")
    quiet = {"name": "quiet", "kind": "webhook", "kinds": ["error"], "enabled": False}
    changed = await client.put(f"{PATH}/channels/{channel['id']}", json=quiet)
    assert changed.json() == {**channel, "name": "quiet", "kinds": ["error"], "enabled": False}
    gone = await client.delete(f"{PATH}/channels/{channel['id']}")
    for answer in (made, tried, rest, listed, changed, gone):
        assert CANARY not in answer.text
    assert (await client.get(f"{PATH}/channels")).json() == {"items": []}
    problem(await client.delete(f"{PATH}/channels/{channel['id']}"), 404, "not_found")


async def test_G08_a_secret_is_never_read_back_and_can_be_told_from_another(
    client: httpx2.AsyncClient,
) -> None:
    wanted = {"name": "desk", "kind": "webhook", "url": "https://127.0.0.1/x", "secret": CANARY * 2}
    made = await client.post(f"{PATH}/channels", json=wanted)
    place = f"{PATH}/channels/{made.json()['id']}"
    kept = await client.put(place, json={"name": "desk", "kind": "webhook", "user": "ops"})
    other = await client.put(place, json={**wanted, "secret": CANARY * 3})
    plain = {**wanted, "name": "plain", "secret": None}
    without = (await client.post(f"{PATH}/channels", json=plain)).json()
    first, second, third = (one.json()["secret_fingerprint"] for one in (made, kept, other))
    assert len(first) == 12
    hashes = (
        sha256(text + (CANARY * 2).encode()).hexdigest() for text in (b"", b"channel secret:")
    )
    assert all(not one.startswith(first) for one in hashes), "guessing a secret needs the key"
    assert (second == first, third == first) == (True, False)
    assert (without["has_secret"], without["secret_fingerprint"]) == (False, None)
    assert all(CANARY not in one.text for one in (made, kept, other))
    # It can be written and told from another, and never be read.
    listed = await client.get(f"{PATH}/channels")
    shown = {one["name"]: one for one in listed.json()["items"]}
    assert (shown["desk"]["has_secret"], shown["desk"]["secret_fingerprint"]) == (True, third)
    assert (shown["plain"]["has_secret"], shown["plain"]["secret_fingerprint"]) == (False, None)
    tried = await client.post(f"{PATH}/test", json={"channel_id": made.json()["id"]})
    log = await client.get(PATH)
    gone = await client.delete(place)
    assert all(CANARY not in one.text for one in (listed, tried, log, gone))
    assert not any({"secret", "url"} & one.keys() for one in (made.json(), *shown.values()))
    problem(await client.post(f"{PATH}/1/redrive"), 404, "not_found")


@pytest.mark.parametrize(
    ("kind", "url", "code"),
    [
        ("webhook", f"https://user:{CANARY}@hooks.example.com/", "webhook_url_forbidden"),
        ("webhook", f"ftp://hooks.example.com/{CANARY}", "webhook_url_forbidden"),
        ("apprise", f"tgram://{CANARY}", "validation_failed"),
        ("apprise", f"syslog://{CANARY}", "validation_failed"),
    ],
)
async def test_S11_a_forbidden_address_is_refused_and_not_repeated(
    client: httpx2.AsyncClient, kind: str, url: str, code: str
) -> None:
    wanted = {"name": "desk", "kind": kind, "url": url, "secret": CANARY * 2}
    answer = await client.post(f"{PATH}/channels", json=wanted)
    problem(answer, 422, code)
    assert CANARY not in answer.text
