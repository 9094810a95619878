"""Configuration over HTTP: whole, versioned, with every fault named."""

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any, cast
from unittest.mock import MagicMock

import httpx2
import pytest

from app.configuration.domain.model import IntervalSettings
from app.configuration.services.current import CurrentSettings
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.operations.api import configuration_routes as configuration
from app.portfolio.api import membership_routes as portfolio_changes
from app.workers.schedule import Tasks, create_schedule
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import NOW, SYMBOLS, Desk

PATH = f"{PREFIX}/configuration"


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    routers = [configuration.router, portfolio_changes.router]
    async with serve(routers, {"my_symbols": desk}) as opened:
        yield opened


async def put(client: httpx2.AsyncClient, body: Any, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.put(PATH, json=body, headers=named)


async def test_put_accepts_the_document_of_get(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    response = await client.get(PATH)
    document = response.json()
    assert response.headers["etag"] == '"1"'
    assert document["min_weight_percentage"] == 5
    assert document["eligibility"]["min_turnover"] == "5000000"
    same = await put(client, document)
    assert (same.status_code, same.json()["configuration"]) == (200, document)
    document |= {"max_portfolio_symbols": 12, "min_weight_percentage": 4.123456}
    changed = await put(client, document, if_match='"1"')
    assert changed.headers["etag"] == '"2"'
    assert changed.json()["configuration"] == {**document, "version": 2}
    assert (await client.get(PATH)).json()["min_weight_percentage"] == 4.123456
    problem(await put(client, document), 412, "precondition_failed")
    del document["version"]
    problem(await put(client, document, if_match='"1"'), 412, "precondition_failed")
    both = await put(client, {"version": 2}, if_match='"1"')
    problem(both, 412, "precondition_failed")


async def test_the_settings_of_the_scoring_are_read_and_changed_with_all_others(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    shown = (await client.get(PATH)).json()["scoring"]
    assert shown == {"impact_notional": 20_000, "min_coverage": 0.9, "factor_weights": {}}
    wanted = {"impact_notional": 5000, "min_coverage": 0.8, "factor_weights": {"rsi_14": 0.2}}
    changed = await put(client, {"scoring": wanted})
    assert changed.json()["configuration"]["scoring"] == wanted
    for weights, code, place in (
        ({"tea": 0.2}, "validation_failed", ["body", "scoring", "factor_weights", "tea"]),
        (
            dict.fromkeys(("volume_growth", "funding_rate", "funding_stability"), 0),
            "constraints_infeasible",
            ["body", "scoring", "factor_weights"],
        ),
    ):
        refused = problem(await put(client, {"scoring": {"factor_weights": weights}}), 422, code)
        assert [one["loc"] for one in refused["errors"]] == [place]
    assert (await client.get(PATH)).json()["scoring"] == wanted


async def test_each_interval_is_a_setting_that_is_in_force_with_its_answer(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    await desk.open()
    in_force = CurrentSettings()
    wanted = {one.name: at for at, one in enumerate(fields(IntervalSettings), 600)}
    shown = (await put(client, {"intervals": wanted})).json()["configuration"]["intervals"]
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
    raised = await put(client, {"max_portfolio_symbols": 15, "user": "ops", "reason": "more"})
    assert raised.status_code == 200
    eleventh = await client.post(add, json={"symbol": SYMBOLS[10]})
    assert (eleventh.status_code, eleventh.json()["position_rank"]) == (201, 11)
    lowered = await put(client, {"max_portfolio_symbols": 10})
    problem(lowered, 409, "portfolio_exceeds_limit")
    eviction = {"max_portfolio_symbols": 10, "evict_lowest": True}
    assert (await put(client, eviction, if_match='"1"')).status_code == 412
    assert len((await desk.portfolio.view()).portfolio.members) == 11
    history = (await client.get(f"{PATH}/history")).json()
    assert [(one["version"], one["created_by"], one["reason"]) for one in history["items"]] == [
        (2, "local", "more")
    ]
    assert history["next_cursor"] is None


async def test_G04_fewer_members_than_there_are(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.filled(3)
    lowered = await put(client, {"max_portfolio_symbols": 2})
    assert "evict_lowest" in problem(lowered, 409, "portfolio_exceeds_limit")["detail"]
    evicted = await put(client, {"max_portfolio_symbols": 2, "evict_lowest": True})
    assert evicted.status_code == 200
    assert evicted.json()["configuration"]["max_portfolio_symbols"] == 2
    assert len((await desk.portfolio.view()).portfolio.members) == 2


async def test_history_pages(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    for tilt in (0.6, 0.7, 0.8):
        await put(client, {"score_tilt": tilt})
    first = (await client.get(f"{PATH}/history", params={"limit": 2})).json()
    rest = await client.get(f"{PATH}/history", params={"cursor": first["next_cursor"]})
    versions = [one["version"] for one in (*first["items"], *rest.json()["items"])]
    assert versions == [4, 3, 2]


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
        refused = problem(await put(client, body), 422, code)
        assert {tuple(one["loc"]) for one in refused["errors"]} == errors
    assert (await client.get(PATH)).json()["version"] == 1


async def test_G02_the_bound_that_would_work(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    refused = problem(
        await put(client, {"min_weight_percentage": 12}), 422, "constraints_infeasible"
    )
    assert "at most 10" in refused["detail"]


async def test_G03_a_warning_not_a_refusal(desk: Desk, client: httpx2.AsyncClient) -> None:
    await desk.open()
    done = await put(client, {"max_portfolio_symbols": 2}, idempotency_key="once")
    assert done.json()["warnings"] == ["cash_remainder_at_least: 60.000000"]
    again = await put(client, {"max_portfolio_symbols": 2}, idempotency_key="once")
    assert again.content == done.content
    assert again.headers["idempotency-replayed"] == "true"
