"""Configuration over HTTP: whole, versioned, with every fault named."""

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any, cast
from unittest.mock import MagicMock

import httpx2
import pytest

from app.configuration.domain.document import as_document
from app.configuration.domain.model import Configuration, IntervalSettings
from app.configuration.services.current import CurrentSettings
from app.configuration.storage.configuration import configuration_versions
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.operations.api import configuration_routes as configuration
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.domain.event_log import EventType
from app.workers.schedule import Tasks, create_schedule
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

PATH = f"{PREFIX}/configuration"


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    routers = [configuration.router, portfolio_changes.router]
    async with serve(routers, {"my_symbols": desk}) as opened:
        yield opened


async def patch(client: httpx2.AsyncClient, body: Any, **headers: str) -> httpx2.Response:
    return await ask(client, "PATCH", PATH, body, **headers)


async def ask(
    client: httpx2.AsyncClient, method: str, path: str, body: Any, **headers: str
) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.request(method, path, json=body, headers=named)


async def test_patch_accepts_the_document_of_get(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    response = await client.get(PATH)
    document = response.json()
    assert response.headers["etag"] == '"1"'
    assert document["min_weight_percentage"] == 5
    assert document["eligibility"]["min_turnover"] == "5000000"
    same = await patch(client, document)
    assert (same.status_code, same.json()["configuration"]) == (200, document)
    document |= {"max_portfolio_symbols": 12, "min_weight_percentage": 4.123456}
    changed = await patch(client, document, if_match='"1"')
    assert changed.headers["etag"] == '"2"'
    assert changed.json()["configuration"] == {**document, "version": 2}
    assert (await client.get(PATH)).json()["min_weight_percentage"] == 4.123456
    problem(await patch(client, document), 412, "precondition_failed")
    del document["version"]
    problem(await patch(client, document, if_match='"1"'), 412, "precondition_failed")
    both = await patch(client, {"version": 2}, if_match='"1"')
    problem(both, 412, "precondition_failed")


async def test_the_settings_of_the_scoring_are_read_and_changed_with_all_others(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    shown = (await client.get(PATH)).json()["scoring"]
    assert shown == {
        "impact_notional": 20_000,
        "min_coverage": 0.9,
        "factor_weights": {},
        "neutralise": "none",
    }
    wanted = {
        "impact_notional": 5000,
        "min_coverage": 0.8,
        "factor_weights": {"rsi_14": 0.2},
        "neutralise": "volatility",
    }
    changed = await patch(client, {"scoring": wanted})
    assert changed.json()["configuration"]["scoring"] == wanted
    for weights, code, place in (
        ({"tea": 0.2}, "validation_failed", ["body", "scoring", "factor_weights", "tea"]),
        (
            dict.fromkeys(("volume_growth", "funding_rate", "funding_stability"), 0),
            "constraints_infeasible",
            ["body", "scoring", "factor_weights"],
        ),
    ):
        refused = problem(await patch(client, {"scoring": {"factor_weights": weights}}), 422, code)
        assert [one["loc"] for one in refused["errors"]] == [place]
    assert (await client.get(PATH)).json()["scoring"] == wanted


async def test_each_interval_is_a_setting_that_is_in_force_with_its_answer(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    in_force = CurrentSettings()
    wanted = {one.name: at for at, one in enumerate(fields(IntervalSettings), 600)}
    shown = (await patch(client, {"intervals": wanted})).json()["configuration"]["intervals"]
    assert shown == wanted
    async with desk.database.read() as unit:
        for record in await unit.get(EventRepository).after(0, 10):
            in_force.on_record(record)  # as every process does with what any of them committed
    assert in_force().intervals == IntervalSettings(**wanted)
    work, jobs = cast("Tasks", MagicMock(is_provisional=bool)), cast("Jobs", None)
    ticks = create_schedule(lambda: in_force().intervals, work, jobs, lambda: NOW, lambda: 0.0)
    used = {tick.interval_s() for tick in ticks}
    # Days of bars are asked for with the hours; the shorter of step and rotation counts.
    assert used == set(wanted.values()) - {
        wanted["daily_candles_s"],
        wanted["order_book_batch_s"],
        wanted["candle_poll_s"],
    }


async def test_the_eleventh_member(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled()
    add = f"{PREFIX}/portfolio/add-symbol"
    problem(await client.post(add, json={"symbol": SYMBOLS[10]}), 409, "portfolio_full")
    raised = await patch(client, {"max_portfolio_symbols": 15, "user": "ops", "reason": "more"})
    assert raised.status_code == 200
    eleventh = await client.post(add, json={"symbol": SYMBOLS[10]})
    assert (eleventh.status_code, eleventh.json()["position_rank"]) == (201, 11)
    lowered = await patch(client, {"max_portfolio_symbols": 10})
    problem(lowered, 409, "portfolio_exceeds_limit")
    eviction = {"max_portfolio_symbols": 10, "evict_lowest": True}
    assert (await patch(client, eviction, if_match='"1"')).status_code == 412
    assert len((await desk.portfolio.view()).portfolio.members) == 11
    history = (await client.get(f"{PATH}/history")).json()
    assert [(one["version"], one["created_by"], one["reason"]) for one in history["items"]] == [
        (2, "local", "more"),
        (1, "test", None),
    ]
    assert history["next_cursor"] is None


async def test_G04_fewer_members_than_there_are(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    lowered = await patch(client, {"max_portfolio_symbols": 2})
    assert "evict_lowest" in problem(lowered, 409, "portfolio_exceeds_limit")["detail"]
    evicted = await patch(client, {"max_portfolio_symbols": 2, "evict_lowest": True})
    assert evicted.status_code == 200
    assert evicted.json()["configuration"]["max_portfolio_symbols"] == 2
    assert len((await desk.portfolio.view()).portfolio.members) == 2


async def test_history_pages(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    for tilt in (0.6, 0.7, 0.8):
        await patch(client, {"score_tilt": tilt})
    first = (await client.get(f"{PATH}/history", params={"limit": 2})).json()
    rest = await client.get(f"{PATH}/history", params={"cursor": first["next_cursor"]})
    versions = [one["version"] for one in (*first["items"], *rest.json()["items"])]
    assert versions == [4, 3, 2, 1]
    assert [one["changes"][0]["old"] for one in first["items"]] == [0.7, 0.6]
    assert rest.json()["items"][0]["changes"][0]["old"] == 0.5, "the version of the other page"


async def test_the_history_has_typed_values_and_the_changes_of_each_version(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    first = (await client.get(PATH)).json()
    changes = {
        "min_weight_percentage": "4.5",
        "family_weights": {"technical": 0.25, "risk": 0.3},
        "rebalancing": {"fixed_weights": {SYMBOLS[0]: 12.5}},
        "eligibility": {"min_turnover": "6000000", "quotes": ["USDT", "USDC"]},
    }
    await patch(client, {**changes, "reason": "tuned"}, x_request_id="the-change")
    second = (await client.get(PATH)).json()
    await patch(client, {"rebalancing": {"fixed_weights": {}}})
    third, newer, oldest = (await client.get(f"{PATH}/history")).json()["items"]
    assert (newer["version"], newer["reason"], newer["request_id"]) == (2, "tuned", "the-change")
    for item, shown in ((oldest, first), (newer, second)):
        assert {"version": item["version"], **item["settings"]} == shown
    assert newer["changes"] == [
        {"key": "eligibility.min_turnover", "old": "5000000", "new": "6000000"},
        {"key": "eligibility.quotes", "old": ["USDT"], "new": ["USDT", "USDC"]},
        {"key": "family_weights.risk", "old": 0.4, "new": 0.3},
        {"key": "family_weights.technical", "old": 0.15, "new": 0.25},
        {"key": "min_weight_percentage", "old": 5, "new": 4.5},
        {"key": f"rebalancing.fixed_weights.{SYMBOLS[0]}", "old": None, "new": 12.5},
    ]
    gone = {"key": f"rebalancing.fixed_weights.{SYMBOLS[0]}", "old": 12.5, "new": None}
    assert third["changes"] == [gone]
    assert (oldest["version"], oldest["created_by"], oldest["changes"]) == (1, "test", [])
    assert (oldest["reason"], oldest["request_id"]) == (None, None)
    compared = (await client.get(f"{PATH}/diff", params={"from": 1, "to": 3})).json()
    assert (compared["from_version"], compared["to_version"]) == (1, 3)
    assert compared["changes"] == newer["changes"][:-1]
    backwards = (await client.get(f"{PATH}/diff", params={"from": 3, "to": 2})).json()["changes"]
    assert backwards == newer["changes"][-1:]
    problem(await client.get(f"{PATH}/diff", params={"from": 1, "to": 4}), 404, "not_found")


async def test_the_history_of_a_later_version_of_the_service_is_shown_as_it_was_written(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    later = {**as_document(Configuration()), "of_a_later_version": 1}
    del later["score_tilt"]
    async with desk.database.write() as unit:
        row = {"version": 2, "body": later, "created_at": NOW, "created_by": "later"}
        await unit.connection.execute(configuration_versions.insert(), row)
    newest = (await client.get(f"{PATH}/history")).json()["items"][0]
    assert newest["settings"]["of_a_later_version"] == 1
    assert newest["changes"] == [
        {"key": "of_a_later_version", "old": None, "new": 1},
        {"key": "score_tilt", "old": 0.5, "new": None},
    ]


async def test_C14_put_needs_the_version_that_it_was_decided_on(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    document = (await client.get(PATH)).json() | {"score_tilt": 0.9}
    for headers in ({}, {"if_match": "*"}):
        refused = problem(
            await ask(client, "PUT", PATH, document, **headers), 428, "precondition_required"
        )
        assert [one["loc"] for one in refused["errors"]] == [["header", "If-Match"]]
        assert "ETag" in refused["detail"]
    problem(await ask(client, "PUT", PATH, document, if_match='"2"'), 412, "precondition_failed")
    unnamed = {key: value for key, value in document.items() if key != "version"}
    problem(await ask(client, "PUT", PATH, unnamed, if_match='"2"'), 412, "precondition_failed")
    assert (await client.get(PATH)).json()["version"] == 1
    done = await ask(client, "PUT", PATH, document, if_match='"1"')
    assert (done.status_code, done.headers["etag"]) == (200, '"2"')
    assert done.json()["configuration"] == {**document, "version": 2}
    same = await ask(client, "PUT", PATH, {**document, "version": 2}, if_match='"2"')
    assert (same.status_code, same.headers["etag"]) == (200, '"2"'), "nothing to change"
    problem(await ask(client, "PUT", PATH, document, if_match='"1"'), 412, "precondition_failed")


async def test_put_refuses_a_missing_key_and_never_takes_its_default(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    tuned = {"score_tilt": 0.9, "sizing": {"var_limit": 0.01}, "family_weights": {"risk": 0.4}}
    await patch(client, tuned)
    document = (await client.get(PATH)).json()
    del document["score_tilt"], document["sizing"]["var_limit"]
    del document["family_weights"]["risk"], document["feed"]
    refused = problem(
        await ask(client, "PUT", PATH, document, if_match='"2"'), 422, "validation_failed"
    )
    assert {(*one["loc"], one["type"]) for one in refused["errors"]} == {
        ("body", "score_tilt", "missing"),
        ("body", "sizing", "var_limit", "missing"),
        ("body", "family_weights", "risk", "missing"),
        ("body", "feed", "missing"),
    }
    more = (await client.get(PATH)).json() | {"speed": 1}
    refused = problem(
        await ask(client, "PUT", PATH, more, if_match='"2"'), 422, "validation_failed"
    )
    assert [one["loc"] for one in refused["errors"]] == [["body", "speed"]]
    assert (await client.get(PATH)).json()["version"] == 2
    free = (await client.get(PATH)).json()
    free["rebalancing"]["fixed_weights"] = {SYMBOLS[0]: 5}
    await ask(client, "PUT", PATH, free, if_match='"2"')
    free["rebalancing"]["fixed_weights"], free["version"] = {}, 3
    done = await ask(client, "PUT", PATH, free, if_match='"3"')
    assert done.json()["configuration"]["rebalancing"]["fixed_weights"] == {}, "free keys may go"


async def test_a_rollback_makes_a_version_with_the_old_values(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.filled(3)
    await patch(client, {"max_portfolio_symbols": 3, "score_tilt": 0.7})
    await patch(client, {"max_portfolio_symbols": 12, "score_tilt": 0.9})
    path = f"{PATH}/rollback"
    problem(await ask(client, "POST", path, {"version": 9}), 404, "not_found")
    late = await ask(client, "POST", path, {"version": 2}, if_match='"2"')
    problem(late, 412, "precondition_failed")
    done = await ask(client, "POST", path, {"version": 2}, if_match='"3"', idempotency_key="once")
    assert (done.status_code, done.headers["etag"]) == (200, '"4"'), done.text
    shown = done.json()["configuration"]
    assert (shown["version"], shown["max_portfolio_symbols"], shown["score_tilt"]) == (4, 3, 0.7)
    assert (await client.get(PATH)).json() == shown
    again = await ask(client, "POST", path, {"version": 2}, if_match='"3"', idempotency_key="once")
    assert (again.content, again.headers["idempotency-replayed"]) == (done.content, "true")
    same = await ask(client, "POST", path, {"version": 2})
    assert same.headers["etag"] == '"4"', "equal settings make no version"
    newest, before = (await client.get(f"{PATH}/history")).json()["items"][:2]
    assert (newest["version"], newest["reason"]) == (4, "rollback to version 2")
    assert newest["changes"] == [
        {"key": one["key"], "old": one["new"], "new": one["old"]} for one in before["changes"]
    ]
    (event,) = await desk.queries.history(None, 1)
    assert (event.type, event.payload["configuration_version"]) == (EventType.CONFIG, 4)
    assert (await desk.integrity.check()).ok


async def test_a_rollback_obeys_the_rules_and_the_members_of_today(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    await patch(client, {"max_portfolio_symbols": 2})
    await patch(client, {"max_portfolio_symbols": 10})
    path = f"{PATH}/rollback"
    old = {**as_document(Configuration()), "of_an_older_version": 1}
    async with desk.database.write() as unit:
        row = {"version": 4, "body": old, "created_at": NOW, "created_by": "older"}
        await unit.connection.execute(configuration_versions.insert(), row)
        row |= {"version": 5, "body": as_document(Configuration())}
        await unit.connection.execute(configuration_versions.insert(), row)
    refused = problem(await ask(client, "POST", path, {"version": 4}), 422, "validation_failed")
    assert [one["loc"] for one in refused["errors"]] == [["body", "of_an_older_version"]]
    await desk.portfolio.initialize(3, "first", WHO)
    problem(await ask(client, "POST", path, {"version": 2}), 409, "portfolio_exceeds_limit")
    done = await ask(client, "POST", path, {"version": 2, "evict_lowest": True})
    assert done.json()["configuration"]["max_portfolio_symbols"] == 2
    assert len((await desk.portfolio.view()).portfolio.members) == 2


WRONG: tuple[tuple[dict[str, Any], str, set[tuple[str, ...]]], ...] = (
    ({"speed": 1}, "validation_failed", {("body", "speed")}),
    ({"intervals": {"tea": 1}}, "validation_failed", {("body", "intervals", "tea")}),
    (
        {
            "rebalance_interval_s": 0,
            "intervals": {
                "order_books_s": -1,
                "market_s": 1_000_000_000,
                "retention_s": 59,
                "signals_s": 0,
            },
        },
        "validation_failed",
        {
            ("body", "rebalance_interval_s"),
            ("body", "intervals", "order_books_s"),
            ("body", "intervals", "market_s"),
            ("body", "intervals", "retention_s"),
            ("body", "intervals", "signals_s"),
        },
    ),
    ({"family_weights": {"risk": 0.5}}, "validation_failed", {("body", "family_weights")}),
    ({"max_portfolio_symbols": None}, "validation_failed", {("body", "max_portfolio_symbols")}),
    (
        {"min_weight_percentage": 12},
        "constraints_infeasible",
        {("body", "min_weight_percentage")},
    ),
    (
        {"min_weight_percentage": "25"},
        "constraints_infeasible",
        {("body", "min_weight_percentage")},
    ),
)


async def test_G01_G02_G05_G10_everything_wrong_is_named_and_nothing_changes(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    for body, code, errors in WRONG:
        refused = problem(await patch(client, body), 422, code)
        assert {tuple(one["loc"]) for one in refused["errors"]} == errors
    assert (await client.get(PATH)).json()["version"] == 1


async def test_G02_the_bound_that_would_work(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    refused = problem(
        await patch(client, {"min_weight_percentage": 12}), 422, "constraints_infeasible"
    )
    assert "at most 10" in refused["detail"]


async def test_G03_a_warning_not_a_refusal(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    done = await patch(client, {"max_portfolio_symbols": 2}, idempotency_key="once")
    assert done.json()["warnings"] == ["cash_remainder_at_least: 60.000000"]
    again = await patch(client, {"max_portfolio_symbols": 2}, idempotency_key="once")
    assert again.content == done.content
    assert again.headers["idempotency-replayed"] == "true"
