"""GET /audit: both chains merged by time, filtered and paged."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.foundation.http.dependencies import USE_CASES, UseCases
from app.foundation.sql.database import Database
from app.operations.services.audit_log import AuditLog
from app.security.domain.audit import SecurityDraft, SecurityEventKind
from app.security.storage.audit import SecurityEventRepository
from tests.support.harness import PREFIX, make_api, open_client
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

pytestmark = pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    state = {USE_CASES: UseCases({AuditLog: AuditLog(database)})}
    async with open_client(make_api(state)) as opened:
        yield opened


async def lived(database: Database) -> None:
    """Three members at one time, security events before, at and after it."""
    await Desk(database).filled(3)
    drafts = [
        SecurityDraft(SecurityEventKind.LOGGED_IN, "user:ana", NOW - timedelta(hours=1)),
        SecurityDraft(SecurityEventKind.REFUSED, "key:eye", NOW, "10.0.0.1", "forbidden", count=7),
        SecurityDraft(SecurityEventKind.KEY_CREATED, "user:ana", NOW, subject="engine"),
        SecurityDraft(SecurityEventKind.LOGGED_OUT, "user:ana", NOW + timedelta(hours=1)),
    ]
    async with database.write() as unit:
        await unit.get(SecurityEventRepository).append(*drafts)


async def listed(client: httpx2.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """All items, page by page."""
    items: list[dict[str, Any]] = []
    while True:
        answer = await client.get(f"{PREFIX}/audit", params=query)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        items += document["items"]
        if document["next_cursor"] is None:
            return items
        query["cursor"] = document["next_cursor"]


def shown(items: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [(one["chain"], one["sequence"], one["action"]) for one in items]


MERGED = [
    ("security", 4, "logged_out"),
    ("security", 3, "key_created"),
    ("security", 2, "refused"),
    ("portfolio", 4, "weights"),
    ("portfolio", 3, "add"),
    ("portfolio", 2, "add"),
    ("portfolio", 1, "add"),
    ("security", 1, "logged_in"),
]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_chains_are_merged_by_time_and_paged(
    client: httpx2.AsyncClient, database: Database, limit: int
) -> None:
    await lived(database)
    items = await listed(client, limit=limit)
    assert shown(items) == MERGED, "at one time security first, then the higher number"
    refused = items[2]
    assert {name: refused[name] for name in ("actor", "address", "code", "count")} == {
        "actor": "key:eye", "address": "10.0.0.1", "code": "forbidden", "count": 7,
    }  # fmt: skip
    assert (items[1]["subject"], items[3]["actor"]) == ("engine", WHO.actor)
    assert (items[-2]["subject"], items[-2]["reason"] is None) == (SYMBOLS[0], False)
    assert all(len(one["hash"]) == 64 for one in items)


async def test_entries_are_filtered_by_actor_action_and_time(
    client: httpx2.AsyncClient, database: Database
) -> None:
    await lived(database)
    by_actor = await listed(client, actor="user:ana", limit=1)
    assert shown(by_actor) == [MERGED[0], MERGED[1], MERGED[-1]]
    assert shown(await listed(client, actor=WHO.actor)) == MERGED[3:7]
    assert shown(await listed(client, action="add")) == MERGED[4:7]
    assert shown(await listed(client, action="refused")) == [MERGED[2]]
    assert shown(await listed(client, actor="user:ana", action="add")) == []
    at = NOW.isoformat()
    assert shown(await listed(client, **{"from": at})) == MERGED[:7], "included"
    assert shown(await listed(client, to=at)) == MERGED[7:], "not included"
    for wrong in ({"action": "nothing"}, {"from": at, "to": at}, {"cursor": "x"}):
        answer = await client.get(f"{PREFIX}/audit", params=wrong)
        assert answer.status_code == 422, wrong
    first = (await client.get(f"{PREFIX}/audit", params={"limit": 1})).json()["next_cursor"]
    other = await client.get(f"{PREFIX}/audit", params={"cursor": first, "actor": "x", "limit": 1})
    assert other.status_code == 422, "a cursor belongs to its filter"
