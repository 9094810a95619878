"""Alerts and their rules over HTTP, over a real portfolio."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import httpx2
import pytest

from app.alerts.api import alert_routes as alerts
from app.alerts.storage.alerts import AlertRepository
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.operations.api import configuration_routes as configuration
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, WHO, Desk

ALERTS = f"{PREFIX}/alerts"
ROUTERS = (alerts.rule_router, alerts.router, configuration.router)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve(ROUTERS, {"my_symbols": desk}) as opened:
        yield opened


# Prices, sectors and risk of the desk are not those of a market.
UNREAL = {
    name: {"enabled": False}
    for name in ("price_anomaly", "sector_concentration", "var_above_limit")
}


async def filled(desk: Desk, size: int) -> None:
    """Members, and the rules that make sense for them."""
    await desk.open()
    await desk.configuration.put({"alerts": {"rules": UNREAL}}, "why", WHO)
    await desk.portfolio.initialize(size, "start", WHO)


async def get(client: httpx2.AsyncClient, path: str = "", **query: Any) -> Any:
    response = await client.get(ALERTS + path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(client: httpx2.AsyncClient, path: str, body: Any = None, **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(ALERTS + path, json=body, headers=given)


async def one_low(desk: Desk, client: httpx2.AsyncClient) -> Any:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    (alert,) = (await get(client))["items"]
    return alert


async def test_an_alert_from_its_start_to_its_end(desk: Desk, client: httpx2.AsyncClient) -> None:
    alert = await one_low(desk, client)
    assert alert["state"] == "open"
    assert (alert["value"], alert["limit"], alert["symbols"]) == (0.3, 0.5, [SYMBOLS[1]])
    assert alert["since"] == alert["opened_at"] == "2026-03-01T12:00:00Z"
    path = f"/{alert['id']}"
    assert await get(client, path) == alert

    first = await post(client, f"{path}/acknowledge", {"user": "ops"}, Idempotency_Key="k")
    again = await post(client, f"{path}/acknowledge", {"user": "ops"}, Idempotency_Key="k")
    assert first.json()["state"] == "acknowledged"
    assert first.json()["acknowledged_by"] == "local (ops)"
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert (await get(client))["items"] == []

    quiet = await post(client, f"{path}/snooze", {"seconds": 60})
    assert (quiet.json()["state"], quiet.json()["snoozed_until"]) == (
        "snoozed",
        "2026-03-01T12:01:00Z",
    )
    until = await post(client, f"{path}/snooze", {"until": "2026-03-01T13:00:00+00:00"})
    assert until.json()["snoozed_until"] == "2026-03-01T13:00:00Z"

    done = await post(client, f"{path}/resolve")
    assert (done.json()["state"], done.json()["resolution"]) == ("resolved", "operator")
    problem(await post(client, f"{path}/resolve"), 409, "alert_state")
    (past,) = (await get(client, state="resolved", symbol=SYMBOLS[1]))["items"]
    assert past == done.json()


async def test_the_past_is_paged(desk: Desk, client: httpx2.AsyncClient) -> None:
    await filled(desk, 5)
    desk.score(dict.fromkeys(SYMBOLS[:5], 0.3))
    assert len((await get(client))["items"]) == 5
    desk.later(minutes=1)
    desk.score({})
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await get(client, state="resolved", limit=2, **cursor)
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(set(seen)) == 5
    other = await client.get(ALERTS, params={"state": "open", **cursor})
    problem(other, 422, "validation_failed")


async def test_the_gravest_comes_first(desk: Desk, client: httpx2.AsyncClient) -> None:
    await one_low(desk, client)
    desk.status(SYMBOLS[3], ContractStatus.PAUSED)
    assert [one["rule"] for one in (await get(client))["items"]] == ["not_tradeable", "low_score"]
    put = await client.put(f"{ALERTS}/rules/not_tradeable", json={"severity": "info"})
    assert put.status_code == 200, put.text
    assert [one["rule"] for one in (await get(client))["items"]] == ["low_score", "not_tradeable"]
    (info,) = (await get(client, severity="info"))["items"]
    assert info["rule"] == "not_tradeable"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seconds": 0},
        {"seconds": 60, "until": "2026-03-01T13:00:00Z"},
        {"until": "2026-03-01T11:00:00Z"},
        {"until": "2026-05-01T13:00:00Z"},
        {"until": "tomorrow"},
        {"seconds": 60, "mood": 1},
    ],
)
async def test_a_snooze_that_makes_no_sense_is_refused(
    desk: Desk, client: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    alert = await one_low(desk, client)
    problem(await post(client, f"/{alert['id']}/snooze", body), 422, "validation_failed")
    assert (await get(client))["items"] == [alert]


async def test_what_does_not_exist_is_not_found(desk: Desk, client: httpx2.AsyncClient) -> None:
    await filled(desk, 3)
    nobody = "00000000-0000-4000-8000-00000000dead"
    problem(await client.get(f"{ALERTS}/{nobody}"), 404, "not_found")
    for step in ("acknowledge", "resolve"):
        problem(await post(client, f"/{nobody}/{step}"), 404, "not_found")
    problem(await post(client, f"/{nobody}/snooze", {"seconds": 9}), 404, "not_found")
    problem(await client.get(ALERTS, params={"state": "angry"}), 422, "validation_failed")


async def test_rules_are_shown_and_changed(desk: Desk, client: httpx2.AsyncClient) -> None:
    await filled(desk, 3)
    shown = await get(client, "/rules")
    low = next(one for one in shown["rules"] if one["name"] == "low_score")
    assert low == {
        "name": "low_score",
        "comparison": "below",
        "enabled": True,
        "severity": "warning",
        "limit": 0.5,
        "clear_limit": 0.52,
        "duration_s": 0,
        "cooldown_s": 600,
    }
    wanted = {"limit": 0.4, "clear_limit": 0.6, "duration_s": 30, "reason": "why", "user": "ops"}
    answer = await client.put(
        f"{ALERTS}/rules/low_score", json=wanted, headers={"If-Match": f'"{shown["version"]}"'}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == f'"{shown["version"] + 1}"'
    assert answer.json() == {**low, "limit": 0.4, "clear_limit": 0.6, "duration_s": 30}
    settings = (await client.get(f"{PREFIX}/configuration")).json()
    assert settings["alerts"]["low_score"] == 0.4
    assert settings["alerts"]["rules"]["low_score"]["clear_margin"] == pytest.approx(0.2)
    late = await client.put(
        f"{ALERTS}/rules/low_score", json=wanted, headers={"If-Match": f'"{shown["version"]}"'}
    )
    problem(late, 412, "precondition_failed")
    history = (await client.get(f"{PREFIX}/configuration/history")).json()["items"]
    assert (history[0]["created_by"], history[0]["reason"]) == ("local", "why")


@pytest.mark.parametrize(
    ("name", "body", "place"),
    [
        ("not_tradeable", {"limit": 1.0}, "limit"),
        ("low_score", {"clear_limit": 0.1}, "clear_limit"),
        ("low_score", {"cooldown_s": -1}, "cooldown_s"),
        ("low_score", {"limit": 2.0}, "low_score"),
    ],
)
async def test_a_rule_that_cannot_be_names_the_field(
    desk: Desk, client: httpx2.AsyncClient, name: str, body: dict[str, Any], place: str
) -> None:
    await filled(desk, 3)
    answer = await client.put(f"{ALERTS}/rules/{name}", json=body)
    problem(answer, 422, "validation_failed")
    assert [one["loc"] for one in answer.json()["errors"]] == [["body", place]]
    problem(await client.put(f"{ALERTS}/rules/mood", json={}), 404, "not_found")


async def test_a_pending_alert_is_no_open_one(desk: Desk, client: httpx2.AsyncClient) -> None:
    await filled(desk, 5)
    put = await client.put(f"{ALERTS}/rules/low_score", json={"duration_s": 120})
    assert put.status_code == 200
    desk.score({SYMBOLS[1]: 0.3})
    assert (await get(client))["items"] == []
    (waiting,) = (await get(client, state="pending"))["items"]
    assert waiting["opened_at"] is None
    desk.now += timedelta(minutes=2)
    desk.score({SYMBOLS[1]: 0.3})
    assert [one["id"] for one in (await get(client))["items"]] == [waiting["id"]]


async def test_U09_flapping_is_one_alert_in_ten_minutes_and_a_moment_is_none(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await filled(desk, 5)
    changed = {"duration_s": 60}
    assert (await client.put(f"{ALERTS}/rules/low_score", json=changed)).status_code == 200
    low, about, beyond = 0.49, 0.51, 0.55  # its limit is 0.5, and it is over from 0.52 on
    scores = [*[low] * 4, about, low, about, beyond, *[low] * 4, beyond, *[low] * 8]
    states, ids = list[str](), set[str]()
    for place, score in enumerate(scores):  # each half minute
        desk.score({SYMBOLS[1]: score, SYMBOLS[2]: 0.4 if place == 1 else 0.9})
        found = (await get(client, rule="low_score"))["items"]
        assert {one["subject"] for one in found} <= {SYMBOLS[1]}, "the other fell for a moment"
        states.append("open" if found else "")
        ids |= {one["id"] for one in found}
        desk.later(seconds=30)
    # It has to hold for a minute; what is just beyond its limit does not end it; and once it has
    # ended it is not told again for ten minutes.
    assert states == [*[""] * 2, *["open"] * 5, *[""] * 14]
    assert len(ids) == len((await get(client, state="resolved", rule="low_score"))["items"]) == 1


async def test_U10_what_came_and_went_while_nobody_ran_is_told_after_the_start(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    raised = await one_low(desk, client)
    again = Desk(desk.database)  # the process after it; it has seen nothing of the first
    again.market, again.boards = desk.market, desk.boards
    again.now = desk.now + timedelta(minutes=2)
    again.__post_init__()
    again.score({SYMBOLS[1]: 0.3})
    again.status(SYMBOLS[0], ContractStatus.PAUSED)
    async with serve(ROUTERS, {"my_symbols": again}) as reader:
        for _ in range(2):
            first, second = (await get(reader))["items"]
            assert (first["rule"], first["subject"]) == ("not_tradeable", SYMBOLS[0])
            assert (second["id"], second["opened_at"]) == (raised["id"], raised["opened_at"])
        assert (await get(reader, state="resolved"))["items"] == []
        again.score({})
        assert [one["id"] for one in (await get(reader))["items"]] == [first["id"]]
        (ended,) = (await get(reader, state="resolved"))["items"]
        assert (ended["id"], ended["resolution"]) == (raised["id"], "cleared")


async def test_C11_three_replicas_that_look_at_once_have_one_alert(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    async with AsyncExitStack() as stack:
        asked = [client]
        for number in range(2):
            other = Desk(desk.database)
            other.market, other.boards, other.now = desk.market, desk.boards, desk.now
            other.__post_init__()
            ids = (f"{number}-{at}" for at in count())
            other.alerts = replace(other.alerts, new_id=ids.__next__)
            served = serve(ROUTERS, {"my_symbols": other})
            asked.append(await stack.enter_async_context(served))
        shown = await asyncio.gather(*(get(one) for one in asked for _ in range(3)))
    found = {tuple(one["id"] for one in answer["items"]) for answer in shown}
    assert [len(ids) for ids in found] == [1], "all show the same one"
    async with desk.database.read() as unit:
        assert len(await unit.get(AlertRepository).active()) == 1
